"""Remove from an installed environment what serving never loads: ``slim.py SITE_PACKAGES``.

Runs in the step that installs PyTorch, so that the removed files are in no layer. Each pattern
below names its reason; a pattern that matches nothing is fine (the CUDA lanes differ), and
the image tests prove that every remaining library finds all it is linked with.
"""

from __future__ import annotations

import os
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Removal:
    """Files (glob patterns below site-packages) that go, and why."""

    reason: str
    patterns: tuple[str, ...]
    kept_with_triton: bool = False


REMOVALS = (
    Removal(
        "Triton compiles kernels for torch.compile at run time and needs a C compiler, which this "
        "image has not; eager, TorchScript and exported models do not load it",
        ("triton", "triton-*.dist-info"),
        kept_with_triton=True,
    ),
    Removal(
        "headers for compiling C++ and CUDA extensions",
        (
            "torch/include",
            "torch/share/cmake",
            "nvidia/*/include",
            "nvidia/*/lib/cmake",
            "nvidia/*/lib/pkgconfig",
            "nvidia/*/share",
        ),
    ),
    Removal(
        "static libraries and device bitcode, inputs of a linker",
        ("torch/lib/*.a", "nvidia/*/lib/*.a", "nvidia/*/lib/*.bc", "nvidia/*/nvvm"),
    ),
    Removal(
        "build tools: protocol buffer compilers, CUDA disassemblers, host compilers",
        ("torch/bin/protoc*", "torch/bin/test_*", "nvidia/*/bin"),
    ),
    Removal(
        "cuSOLVER for several GPUs in one process: no library of PyTorch links it",
        ("nvidia/*/lib/libcusolverMg.so*",),
    ),
    Removal(
        "hardware counters and sampling of CUPTI, loaded only by NVIDIA's profilers; "
        "libcupti itself is linked by PyTorch and stays",
        (
            "nvidia/*/lib/libnvperf_*.so*",
            "nvidia/*/lib/libpcsamplingutil.so*",
            "nvidia/*/lib/libcheckpoint.so*",
        ),
    ),
    Removal(
        "alternative build of the run-time compiler, loaded by nobody unless asked for by name",
        ("nvidia/*/lib/libnvrtc*.alt.so*",),
    ),
    Removal(
        "plug-ins of NVSHMEM and cuFile for MPI, InfiniBand and UCX, whose libraries this image "
        "has not; the host libraries are linked by PyTorch and stay",
        (
            "nvidia/*/lib/nvshmem_transport_*.so*",
            "nvidia/*/lib/nvshmem_bootstrap_*.so*",
            "nvidia/*/lib/libcufile_rdma.so*",
        ),
    ),
)


def size_bytes(path: Path) -> int:
    """Bytes on disk of a file or of everything below a directory."""
    if path.is_symlink() or path.is_file():
        return path.lstat().st_size
    return sum(
        (Path(folder) / name).lstat().st_size
        for folder, _, names in os.walk(path)
        for name in names
    )


def slim(site_packages: Path, *, keep_triton: bool) -> int:
    """Remove, print a line for each reason, and return the bytes freed."""
    freed_bytes = 0
    for removal in REMOVALS:
        if removal.kept_with_triton and keep_triton:
            continue
        removed_bytes = 0
        for path in sorted(
            {path for pattern in removal.patterns for path in site_packages.glob(pattern)}
        ):
            removed_bytes += size_bytes(path)
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink()
        print(f"slim: {removed_bytes / 1e6:8.1f} MB  {removal.reason}")
        freed_bytes += removed_bytes
    print(f"slim: {freed_bytes / 1e6:8.1f} MB  in all")
    return freed_bytes


def main(arguments: list[str]) -> None:
    """Slim the named directories."""
    for argument in arguments:
        slim(Path(argument), keep_triton=os.environ.get("KEEP_TRITON", "0") not in ("", "0"))


if __name__ == "__main__":
    main(sys.argv[1:])
