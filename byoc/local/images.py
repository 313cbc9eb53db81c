"""Which container image, or which program, an image's name stands for on this machine."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

#: ``ACCOUNT.dkr.ecr.REGION.amazonaws.com/NAME``, in any partition (contract section 15).
_ECR = re.compile(r"^\d{12}\.dkr\.ecr(?:-fips)?\.[a-z0-9-]+\.amazonaws\.com(?:\.cn)?/(?P<name>.+)$")


class ImageError(Exception):
    """The image is not here: one line for ``FailureReason``."""


@dataclass(frozen=True)
class Chosen:
    """How a container is run.

    Attributes:
        image: The engine's image; None where a process of this environment stands for it.
        words: For the log: what runs, and why so.
    """

    image: str | None
    words: str


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
        ImageError: The engine does not have it, or no engine answers and one was asked for.
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
    import docker  # noqa: PLC0415 - of the extra control

    for candidate in candidates(name):
        try:
            client.images.get(candidate)
        except docker.errors.ImageNotFound:
            continue
        return Chosen(candidate, f"runner docker: image {candidate}")
    raise ImageError(
        f"the engine has no image {' or '.join(candidates(name))}; build it (make build) or pull it"
    )


def _engine() -> Any | None:
    import docker  # noqa: PLC0415 - of the extra control

    try:
        client = docker.from_env(timeout=5)
        client.ping()
    except (docker.errors.DockerException, OSError):
        return None
    return client
