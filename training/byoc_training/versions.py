"""What is installed, without importing any of it: `importlib.metadata` alone takes 20 ms."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

#: NVIDIA's libraries as their packages are called, without the CUDA lane at the end
#: (``nvidia_nccl_cu12``), and as people call them.
LIBRARIES = {"nvidia_cudnn": "cuDNN", "nvidia_nccl": "NCCL"}
_LANE = re.compile(r"_cu\d+$")


def installed(names: tuple[str, ...]) -> dict[str, str]:
    """Versions of distributions, by the names of their metadata folders.

    Args:
        names: As in the folders, with underscores; of NVIDIA's libraries without the lane.

    Returns:
        Those that are there, in the order asked for; the first on the path where there are two.
    """
    found: dict[str, str] = {}
    for folder in sys.path:
        try:
            entries = [entry.name for entry in os.scandir(folder or ".")]
        except OSError:
            continue
        for entry in entries:
            name, dash, rest = entry.partition("-")
            if dash and rest.endswith(".dist-info"):
                name = _LANE.sub("", name)
                if name in names:
                    found.setdefault(name, rest.removesuffix(".dist-info"))
    return {name: found[name] for name in names if name in found}


def torch_cuda() -> str | None:
    """The CUDA that the installed torch is built for."""
    for folder in sys.path:
        try:
            text = Path(folder or ".", "torch", "version.py").read_text()
        except OSError:
            continue
        found = re.search(r"^cuda\b[^=]*= '([\d.]+)'", text, re.MULTILINE)
        return found[1] if found else None
    return None
