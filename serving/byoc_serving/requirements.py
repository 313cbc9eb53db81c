"""The handler's requirements.txt: checked first, installed only when something is missing."""

from __future__ import annotations

import importlib.metadata
import re
import subprocess
import sys
import sysconfig
from typing import TYPE_CHECKING

from byoc_serving.errors import RequirementsError

if TYPE_CHECKING:
    from pathlib import Path

_COMMENT = re.compile(r"(^|\s)#.*$")


def unsatisfied(requirements: Path) -> list[str]:
    """Lines that what is installed does not satisfy, or that only pip can judge.

    Raises:
        RequirementsError: the file cannot be read.
    """
    from packaging.requirements import InvalidRequirement, Requirement  # noqa: PLC0415

    try:
        text = requirements.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise RequirementsError(f"{requirements} cannot be read: {error}") from error
    missing: list[str] = []
    for raw in text.replace("\\\n", " ").splitlines():
        line = _COMMENT.sub("", raw).strip()
        if not line:
            continue
        # Hashes pin files, which an installed package no longer is.
        bare = re.sub(r"\s--hash=\S+", "", line)
        try:
            requirement = Requirement(bare)
        except InvalidRequirement:
            missing.append(line)
            continue
        if requirement.marker is not None and not requirement.marker.evaluate():
            continue
        if requirement.url or requirement.extras or not _installed(requirement):
            missing.append(line)
    return missing


def _installed(requirement: object) -> bool:
    name, specifier = requirement.name, requirement.specifier  # type: ignore[attr-defined] # packaging is imported late
    try:
        version = importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return False
    return bool(specifier.contains(version, prereleases=True))


def satisfy(requirements: Path, target: Path, timeout_s: float) -> Path | None:
    """Make the requirements importable; call under a lock, once a container.

    What is installed already stays as it is, the rest goes below ``target``: the model
    directory is read-only, and installing torch a second time helps nobody.

    Returns:
        The directory to put on ``sys.path``, or None when nothing had to be installed.

    Raises:
        RequirementsError: pip failed, or took longer than ``timeout_s``.
    """
    site = site_packages(target)
    if (target / ".complete").exists():
        return site
    missing = unsatisfied(requirements)
    if not missing:
        return None
    command = [
        sys.executable, "-m", "pip", "install",
        "--no-input", "--disable-pip-version-check", "--no-cache-dir", "--no-compile",
        "--no-warn-script-location", "--root-user-action=ignore",
        "--retries", "1", "--timeout", "10",
        "--prefix", str(target), "--requirement", str(requirements),
    ]  # fmt: skip
    wanted = f"{', '.join(missing)[:300]} of {requirements} is not installed"
    advice = "install it in the image, or allow the container to reach a package index"
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=timeout_s, check=False
        )
    except subprocess.TimeoutExpired:
        raise RequirementsError(
            f"{wanted} and pip did not finish within {timeout_s:.0f} s; {advice}"
        ) from None
    if done.returncode:
        lines = [line.strip() for line in done.stderr.splitlines() if line.strip()]
        errors = [line for line in lines if line.startswith("ERROR")] or lines or ["no message"]
        raise RequirementsError(
            f"{wanted} and pip failed with exit code {done.returncode}: {errors[-1][:400]}; "
            f"{advice}"
        )
    (target / ".complete").touch()
    return site


def site_packages(target: Path) -> Path:
    """Where pip puts packages below a prefix."""
    return type(target)(
        sysconfig.get_path("purelib", vars={"base": str(target), "platbase": str(target)})
    )
