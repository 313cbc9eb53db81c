"""Which container image, or which program, an image's name stands for on this machine."""

from __future__ import annotations

import contextlib
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

#: ``ACCOUNT.dkr.ecr.REGION.amazonaws.com/NAME``, in any partition (contract section 15).
_ECR = re.compile(r"^\d{12}\.dkr\.ecr(?:-fips)?\.[a-z0-9-]+\.amazonaws\.com(?:\.cn)?/(?P<name>.+)$")
#: What a name may consist of, as it becomes part of a path of the engine's API; the engine itself
#: is stricter, and says so.
_NAME = re.compile(r"\w(?:(?!\.\.)[\w.:/@+-])*", re.ASCII)
_BAD_NAME = "invalid reference format"


class ImageError(Exception):
    """The image is not here: one line for ``FailureReason``."""


class MissingImageError(ImageError):
    """An engine answers and does not have it."""


@dataclass(frozen=True)
class Chosen:
    """How a container is run.

    Attributes:
        image: The engine's image; None where a process of this environment stands for it.
        words: For the log: what runs, and why so.
        digest: ``sha256:…`` of its manifest, or of its configuration while no registry has it;
            empty for a process.
    """

    image: str | None
    words: str
    digest: str = ""


def candidates(name: str) -> list[str]:
    """The names under which an engine may have it: as given, and without ECR's host."""
    found = _ECR.match(name)
    return [name, found["name"]] if found else [name]


def choose(name: str, runner: str) -> Chosen:
    """Find the image, or settle for a process.

    Args:
        name: The image as the request names it.
        runner: ``docker``, ``process``, or ``auto``: docker where an engine answers.

    Raises:
        MissingImageError: The engine does not have it.
        ImageError: No engine answers and one was asked for, or it refuses.
    """
    if runner == "process":
        return Chosen(None, f"runner process: this environment stands for the image {name}")
    client = _engine()
    if client is None:
        if runner == "docker":
            raise ImageError(f"no Docker engine answers, so the image {name} cannot be run")
        return Chosen(
            None, f"runner process: no Docker engine answers; this environment stands for {name}"
        )
    with contextlib.closing(client):
        return _found(client, name)


def _found(client: Any, name: str) -> Chosen:
    import docker  # noqa: PLC0415 - of the extra control

    for candidate in candidates(name):
        if not _NAME.fullmatch(candidate):
            continue
        try:
            found = client.images.get(candidate)
        except docker.errors.NotFound:
            continue
        except (docker.errors.DockerException, OSError) as error:
            if _BAD_NAME in str(error):
                continue
            raise ImageError(f"the engine does not say whether it has {name}: {error}") from error
        digest = _digest(found.attrs, [name, candidate])
        return Chosen(candidate, f"runner docker: image {candidate}", digest)
    raise MissingImageError(
        f"the engine has no image {' or '.join(candidates(name))}; build it (make build) or pull it"
    )


def resolved(name: str, digest: str) -> str:
    """An image as DescribeEndpoint resolves it: by its digest, where that is known."""
    return f"{_repository(name)}@{digest}" if digest else name


def _repository(name: str) -> str:
    """A name without tag and digest; a port in it is no tag."""
    host, slash, last = name.partition("@")[0].rpartition("/")
    return f"{host}{slash}{last.partition(':')[0]}"


def _digest(attributes: Mapping[str, Any], names: Sequence[str]) -> str:
    """Of the manifest in the named repository, else in any; else the image's own."""
    known: list[str] = attributes.get("RepoDigests") or []
    repositories = [_repository(name) for name in names]
    ordered = [
        *(one for one in known if one in names),  # the request names the digest itself
        *(one for one in known if _repository(one) in repositories),
        *known,
        f"@{attributes['Id']}",
    ]
    return ordered[0].partition("@")[2]


def _engine() -> Any | None:
    import docker  # noqa: PLC0415 - of the extra control

    try:
        client = docker.from_env(timeout=5)
    except (docker.errors.DockerException, OSError):
        return None
    try:
        client.ping()
    except (docker.errors.DockerException, OSError):
        client.close()
        return None
    return client
