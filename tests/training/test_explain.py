from __future__ import annotations

import signal

import pytest

from byoc_training import explain, report
from byoc_training.errors import ProgramError
from byoc_training.supervise import Outcome

NEW = (
    "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB. GPU 1 has a total "
    "capacity of 22.07 GiB of which 1.38 GiB is free. Including non-PyTorch memory, this process "
    "has 20.68 GiB memory in use. Of the allocated memory {used} GiB is allocated by PyTorch, and "
    "{unused} GiB is reserved by PyTorch but unallocated. If reserved but unallocated memory is "
    "large try setting {variable}=expandable_segments:True to avoid fragmentation.  See "
    "documentation for Memory Management  (https://pytorch.org/docs/stable/notes/cuda.html)"
)
TORCH_2_1 = (
    "torch.cuda.OutOfMemoryError: CUDA out of memory. Tried to allocate 448.00 MiB. GPU 0 has a "
    "total capacty of 79.10 GiB of which 364.31 MiB is free. Process 17 has 1.50 GiB memory in "
    "use. Process 18 has 2.50 GiB memory in use. Including non-PyTorch memory, this process has "
    "74.00 GiB memory in use. Of the allocated memory 60.00 GiB is allocated by PyTorch, and 13.00 "
    "GiB is reserved by PyTorch but unallocated. If reserved but unallocated memory is large try "
    "setting max_split_size_mb to avoid fragmentation.  See documentation for Memory Management "
    "and PYTORCH_CUDA_ALLOC_CONF"
)
TORCH_2_0 = (
    "torch.cuda.OutOfMemoryError: CUDA out of memory. Tried to allocate 26.00 MiB (GPU 0; 3.81 GiB "
    "total capacity; 3.02 GiB already allocated; 3.44 MiB free; {reserved} GiB reserved in total "
    "by PyTorch) If reserved memory is >> allocated memory try setting max_split_size_mb to avoid "
    "fragmentation.  See documentation for Memory Management and PYTORCH_CUDA_ALLOC_CONF"
)
ASYNC = (
    "torch.OutOfMemoryError: Allocation on device 0 would exceed allowed memory. (out of memory)\n"
    "Currently allocated     : 70.50 GiB\nRequested               : 12.00 GiB\n"
    "Device limit            : 79.10 GiB\nFree (according to CUDA): 6.00 GiB\n"
    "PyTorch limit (set by user-supplied memory fraction)\n                        : 79.10 GiB"
)
ADVICE = "use a smaller batch, with gradient accumulation if need be, or a GPU with more memory"


@pytest.mark.parametrize(
    ("text", "first", "second"),
    [
        (NEW.format(used="20.10", unused="0.20", variable="PYTORCH_ALLOC_CONF"),
         "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB",
         ("GPU 1 has 22.1 GiB, 1.4 GiB of it free; at that peak the program used 20.1 GiB and "
         f"keeps 205 MiB without use: {ADVICE}")),
        (NEW.format(used="12.00", unused="8.50", variable="PYTORCH_ALLOC_CONF"),
         "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB",
         ("GPU 1 has 22.1 GiB, 1.4 GiB of it free; at that peak the program used 12.0 GiB and "
         "keeps 8.5 GiB without use: set PYTORCH_ALLOC_CONF=expandable_segments:True (memory in "
         f"pieces); or {ADVICE}")),
        (NEW.format(used="12.00", unused="8.50", variable="PYTORCH_CUDA_ALLOC_CONF"),
         "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB",
         ("GPU 1 has 22.1 GiB, 1.4 GiB of it free; at that peak the program used 12.0 GiB and "
         "keeps 8.5 GiB without use: set PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True (memory "
         f"in pieces); or {ADVICE}")),
        (TORCH_2_1,
         "torch.cuda.OutOfMemoryError: CUDA out of memory. Tried to allocate 448.00 MiB",
         ("GPU 0 has 79.1 GiB, 364 MiB of it free; at that peak the program used 60.0 GiB and "
         "keeps 13.0 GiB without use; other processes hold 4.0 GiB: set "
         f"PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True (memory in pieces); or {ADVICE}")),
        (TORCH_2_0.format(reserved="3.27"),
         "torch.cuda.OutOfMemoryError: CUDA out of memory. Tried to allocate 26.00 MiB",
         ("GPU 0 has 3.8 GiB, 3 MiB of it free; at that peak the program used 3.0 GiB and "
         f"keeps 256 MiB without use: {ADVICE}")),
        (TORCH_2_0.format(reserved="3.70"),
         "torch.cuda.OutOfMemoryError: CUDA out of memory. Tried to allocate 26.00 MiB",
         ("GPU 0 has 3.8 GiB, 3 MiB of it free; at that peak the program used 3.0 GiB and "
         "keeps 696 MiB without use: set PYTORCH_CUDA_ALLOC_CONF=max_split_size_mb:128 (memory in "
         f"pieces); or {ADVICE}")),
        (ASYNC,
         ("torch.OutOfMemoryError: Allocation on device 0 would exceed allowed memory. (out of "
         "memory)"),
         ("GPU ? has 79.1 GiB, 6.0 GiB of it free; at that peak the program used 70.5 GiB: "
         f"{ADVICE}")),
        ("torch.AcceleratorError: CUDA error: out of memory\nCUDA kernel errors might be",
         "torch.AcceleratorError: CUDA error: out of memory", ADVICE),
        ("RuntimeError: CUDA out of memory. Tried to allocate more than 1EB memory.",
         "RuntimeError: CUDA out of memory. Tried to allocate more than 1EB memory", ADVICE),
    ],
)  # fmt: skip
def test_a_full_gpu_is_told_in_two_lines(text, first, second):
    assert explain.explained(text).split("\n") == [first, second]


def test_the_installed_torch_s_words_are_those_that_are_looked_for():
    """They are in its library as the sources have them; a new version that differs fails here."""
    from pathlib import Path

    import torch

    library = Path(torch.__file__).parent / "lib" / "libc10_cuda.so"
    if not library.exists():
        pytest.skip("a torch without CUDA")
    data = library.read_bytes()
    for words in (
        b"CUDA out of memory. Tried to allocate ",
        b"Including non-PyTorch memory, this process",
        b" is reserved by PyTorch but unallocated.",
        b"ALLOC_CONF=expandable_segments:True",
        b" would exceed allowed memory. (out of memory)",
    ):
        assert words in data, words


@pytest.mark.contract(6)
def test_a_full_gpu_comes_first_in_the_failure_file(job):
    message = NEW.format(used="12.00", unused="8.50", variable="PYTORCH_ALLOC_CONF")
    job.program(f"import torch\nraise torch.OutOfMemoryError({message.split(': ', 1)[1]!r})")
    result = job.run("train")
    assert result.code == 1
    first, second, third, *_ = result.failure.split("\n")
    assert first == "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB"
    assert "PYTORCH_ALLOC_CONF=expandable_segments:True" in second
    assert third.startswith("train.py ended with exit code 1")


@pytest.mark.contract(55)
def test_a_loader_s_worker_that_finds_no_shared_memory_is_explained(job):
    """A worker that ends as one without room does, seen by torch itself."""
    job.program(
        "import os, signal, torch\n"
        "class Data(torch.utils.data.Dataset):\n"
        "    def __len__(self): return 4\n"
        "    def __getitem__(self, index): os.kill(os.getpid(), signal.SIGBUS)\n"
        "if __name__ == '__main__':\n"
        "    list(torch.utils.data.DataLoader(Data(), num_workers=1))\n"
    )
    result = job.run("train")
    assert result.code == 1
    first, second, *_ = result.failure.split("\n")
    assert first.startswith("RuntimeError: DataLoader worker (pid")
    assert "A data-loading worker found no room in /dev/shm" in result.failure[:500], second


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("OSError: [Errno 28] No space left on device: 'x'", "raise VolumeSizeInGB"),
        ("OSError: [Errno 30] Read-only file system: 'x'", "Channels cannot be written to"),
        ("RuntimeError: CUDA error: no kernel image is available for execution on the device",
         "no code for this GPU's architecture"),
        ("RuntimeError: Found no NVIDIA driver on your system.", "No GPU is visible here"),
        ("RuntimeError: No CUDA GPUs are available", "No GPU is visible here"),
        ("RuntimeError: The NVIDIA driver on your system is too old (found version 11040).",
         "The host's driver is older"),
        ("torch.distributed.DistBackendError: NCCL error ...\nDuplicate GPU detected : rank 1",
         "Two ranks were given the same GPU"),
        ("RuntimeError: DataLoader worker (pid 7) is killed by signal: Killed. ",
         "killed a data-loading worker, most likely for memory"),
    ],
)  # fmt: skip
def test_what_a_message_leaves_unsaid(text, hint):
    first, _, second = explain.explained(text).rpartition("\n")
    assert first == text
    assert hint in second


def test_other_messages_are_left_alone():
    assert explain.explained("ValueError: boom", ["out of shared memory"]) == "ValueError: boom"


@pytest.mark.contract(9)
def test_every_signal_is_named():
    ends = {"SIGKILL": "was killed by SIGKILL", "SIGBUS": "/dev/shm"}
    for number in sorted(signal.valid_signals()):
        outcome = Outcome(
            code=128 + number,
            signal=number,
            stopped_by=None,
            killed=False,
            out_of_memory=False,
            memory_limit="1.0 GiB",
            stderr=b"",
            seconds=1.0,
        )
        with pytest.raises(ProgramError) as error:
            report.check(outcome, "train.py")
        assert error.value.exit_code == 128 + number
        try:
            name = signal.Signals(number).name
        except ValueError:
            name = f"signal {number}"
        text = str(error.value)
        assert name in text, text
        assert ends.get(name, "") in text


@pytest.mark.contract(9)
@pytest.mark.parametrize(
    "name", ["SIGSEGV", "SIGABRT", "SIGBUS", "SIGFPE", "SIGILL", "SIGTERM", "SIGUSR1", "SIGXCPU"]
)
def test_a_program_that_a_signal_ends(job, name):
    job.program(f"import os, signal; os.kill(os.getpid(), signal.{name})")
    result = job.run("train")
    number = signal.Signals[name]
    assert result.code == 128 + number
    assert result.failure.startswith(f"train.py was ended by {name} (signal {number:d})")
