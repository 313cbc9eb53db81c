"""Checkpoints for a user's program: complete or absent, verified when they are read.

::

    from byoc_training.checkpoint import Checkpoints, Stop

    checkpoints, stop = Checkpoints(), Stop()
    state = checkpoints.load() or {"step": 0}
    ...
    for step in range(state["step"], steps):
        if stop.agreed():            # SIGTERM: the job is being stopped
            break
        ...
    checkpoints.save(step, {"step": step, "model": model.state_dict(), ...})

The directory is mirrored to S3 while the job runs, deletions too, and copied back before it goes
on, so a file appears under its name only when it is on the disk, and an old one goes only after
the new one has. A name ends in a digest of the content: what was cut off or damaged on the way is
passed over for the one before. The states of the random number generators travel along. Of a
distributed job, rank 0 writes; all ranks get what rank 0 has read.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import re
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from byoc_training import generators

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import FrameType

NAME = re.compile(r"(?P<prefix>.+)-(?P<step>\d{12})-(?P<digest>[0-9a-f]{16})\.pt")
_RANDOM = "byoc_random_state"
#: Characters of a reason: a failure text has room for a thousand.
_SHOWN = 400
_PREFIX = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


class CheckpointError(OSError):
    """A checkpoint cannot be written or does not fit: one line that says why."""


class Checkpoints:
    """The checkpoints of one job.

    Args:
        folder: Where they are; made if need be. By default where the job has them:
            ``SM_CHECKPOINT_DIR``, else ``/opt/ml/checkpoints``; in a job that has none of these
            directories, saving and loading do nothing.
        prefix: The beginning of their names. Jobs of one tuning job share a directory; theirs
            differ in ``TRAINING_JOB_NAME``, the default where it is set.
        keep: How many are kept; the last one may be damaged, so at least two.
    """

    def __init__(
        self, folder: str | Path | None = None, prefix: str | None = None, keep: int = 2
    ) -> None:
        self.folder = Path(folder) if folder else _folder_of_job()
        name = prefix or os.environ.get("TRAINING_JOB_NAME") or "checkpoint"
        if not _PREFIX.fullmatch(name):
            raise ValueError(f"prefix {name!r}: expected letters, digits, dots, dashes")
        if keep < 2:
            raise ValueError(f"keep is {keep}; expected at least 2: the newest may be damaged")
        self._prefix = name
        self._keep = keep

    def save(self, step: int, state: Mapping[str, Any]) -> Path | None:
        """Write a checkpoint.

        Args:
            step: Counts up over the whole training; the highest is loaded.
            state: What ``torch.load(weights_only=True)`` reads: tensors, numbers, texts, and
                lists, tuples and dicts of them, as ``state_dict()`` gives.

        Returns:
            The file; None on other ranks than 0 and in jobs without checkpoints.

        Raises:
            OSError: The directory cannot be made.
            CheckpointError: It cannot be written; those before are untouched.
            ValueError: The step is negative or has more than 12 digits.
        """
        if not 0 <= step < 10**12:
            raise ValueError(f"step is {step}; expected 0 to 999999999999")
        if self.folder is None or _rank() != 0:
            return None
        import torch  # noqa: PLC0415 - the program has imported it

        buffer = io.BytesIO()
        torch.save({**state, _RANDOM: generators.state()}, buffer)
        content = buffer.getbuffer()
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / f"{self._prefix}-{step:012d}-{_digest(content)}.pt"
        write_atomically(path, content)
        for old in self.newest_first()[self._keep :]:
            # Mirrored to S3 as well.
            old.unlink(missing_ok=True)
        return path

    def newest_first(self) -> list[Path]:
        """The files, the highest step first."""
        if self.folder is None or not self.folder.is_dir():
            return []
        found = [
            (int(match["step"]), path.stat().st_mtime_ns, path)
            for path in self.folder.iterdir()
            if (match := NAME.fullmatch(path.name)) and match["prefix"] == self._prefix
        ]
        return [path for *_, path in sorted(found, reverse=True)]

    def load(self, map_location: Any = "cpu", *, restore_random: bool = True) -> Any:
        """The newest state that is whole, or None.

        Args:
            map_location: As for ``torch.load``; in a distributed job it is the CPU.
            restore_random: Whether the generators of Python, numpy and torch go on from where
                they stood; in a distributed job, those of rank 0, whose states are saved.

        Returns:
            What was saved. In a distributed job, call it after ``init_process_group``: all ranks
            get what rank 0 has read.
        """
        if not _distributed():
            return self._finished(self._read(map_location), restore_random)
        import torch.distributed as dist  # noqa: PLC0415 - the program has imported it

        # The files may not have come to every host, or not the same ones.
        box = [self._read("cpu") if dist.get_rank() == 0 else None]
        dist.broadcast_object_list(box, src=0)
        return self._finished(box[0], restore_random and dist.get_rank() == 0)

    def restore(self, state: Mapping[str, Any], **parts: Any) -> None:
        """Give the parts of a program the states that they had.

        Args:
            state: What ``load`` has returned.
            parts: By their keys in it: a model, an optimiser, a schedule, whatever has
                ``load_state_dict``.

        Raises:
            CheckpointError: It is the state of another model, or of another program. No file is
                touched.
        """
        for name, part in parts.items():
            problem = _misfit(state, name, part)
            if problem:
                raise CheckpointError(
                    f"the checkpoint in {self.folder} does not fit this program's {name}: "
                    f"{problem}; go on with the code that wrote it, or give the job another place "
                    "for its checkpoints; nothing is changed there"
                )

    def _read(self, map_location: Any) -> dict[str, Any] | None:
        import torch  # noqa: PLC0415 - the program has imported it

        for path in self.newest_first():
            problem = ""
            try:
                content = path.read_bytes()
                match = NAME.fullmatch(path.name)
                if match is None or _digest(content) != match["digest"]:
                    problem = "it is not what was written"
                else:
                    state: dict[str, Any] = torch.load(
                        io.BytesIO(content), map_location=map_location, weights_only=True
                    )
            except Exception as error:  # noqa: BLE001 - whatever is wrong with it, there is another
                problem = str(error).strip().split("\n", 1)[0] or type(error).__name__
            if problem:
                _say(f"skipping {path.name}: {problem}")
                continue
            _say(f"going on from {path.name}")
            return state
        return None

    @staticmethod
    def _finished(state: dict[str, Any] | None, restore_random: bool) -> dict[str, Any] | None:  # noqa: FBT001 - private
        if state is not None:
            saved = state.pop(_RANDOM, None)
            if restore_random and saved is not None:
                generators.restore(saved)
        return state


class Stop:
    """Whether the job has been told to stop: SIGTERM, 120 seconds before SIGKILL.

    Made in the main thread; the handler only takes note.
    """

    def __init__(self) -> None:
        self._told = False
        signal.signal(signal.SIGTERM, self._note)

    def _note(self, _: int, __: FrameType | None) -> None:
        self._told = True

    def __bool__(self) -> bool:
        """Whether this process has been told."""
        return self._told

    def agreed(self) -> bool:
        """Whether any rank has been told; the same answer on all.

        Ranks are not told between the same two steps, and one that leaves the loop alone leaves
        the others in a collective operation. Every rank has to ask, equally often; it costs one
        all-reduce of one number where the job is distributed.
        """
        if not _distributed():
            return self._told
        import torch  # noqa: PLC0415 - the program has imported it
        import torch.distributed as dist  # noqa: PLC0415 - as above

        device = "cuda" if dist.get_backend() == "nccl" else "cpu"
        told = torch.tensor([float(self._told)], device=device)
        dist.all_reduce(told, op=dist.ReduceOp.MAX)
        return bool(told.item())


def write_atomically(path: Path, content: bytes | memoryview) -> None:
    """Write a file that appears under its name only when it is on the disk.

    Raises:
        CheckpointError: It cannot be written; nothing is left of it.
    """
    part = path.with_name(f".{path.name}.part")
    try:
        with part.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            # Else the name may be lost with the machine, though the content is not.
            os.fsync(folder)
        finally:
            os.close(folder)
    except OSError as error:
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)
        raise CheckpointError(
            f"cannot write {path} ({len(content)} bytes): {error.strerror or error}; the "
            "checkpoints before it are untouched"
        ) from None


def _folder_of_job() -> Path | None:
    """The directory that the platform has made because the job asked for it."""
    folder = Path(os.environ.get("SM_CHECKPOINT_DIR") or "/opt/ml/checkpoints")
    return folder if folder.is_dir() else None


def _digest(content: bytes | memoryview) -> str:
    return hashlib.blake2b(content, digest_size=8).hexdigest()


def _misfit(state: Mapping[str, Any], name: str, part: Any) -> str:
    """Why a part cannot take its state; empty when it has."""
    if name not in state:
        return f"it has no {name!r}"
    try:
        part.load_state_dict(state[name])
    except (AttributeError, KeyError, RuntimeError, TypeError, ValueError) as error:
        # torch lists every tensor, each on a line of its own.
        text = " ".join(str(error).split()) or type(error).__name__
        return text if len(text) <= _SHOWN else text[: _SHOWN - 3] + "..."
    return ""


def _distributed() -> bool:
    if "torch.distributed" not in sys.modules:
        return False
    import torch.distributed as dist  # noqa: PLC0415 - it is there already

    return dist.is_available() and bool(dist.is_initialized())


def _rank() -> int:
    if _distributed():
        import torch.distributed as dist  # noqa: PLC0415 - the program has imported it

        rank: int = dist.get_rank()
        return rank
    return int(os.environ.get("RANK") or 0)


def _say(line: str) -> None:
    print(f"checkpoint: {line}", flush=True)
