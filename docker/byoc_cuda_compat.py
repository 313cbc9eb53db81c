"""Use the image's CUDA forward-compatibility libraries when the host's driver is older.

NVIDIA's base images carry the user-mode driver of their CUDA version in
``/usr/local/cuda/compat``. A data-centre GPU with an older kernel driver can run newer CUDA with
it; with a newer driver the same libraries break CUDA. Current SageMaker hosts leave the choice to
the image. The dynamic linker reads ``LD_LIBRARY_PATH`` once, when a process starts, so the
process that trains or serves is executed again with the directory in front: same process id,
same arguments.

This runs at the start of every Python of the image (through ``byoc_cuda_compat.pth``) rather
than in an entry point, because SageMaker's clients replace entry points.

Set ``SAGEMAKER_CUDA_COMPAT_DISABLED=true`` to switch it off. ``BYOC_CUDA_COMPAT_DIR`` and
``BYOC_NVIDIA_DRIVER_FILE`` move the two places that are read.
"""

from __future__ import annotations

import os
import sys

COMPAT_DIR = "/usr/local/cuda/compat"
DRIVER_FILE = "/proc/driver/nvidia/version"

#: cuInit's answers when the kernel driver or the GPU (GeForce) does not allow the compatibility
#: libraries: CUDA_ERROR_SYSTEM_DRIVER_MISMATCH, CUDA_ERROR_COMPAT_NOT_SUPPORTED_ON_DEVICE.
REFUSED = (803, 804)
REFUSED_EXIT = 42


def version(text: str) -> tuple[int, ...]:
    """A driver version such as ``535.183.01`` as numbers that compare."""
    return tuple(int(number) for number in text.split("."))


def compat_version(compat_dir: str) -> tuple[int, ...] | None:
    """The driver version that the compatibility libraries belong to; None when there are none."""
    library = os.path.realpath(os.path.join(compat_dir, "libcuda.so.1"))
    _, _, found = os.path.basename(library).partition(".so.")
    try:
        return version(found) if "." in found and os.path.exists(library) else None
    except ValueError:
        return None


def driver_version(driver_file: str) -> tuple[int, ...] | None:
    """The version of the loaded kernel driver; None when there is no NVIDIA driver."""
    try:
        with open(driver_file, encoding="utf-8", errors="replace") as file:
            text = file.read()
    except OSError:
        return None
    import re  # noqa: PLC0415 - only on hosts with a driver: this runs at every Python start

    found = re.search(r"Kernel Module(?: for \S+)?\s+(\d+(?:\.\d+)+)", text)
    return version(found[1]) if found else None


def refused(compat_dir: str) -> bool:
    """Whether CUDA itself says that the libraries do not work on this host.

    Asked in a process of its own; anything but a plain refusal counts as usable.
    """
    import subprocess  # noqa: PLC0415 - only on hosts with an older driver

    probe = (
        "import ctypes, os; "
        f"os._exit({REFUSED_EXIT} * (ctypes.CDLL('libcuda.so.1').cuInit(0) in {REFUSED}))"
    )
    try:
        done = subprocess.run(
            [sys.executable, "-S", "-c", probe],
            env={**os.environ, "LD_LIBRARY_PATH": compat_dir},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            timeout=30,
            check=False,
        )
    except (OSError, subprocess.SubprocessError):
        return False
    return done.returncode == REFUSED_EXIT


def activate() -> None:
    """Execute this process again with the compatibility libraries first, when they are needed."""
    compat_dir = os.environ.get("BYOC_CUDA_COMPAT_DIR", COMPAT_DIR)
    offered = compat_version(compat_dir)
    if offered is None:
        return
    searched = os.environ.get("LD_LIBRARY_PATH", "")
    if searched.split(":")[0] == compat_dir:
        return
    if os.environ.get("SAGEMAKER_CUDA_COMPAT_DISABLED", "").strip().lower() in ("true", "1"):
        return
    installed = driver_version(os.environ.get("BYOC_NVIDIA_DRIVER_FILE", DRIVER_FILE))
    if installed is None or installed >= offered:
        return
    if refused(compat_dir):
        # For the child processes, which need not ask again.
        os.environ["SAGEMAKER_CUDA_COMPAT_DISABLED"] = "true"
        return
    os.environ["LD_LIBRARY_PATH"] = f"{compat_dir}:{searched}" if searched else compat_dir
    os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])
