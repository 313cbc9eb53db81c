"""An environment for each peer, all with the same torch as this project's environment."""

from __future__ import annotations

import hashlib
import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from benchmarks.serving.catalog import Peer

#: What every peer's program imports besides its server.
COMMON = ("orjson==3.13.0", "numpy")


class UnavailableError(Exception):
    """A peer cannot be measured here; the text says why."""


def binaries(peer: Peer, cache: Path) -> Path:
    """The ``bin`` folder of the peer's environment, made if it is not there.

    Raises:
        UnavailableError: it cannot be installed.
    """
    missing = [program for program in peer.needs if shutil.which(program) is None]
    if missing:
        raise UnavailableError(f"{', '.join(missing)} not on PATH (install it with apt)")
    if not peer.requirements:
        return Path(sys.executable).parent
    wanted = "\n".join([sys.version, _torch_version(), *peer.requirements, *COMMON])
    digest = hashlib.sha256(wanted.encode()).hexdigest()
    folder = cache / "environments" / (peer.folder or peer.name)
    stamp = folder / ".installed"
    if not (stamp.exists() and stamp.read_text() == digest):
        shutil.rmtree(folder, ignore_errors=True)
        _install(peer, folder, cache)
        stamp.write_text(digest)
    # Each time: a cache may be used by another checkout than the one that made it.
    shared_torch(cache)
    return folder / "bin"


def _torch_version() -> str:
    return importlib.metadata.version("torch")


def _install(peer: Peer, folder: Path, cache: Path) -> None:
    print(f"  installing {', '.join(peer.requirements)}", file=sys.stderr, flush=True)
    uv = str(Path(sys.executable).with_name("uv"))
    base = Path(sys.base_prefix) / "bin" / f"python{sys.version_info[0]}.{sys.version_info[1]}"
    python = folder / "bin" / "python"
    _run([uv, "venv", "--quiet", "--python", str(base), str(folder)])
    _run([uv, "pip", "install", "--quiet", "--python", str(python), *peer.requirements, *COMMON])
    packages = next((folder / "lib").glob("python*")) / "site-packages"
    # At the end of sys.path: what the peer itself needs comes first.
    torch = (cache / "torch").resolve()
    (packages / "shared-torch.pth").write_text(f"{torch}\n")


def _run(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        lines = (done.stderr or done.stdout).strip().splitlines() or ["no output"]
        raise UnavailableError(f"does not install: {' '.join(lines)[-300:]}")


def shared_torch(cache: Path) -> Path:
    """A folder of links to this environment's torch and what torch needs, nothing else."""
    folder = cache / "torch"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for name in sorted(_closure("torch")):
        for entry in _top_level(importlib.metadata.distribution(name)):
            link = folder / entry.name
            if not link.exists():
                link.symlink_to(entry)
    return folder


def _closure(name: str) -> set[str]:
    """A distribution and everything that it requires here."""
    found: set[str] = set()
    waiting = [name]
    while waiting:
        current = re.sub(r"[-_.]+", "-", waiting.pop()).lower()
        if current in found:
            continue
        try:
            requires = importlib.metadata.requires(current) or []
        except importlib.metadata.PackageNotFoundError:
            # Required on another platform or Python.
            continue
        found.add(current)
        here = [line for line in requires if "extra ==" not in line]
        waiting += [re.split(r"[\s;<>=!~\[(]", line, maxsplit=1)[0] for line in here]
    return found


def _top_level(distribution: importlib.metadata.Distribution) -> Iterator[Path]:
    """The files and folders in site-packages that belong to a distribution."""
    names = {Path(file).parts[0] for file in distribution.files or []}
    for name in sorted(names - {"..", "__pycache__", os.sep}):
        path = Path(str(distribution.locate_file(name)))
        if path.exists():
            yield path
