"""Which directory a load request means: below the models' root, and nothing else."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from byoc_serving.errors import BadBodyError, RequestError

#: Opaque, but no essay: it comes back in paths and logs.
MAX_NAME_LENGTH = 1024
#: The server takes request lines of 4,094 bytes; a name shares its one with the rest.
MAX_ENCODED_LENGTH = 4000
_EXPECTED = 'expected {"model_name": "<name>", "url": "/opt/ml/models/<name>/model"}'


@dataclass(frozen=True)
class LoadRequest:
    """The body of ``POST /models``."""

    name: str
    url: str

    @classmethod
    def parse(cls, body: bytes) -> LoadRequest:
        """Read the body.

        Raises:
            BadBodyError: no JSON object with two texts that can be a name and a path.
        """
        import orjson  # noqa: PLC0415 - checked by main before anything else loads

        try:
            content: Any = orjson.loads(body)
        except orjson.JSONDecodeError as error:
            raise BadBodyError(f"the body is no JSON: {error}; {_EXPECTED}") from None
        if not isinstance(content, dict):
            raise BadBodyError(f"the body is a JSON {type(content).__name__}; {_EXPECTED}")
        values: list[str] = []
        for member in ("model_name", "url"):
            value = content.get(member)
            if not isinstance(value, str) or not value:
                seen = f"is {str(value)[:60]!r}" if member in content else "is missing"
                raise BadBodyError(f"{member} {seen}; {_EXPECTED}")
            values.append(value)
        if len(values[0]) > MAX_NAME_LENGTH:
            raise BadBodyError(
                f"model_name has {len(values[0])} characters, the limit is {MAX_NAME_LENGTH}"
            )
        sent = len(quote(values[0], safe=""))
        if sent > MAX_ENCODED_LENGTH:
            raise BadBodyError(
                f"model_name has {sent} characters in a path, percent-encoded; the limit is "
                f"{MAX_ENCODED_LENGTH}, or no request could name it"
            )
        return cls(values[0], values[1])


def folder_of(url: str, root: Path) -> Path:
    """The directory that a url names, with links resolved.

    Args:
        url: an absolute path below ``/opt/ml/models``.
        root: what stands for ``/opt/ml``.

    Raises:
        RequestError: it is elsewhere (also by ``..`` or a link), missing, or no directory.
    """
    allowed = root / "models"
    path = Path(url)
    if path.is_relative_to("/opt/ml") and root != Path("/opt/ml") and not path.is_relative_to(root):
        # The platform means the container's paths, wherever BYOC_ROOT has put them.
        path = root / path.relative_to("/opt/ml")
    refused = f"url {url[:200]!r} is not below {allowed}"
    if not path.is_absolute():
        raise RequestError(f"{refused}; send the absolute path of the unpacked archive")
    try:
        found = path.resolve(strict=True)
        inside = found.is_relative_to(base := allowed.resolve()) and found != base
    except (OSError, ValueError, RuntimeError) as error:
        if ".." not in path.parts and path.is_relative_to(allowed):
            reason = getattr(error, "strerror", None) or str(error)
            raise RequestError(
                f"url {url[:200]!r} cannot be opened: {reason}; unpack the archive there first"
            ) from None
        inside = False
    if not inside:
        raise RequestError(f"{refused}; models are loaded from there alone")
    if not found.is_dir():
        raise RequestError(
            f"url {url[:200]!r} is no directory; send the one that holds the unpacked archive"
        )
    return found
