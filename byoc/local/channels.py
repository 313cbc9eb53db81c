"""Input channels: objects brought to a folder, or fed through pipes."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from byoc.local import s3
from byoc.local.pipes import Feeder

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from byoc.local.s3 import Item

#: What a manifest of attributes names objects with: ``"source-ref": "s3://…"``.
_REFERENCE = "-ref"


def listed(client: Any, source: Mapping[str, Any]) -> list[Item]:
    """A channel's objects.

    Args:
        client: Of S3.
        source: An ``S3DataSource`` of a training job, or an ``S3Input`` of a processing job.

    Raises:
        S3Error: There are none.
    """
    if source["S3DataType"] == "ManifestFile":
        return s3.in_manifest(client, source["S3Uri"])
    return s3.below(client, source["S3Uri"])


def bring(
    client: Any, items: list[Item], folder: Path, *, fast: bool, cancelled: Callable[[], bool]
) -> None:
    """Bring objects into a channel's folder.

    Args:
        client: Of S3.
        items: This host's objects; with none the folder stays empty.
        folder: The channel's.
        fast: FastFile: the program reads, and writes nothing.
        cancelled: Asked before each object.

    Raises:
        S3Error: An object is missing, or the disk is full.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise s3.S3Error(f"{folder.name} cannot be made: {error.strerror}") from error
    s3.fetch(client, items, folder, cancelled)
    if fast:
        for path in (folder, *folder.rglob("*")):
            path.chmod(0o555 if path.is_dir() else 0o444)


def feeder(client: Any, channel: Mapping[str, Any], items: list[Item], path: Path) -> Feeder:
    """A Pipe channel: its objects one after the other through ``PATH_0``, ``PATH_1``, ….

    Raises:
        S3Error: The manifest of attributes is none.
    """
    source = channel["DataSource"]["S3DataSource"]
    wrap = channel.get("RecordWrapperType") == "RecordIO"
    unpack = channel.get("CompressionType") == "Gzip"
    if source["S3DataType"] != "AugmentedManifestFile":
        return Feeder(path, [(client, item) for item in items], wrap=wrap, unpack=unpack)
    attributes = source.get("AttributeNames", ())
    records: list[Any] = []
    for item in items:
        text = b"".join(s3.stream(client, item)).decode("utf-8", "replace")
        try:
            lines = [json.loads(line) for line in text.splitlines() if line.strip()]
            for line in lines:
                records += [_attribute(client, name, line[name]) for name in attributes]
        except (ValueError, KeyError, TypeError) as error:
            raise s3.S3Error(
                f"s3://{item.bucket}/{item.key} is no augmented manifest with the attributes "
                f"{', '.join(attributes)}: {error!r}"
            ) from error
    return Feeder(path, records, wrap=wrap, unpack=unpack)


def _attribute(client: Any, name: str, value: Any) -> Any:
    """An object, or the value itself as JSON."""
    if name.endswith(_REFERENCE):
        bucket, key = s3.split(str(value))
        return client, s3.Item(bucket, key, key)
    return value.encode() if isinstance(value, str) else json.dumps(value).encode()
