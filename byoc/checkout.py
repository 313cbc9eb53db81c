"""The clone of this project that images are built from."""

from __future__ import annotations

import json
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import byoc
from byoc.errors import BuildError
from byoc.lanes import KINDS

if TYPE_CHECKING:
    from byoc.lanes import Kind

#: What the Dockerfiles read; anything else in the checkout cannot change an image.
SOURCES = (
    ".dockerignore", "LICENSE", "README.md", "byoc", "docker", "examples", "locks",
    "pyproject.toml", "serving", "training",
)  # fmt: skip


@dataclass(frozen=True)
class Revision:
    """What an image is built from: name of the tag, commit, its time and where it came from."""

    name: str
    commit: str = ""
    created: str = ""
    source: str = ""


def repository() -> Path:
    """The root of the checkout that holds the Dockerfiles.

    Raises:
        BuildError: neither the package nor the current directory lies in one.
    """
    here = Path.cwd()
    for folder in (Path(byoc.__file__).parents[1], here, *here.parents):
        if all((folder / "docker" / f"{kind}.Dockerfile").is_file() for kind in KINDS):
            return folder
    raise BuildError(f"no docker/training.Dockerfile in {here} or above; run byoc build in a clone")


def revision(root: Path) -> Revision:
    """The git revision of the checkout, or the project's version where there is no git."""

    def git(*arguments: str) -> str:
        done = subprocess.run(
            ["git", "-C", str(root), *arguments],  # noqa: S607 - the user's own git
            capture_output=True,
            text=True,
            check=False,
        )
        return done.stdout.strip() if done.returncode == 0 else ""

    try:
        commit = git("rev-parse", "HEAD")
    except OSError:
        commit = ""
    if not commit:
        return Revision(version(root))
    dirty = "-dirty" if git("status", "--porcelain", "--", *SOURCES) else ""
    source = git("remote", "get-url", "origin")
    # Only an address that others can use, and without credentials.
    source = re.sub(r"//[^/@]*@", "//", source) if source.startswith("https://") else ""
    return Revision(
        name=git("rev-parse", "--short=12", "HEAD") + dirty,
        commit=commit + dirty,
        created=git("show", "--no-patch", "--format=%cI", "HEAD"),
        source=source,
    )


def version(root: Path) -> str:
    """The project's version, from its pyproject.toml."""
    found = re.search(r'(?m)^version = "([^"]+)"', (root / "pyproject.toml").read_text())
    return found[1] if found else "0"


def budget_bytes(root: Path, lane: str, kind: Kind) -> int | None:
    """The budget of an image: bytes on top of its base."""
    budget = json.loads((root / "docker" / "budget.json").read_text())
    value = budget["added_bytes"].get(lane, {}).get(kind)
    return int(value) if value is not None else None
