"""Reading a job's channels, whatever their mode: a helper for a user's program.

::

    from byoc_training.data import ChannelDataset

    dataset = ChannelDataset("training", records="lines", decode=json.loads)
    for epoch in range(epochs):
        dataset.set_epoch(epoch)
        for item in torch.utils.data.DataLoader(dataset, batch_size=None):
            ...

File and FastFile channels are directories (FastFile's is read-only and fetched as it is read, so a
file is read once, from its beginning to its end). A Pipe channel is one FIFO an epoch, made when
the one before has been read or closed.

Every process of the job gets its own share: of the files where there are enough, else of the
records. Where the platform has already given each host other objects (``ShardedByS3Key``), the
share is one of this host's; it may be nothing.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
import warnings
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, BinaryIO, cast

import torch.utils.data

from byoc_training import recordio

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

#: How long the next FIFO may take: the platform makes it when the last one is done with.
FIFO_SECONDS = 900.0
#: Docker's default is 64 MiB. A worker that finds no room is ended by a bus error.
ENOUGH_SHM_BYTES = 256 * 2**20
_SHM = Path("/dev/shm")  # noqa: S108 - looked at, never written to
_LOOK_SECONDS = 0.05
RECORDS = ("files", "lines", "recordio", "raw")
_RAW_BYTES = 1 << 20


class ChannelError(OSError):
    """A channel cannot be read: one line with what was seen and expected."""


class Channel:
    """A channel of this job.

    Args:
        name: As the job names it.
        environ: The program's variables, as `train` sets them.

    Attributes:
        mode: ``File`` (FastFile says so too) or ``Pipe``.
        path: The directory; the FIFOs are ``<path>_<epoch>``.
        sharded: Whether each host has been given other objects.
    """

    def __init__(self, name: str, environ: dict[str, str] | None = None) -> None:
        variables = dict(os.environ) if environ is None else environ
        config = json.loads(variables.get("SM_INPUT_DATA_CONFIG") or "{}")
        named = variables.get(f"SM_CHANNEL_{name.upper()}")
        if named is None and name not in config:
            there = ", ".join(json.loads(variables.get("SM_CHANNELS") or "[]")) or "none"
            raise ChannelError(f"this job has no channel {name!r}; it has: {there}")
        folder = variables.get("SM_INPUT_DATA_DIR", "/opt/ml/input/data")
        entry = config.get(name, {})
        self.name = name
        self.path = Path(named or f"{folder}/{name}")
        self.mode = str(entry.get("TrainingInputMode", "File"))
        self.sharded = entry.get("S3DistributionType") == "ShardedByS3Key"

    def files(self) -> list[Path]:
        """All files below the directory in the order of their names; none where it is missing."""
        if self.mode == "Pipe":
            raise ChannelError(f"channel {self.name!r} is in Pipe mode; it has no files")
        return sorted(
            Path(folder, name) for folder, _, names in os.walk(self.path) for name in names
        )

    @contextlib.contextmanager
    def pipe(self, epoch: int, seconds: float = FIFO_SECONDS) -> Iterator[BinaryIO]:
        """The FIFO of an epoch, counted from 0; closing it early ends the epoch.

        Args:
            epoch: Counted from 0, for each channel by itself.
            seconds: How long to wait for it.

        Raises:
            ChannelError: It is not there in time, or the channel has none.
        """
        if self.mode != "Pipe":
            raise ChannelError(f"channel {self.name!r} is in {self.mode} mode; it has no FIFO")
        path = self.path.with_name(f"{self.path.name}_{epoch}")
        until = time.monotonic() + seconds
        while not path.exists():
            if time.monotonic() > until:
                raise ChannelError(f"{path} did not come within {seconds:g} s")
            time.sleep(_LOOK_SECONDS)
        with path.open("rb") as stream:
            yield stream


class Share:
    """Which part of the whole this process takes.

    Attributes:
        index: From 0.
        count: Of how many.
    """

    def __init__(self, index: int, count: int) -> None:
        self.index = index
        self.count = count

    @classmethod
    def of_this_process(cls, channel: Channel, environ: dict[str, str] | None = None) -> Share:
        """By the rank that torchrun has given, and the DataLoader's worker."""
        variables = dict(os.environ) if environ is None else environ
        local = channel.sharded
        rank = int(variables.get("LOCAL_RANK" if local else "RANK") or 0)
        world = int(variables.get("LOCAL_WORLD_SIZE" if local else "WORLD_SIZE") or 1)
        worker = torch.utils.data.get_worker_info()
        workers = worker.num_workers if worker else 1
        return cls(rank * workers + (worker.id if worker else 0), world * workers)

    def take(self, items: Iterator[Any]) -> Iterator[Any]:
        """Every so-manieth of them."""
        for number, item in enumerate(items):
            if number % self.count == self.index:
                yield item


class ChannelDataset(torch.utils.data.IterableDataset[Any]):
    """A channel as items, this process's share of them.

    Args:
        name: The channel.
        records: What a record is: a whole file (``files``: its path; not in Pipe mode), a line
            (``lines``: bytes without its end), a RecordIO record (``recordio``), or 1 MiB as it
            comes (``raw``).
        decode: From a record to an item; None: the record itself.
        shuffle_seed: With one, files come in another order each epoch, the same on all processes.

    Raises:
        ChannelError: The job has no such channel, or it cannot be read so.
    """

    def __init__(
        self,
        name: str,
        records: str = "files",
        decode: Callable[[Any], Any] | None = None,
        shuffle_seed: int | None = None,
    ) -> None:
        super().__init__()
        self.channel = Channel(name)
        if records not in RECORDS:
            raise ValueError(f"records is {records!r}; expected one of {', '.join(RECORDS)}")
        if self.channel.mode == "Pipe":
            self._check_pipe(records)
        self._records = records
        self._decode = decode
        self._shuffle_seed = shuffle_seed
        # Workers that outlive an epoch (persistent_workers) see the next one too.
        self._epoch = torch.zeros((), dtype=torch.int64)
        self._epoch.share_memory_()  # type: ignore[no-untyped-call]

    def _check_pipe(self, records: str) -> None:
        name = self.channel.name
        if records == "files":
            raise ChannelError(f"channel {name!r} is in Pipe mode; its records are no files")
        processes = int(os.environ.get("LOCAL_WORLD_SIZE") or 1)
        if processes > 1:
            raise ChannelError(
                f"channel {name!r} is in Pipe mode, and this host has {processes} processes; a "
                "FIFO has one reader: give each process a channel, or use File or FastFile mode"
            )

    def set_epoch(self, epoch: int) -> None:
        """Before each epoch, from 0: which FIFO is read, and the order of the files."""
        self._epoch.fill_(epoch)

    def __iter__(self) -> Iterator[Any]:
        """This process's items of the epoch."""
        share = Share.of_this_process(self.channel)
        items = self._piped(share) if self.channel.mode == "Pipe" else self._filed(share)
        return (self._decode(item) for item in items) if self._decode else items

    def _piped(self, share: Share) -> Iterator[Any]:
        worker = torch.utils.data.get_worker_info()
        if worker is not None and worker.num_workers > 1:
            raise ChannelError(
                f"channel {self.channel.name!r} is in Pipe mode and the DataLoader has "
                f"{worker.num_workers} workers; a FIFO has one reader: num_workers=0 or 1"
            )
        with self.channel.pipe(int(self._epoch)) as stream:
            yield from share.take(_split(stream, self._records))

    def _filed(self, share: Share) -> Iterator[Any]:
        files = self.channel.files()
        if self._shuffle_seed is not None:
            generator = torch.Generator().manual_seed(self._shuffle_seed + int(self._epoch))
            files = [files[i] for i in torch.randperm(len(files), generator=generator).tolist()]
        if self._records == "files":
            yield from share.take(iter(files))
            return
        enough = len(files) >= share.count
        for path in share.take(iter(files)) if enough else files:
            with path.open("rb") as stream:
                records = _split(stream, self._records)
                yield from records if enough else share.take(records)


def loader(
    dataset: torch.utils.data.Dataset[Any], *, num_workers: int = 0, **options: Any
) -> torch.utils.data.DataLoader[Any]:
    """A DataLoader that does without workers where they would have no shared memory.

    Args:
        dataset: Any.
        num_workers: As for ``DataLoader``; 0 where ``/dev/shm`` has less than 256 MiB, with a
            warning.
        options: The others of ``DataLoader``.
    """
    if num_workers:
        status = os.statvfs(_SHM)
        room = status.f_bavail * status.f_frsize
        if room < ENOUGH_SHM_BYTES:
            warnings.warn(
                f"{_SHM} has {room / 2**20:.0f} MiB free: {num_workers} workers could end in a bus "
                "error; loading in this process instead (docker run --shm-size=2g gives more)",
                stacklevel=2,
            )
            num_workers = 0
            # They mean nothing without workers, and are refused.
            for name in ("prefetch_factor", "persistent_workers", "multiprocessing_context"):
                options.pop(name, None)
            options["timeout"] = 0
    return torch.utils.data.DataLoader(dataset, num_workers=num_workers, **options)


def _split(stream: IO[bytes], records: str) -> Iterator[bytes]:
    if records == "lines":
        return (line.rstrip(b"\r\n") for line in stream)
    if records == "recordio":
        return recordio.read(cast("BinaryIO", stream))
    return iter(lambda: stream.read(_RAW_BYTES), b"")
