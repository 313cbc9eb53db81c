"""Split a lock file into the layers of an image: ``split_lock.py LOCK TOOLS DIRECTORY``.

Writes to DIRECTORY: ``torch.txt`` (PyTorch and the CUDA libraries: gigabytes that change with a
release of PyTorch), ``packages.txt`` (all other wheels) and ``sources.txt`` (packages without
wheels, which the builder stage compiles).

Two packages come from TOOLS, the lock file of the build tools, where LOCK lacks them: pip, which
SageMaker's clients and users call, and setuptools, without which ``torch.compile`` does not start
(PyTorch declares it for Python 3.12 and newer only).
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

#: Packages that are published as source only; the image build refuses any other source package.
SOURCES = frozenset({"inotify-simple", "sagemaker-training"})
#: Tools that stay in the images, unless the lock file has them for every Python.
SHARED_TOOLS = frozenset({"pip", "setuptools"})
TORCH = re.compile(r"(torch|torchvision|triton|nvidia-.+|cuda-.+)")


def requirements(lock: str) -> dict[str, list[str]]:
    """The requirements of a lock file, with their hashes, by the file that they belong to."""
    parts: dict[str, list[str]] = {"torch": [], "packages": [], "sources": []}
    for block in re.split(r"\n(?=\S)", lock.strip()):
        name = re.match(r"[A-Za-z0-9._-]+", block)
        if name is None:
            continue
        if name[0] in SOURCES:
            parts["sources"].append(block)
        elif TORCH.fullmatch(name[0]):
            parts["torch"].append(block)
        else:
            parts["packages"].append(block)
    return parts


def main(arguments: list[str]) -> None:
    """Write the parts of the lock file."""
    lock, tools, directory = map(Path, arguments)
    directory.mkdir(parents=True, exist_ok=True)
    parts = requirements(lock.read_text())
    locked = {block.partition("==")[0] for block in parts["packages"] if "; " not in block}
    for block in requirements(tools.read_text())["packages"]:
        name = block.partition("==")[0]
        if name in SHARED_TOOLS and name not in locked:
            parts["packages"] = [
                other for other in parts["packages"] if not other.startswith(f"{name}==")
            ]
            parts["packages"].append(block)
    for part, blocks in parts.items():
        (directory / f"{part}.txt").write_text("".join(f"{block}\n" for block in blocks))


if __name__ == "__main__":
    main(sys.argv[1:])
