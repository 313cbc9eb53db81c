"""What is behind an error's message, and what to do about it.

torch's own words are taken apart as its sources make them (c10/cuda/CUDACachingAllocator.cpp and
CUDAMallocAsyncAllocator.cpp, torch/csrc/DataLoader.cpp), from 2.0 to 2.12.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

# Not compiled: that would cost milliseconds of every start, and few jobs fail.
_SIZE = r"(\d+(?:\.\d+)?) (bytes|[KMGTPE]iB)"
_UNITS = {"bytes": 0, "KiB": 10, "MiB": 20, "GiB": 30, "TiB": 40, "PiB": 50, "EiB": 60}
_OUT_OF_MEMORY = r"(?:CUDA|HIP) out of memory|CUDA error: out of memory|would exceed allowed memory"
#: By what they mean: as torch says it since 2.1 ("capacty" is its own), as 2.0 did, and as its
#: allocator over cudaMallocAsync does.
_NUMBERS = {
    "tried": (rf"Tried to allocate {_SIZE}", rf"Requested\s+: {_SIZE}"),
    "total": (
        rf"total capaci?ty of {_SIZE}",
        rf"; {_SIZE} total capacity",
        rf"Device limit\s+: {_SIZE}",
    ),
    "free": (rf"of which {_SIZE} is free", rf"; {_SIZE} free", rf"Free \(.*?\): {_SIZE}"),
    "used": (rf"this process has {_SIZE} memory in use",),
    "allocated": (
        rf"allocated memory {_SIZE} is allocated by PyTorch",
        rf"; {_SIZE} already allocated",
        rf"Currently allocated\s+: {_SIZE}",
    ),
    "unused": (rf"{_SIZE} is reserved by PyTorch but unallocated",),
    "reserved": (rf"; {_SIZE} reserved in total by PyTorch",),
}
_OTHERS = rf"Process \d+ has {_SIZE} memory in use"
_GPU = r"\bGPU (\d+)"
#: What an allocator holds without use is worth a word from this share of all it holds.
_FRAGMENTED = 0.1
_ADVICE = "use a smaller batch, with gradient accumulation if need be, or a GPU with more memory"
_HINTS = (
    (
        (
            r"DataLoader worker .*is killed by signal: Bus error|out of shared memory"
            r"|insufficient shared memory"
        ),
        (
            "A data-loading worker found no room in /dev/shm: use byoc_training.data.loader or "
            "num_workers=0, or locally docker run --shm-size=2g"
        ),
    ),
    (
        r"DataLoader worker .*is killed by signal: Killed",
        (
            "The kernel killed a data-loading worker, most likely for memory: use fewer workers, a "
            "smaller prefetch_factor, or a larger instance"
        ),
    ),
    (
        r"DataLoader worker .*is killed by signal: (?:Segmentation fault|Aborted)",
        "A library crashed in a data-loading worker: num_workers=0 shows where",
    ),
    (
        r"no kernel image is available for execution",
        (
            "This torch has no code for this GPU's architecture: use a newer instance type, or an "
            "image of an older CUDA (LANE)"
        ),
    ),
    (
        r"Found no NVIDIA driver|No CUDA GPUs are available|no GPUs found",
        "No GPU is visible here: use an instance type with GPUs, or locally docker run --gpus all",
    ),
    (
        r"NVIDIA driver on your system is too old|driver version is insufficient",
        (
            "The host's driver is older than this image's CUDA: use another instance type, or an "
            "image of an older CUDA (LANE)"
        ),
    ),
    (
        r"Duplicate GPU detected",
        (
            "Two ranks were given the same GPU: set torch.cuda.set_device(LOCAL_RANK) before the "
            "process group is made, and no more processes than GPUs"
        ),
    ),
    (
        r"No space left on device",
        "The disk is full: raise VolumeSizeInGB, or keep fewer checkpoints",
    ),
    (
        r"Read-only file system",
        (
            "Channels cannot be written to: use /tmp, or SM_MODEL_DIR and SM_OUTPUT_DATA_DIR for "
            "what is to be kept"
        ),
    ),
)


def explained(text: str, lines: Iterable[str] = ()) -> str:
    """A reason with what is known about it.

    Args:
        text: An exception's type and message, or a last line.
        lines: The rest of the error output: of a worker's end, the exception may say less than an
            earlier one.

    Returns:
        The text first; of a long one that is understood, its beginning alone.
    """
    if re.search(_OUT_OF_MEMORY, text):
        return _out_of_memory(text)
    for pattern, hint in _HINTS:
        if re.search(pattern, text):
            return f"{text}\n{hint}"
    if text.startswith("RuntimeError: DataLoader worker (pid"):
        all_lines = "\n".join(lines)
        for pattern, hint in _HINTS:
            if "DataLoader" in pattern and re.search(pattern, all_lines):
                return f"{text}\n{hint}"
    return text


def _out_of_memory(text: str) -> str:
    numbers = {name: _number(text, patterns) for name, patterns in _NUMBERS.items()}
    if numbers["unused"] is None and numbers["reserved"] and numbers["allocated"] is not None:
        numbers["unused"] = max(0.0, numbers["reserved"] - numbers["allocated"])
    first = text.split("\n", 1)[0]
    # What torch tells next is told below, in fewer words.
    first = re.split(r"(?<=[KMGTPE]iB)\.? (?:\(GPU|GPU) \d", first)[0].rstrip(".")
    said: list[str] = []
    gpu = re.search(_GPU, text)
    if numbers["total"] is not None:
        left = f", {_sized(numbers['free'])} of it free" if numbers["free"] is not None else ""
        said.append(f"GPU {gpu[1] if gpu else '?'} has {_sized(numbers['total'])}{left}")
    if numbers["allocated"] is not None:
        unused = numbers["unused"]
        kept = f" and keeps {_sized(unused)} without use" if unused is not None else ""
        said.append(f"at that peak the program used {_sized(numbers['allocated'])}{kept}")
    others = sum(_bytes(*found) for found in re.findall(_OTHERS, text))
    if others and numbers["used"] is not None:
        said.append(f"other processes hold {_sized(others)}")
    advice = _ADVICE
    if numbers["unused"] and numbers["unused"] >= _FRAGMENTED * (
        numbers["unused"] + (numbers["allocated"] or 0.0)
    ):
        advice = f"set {_setting(text)} (memory in pieces); or {advice}"
    return f"{first}\n{'; '.join(said)}{': ' if said else ''}{advice}"


def _setting(text: str) -> str:
    """The allocator's: torch 2.9 gave the variable its shorter name, 2.1 brought the segments."""
    if "PYTORCH_ALLOC_CONF" in text:
        return "PYTORCH_ALLOC_CONF=expandable_segments:True"
    if "reserved in total by PyTorch" in text:
        return "PYTORCH_CUDA_ALLOC_CONF=max_split_size_mb:128"
    return "PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True"


def _number(text: str, patterns: tuple[str, ...]) -> float | None:
    for pattern in patterns:
        found = re.search(pattern, text)
        if found:
            return _bytes(found[1], found[2])
    return None


def _bytes(number: str, unit: str) -> float:
    return float(number) * 2.0 ** _UNITS[unit]


def _sized(size_bytes: float) -> str:
    if size_bytes >= 2**30:
        return f"{size_bytes / 2**30:.1f} GiB"
    return f"{size_bytes / 2**20:.0f} MiB"
