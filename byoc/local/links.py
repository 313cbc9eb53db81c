"""Symbolic links in what a container leaves behind: followed as the container saw them.

Hosting refuses archives with links, so a link to a file or a folder of the same output stands for
that. What leads elsewhere is left out: its target stays in the container, and the path may mean
another file here.
"""

from __future__ import annotations

from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

#: As many as Linux follows for one path.
MOST_LINKS = 40


class _LeftOutError(Exception):
    """Why a link is not followed."""


def has_any(folder: Path) -> bool:
    """Whether a folder is a link, or has some."""
    return folder.is_symlink() or any(path.is_symlink() for path in folder.rglob("*"))


def followed(
    folder: Path, place: str, log: Callable[[str], None]
) -> Iterator[tuple[PurePosixPath, Path]]:
    """Files and folders by their names, in a fixed order; those behind links as well.

    Args:
        folder: The output, here.
        place: Where the container has it, such as ``/opt/ml/model``.
        log: Is told which links are left out, and why.
    """

    def walk(
        here: Path, name: PurePosixPath, around: tuple[Path, ...]
    ) -> Iterator[tuple[PurePosixPath, Path]]:
        for path in sorted(here.iterdir()):
            one, real = name / path.name, path
            if path.is_symlink():
                try:
                    real = _target(path, folder, place, around)
                except _LeftOutError as why:
                    log(f"{place}/{one} is left out: it is a symbolic link to {why}")
                    continue
            yield one, real
            if real.is_dir():
                yield from walk(real, one, (*around, real))

    if folder.is_symlink():
        log(f"{place} is left out: it is a symbolic link to {folder.readlink()}")
        return
    yield from walk(folder, PurePosixPath(), (folder,))


def _target(link: Path, folder: Path, place: str, around: tuple[Path, ...]) -> Path:
    """What a link points to, which is no link.

    Raises:
        _LeftOutError: It is not there, not in the folder, or one of the folders around the link.
    """
    top = PurePosixPath(place).parts[1:]
    at: list[str] = []  # in the container, below its root
    todo = [*reversed(link.relative_to(folder).parts), *reversed(top)]
    links = 0

    def here() -> Path | None:
        inside = tuple(at[: len(top)]) == top
        return folder.joinpath(*at[len(top) :]) if inside else None

    while todo:
        part = todo.pop()
        if part == "..":
            del at[-1:]
            continue
        at.append(part)
        path = here()
        if path is None or path == folder or not path.is_symlink():
            continue
        links += 1
        if links > MOST_LINKS:
            raise _LeftOutError(f"{link.readlink()}, which leads round in circles")
        target = PurePosixPath(path.readlink())
        if target.is_relative_to(folder):  # of a program that runs without /opt/ml
            target = PurePosixPath(place) / target.relative_to(folder)
        at = [] if target.is_absolute() else at[:-1]
        todo += reversed(target.parts[1:] if target.is_absolute() else target.parts)
    path = here()
    if path is None:
        raise _LeftOutError(f"/{'/'.join(at)}, which is outside of {place}")
    if not path.exists():
        raise _LeftOutError(f"/{'/'.join(at)}, which is not there")
    if path in around:
        raise _LeftOutError("a folder that holds the link")
    return path
