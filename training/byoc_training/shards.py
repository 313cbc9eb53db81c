"""Tar shards in the form of WebDataset, shared out: a helper for a user's program.

::

    from byoc_training.shards import ShardDataset

    dataset = ShardDataset("training", shuffle_seed=1, shuffle_buffer=1000)
    samples = dataset.decode("pil").to_tuple("jpg", "cls")
    for epoch in range(epochs):
        dataset.set_epoch(epoch)
        for image, label in torch.utils.data.DataLoader(samples, batch_size=64, num_workers=4):
            ...

The samples are those of the library `webdataset`, and so are the pipeline's methods. Shards are
read once, from the beginning to the end, so that a FastFile channel fetches each byte once.
"""

from __future__ import annotations

import random
import tarfile
import zlib
from typing import TYPE_CHECKING, Any

import torch
import webdataset  # type: ignore[import-untyped]
from webdataset.tariterators import group_by_keys  # type: ignore[import-untyped]

from byoc_training.data import Channel, ChannelError, Share

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

ENDINGS = (".tar", ".tar.gz", ".tgz")
#: One request to a FastFile channel should be worth its way.
_READ_BYTES = 1 << 20


class ShardDataset(webdataset.FluidWrapper):  # type: ignore[misc]
    """A channel's tar shards as a `webdataset` pipeline, this process's share of them.

    Each shard, and so each sample, is read by exactly one of the job's processes and DataLoader
    workers in an epoch. Shards of different sizes make shares of different sizes: where each step
    needs all ranks, end the epoch of all with the shortest share, or use
    `torch.distributed.algorithms.join`.

    Args:
        name: The channel, in File or FastFile mode.
        shuffle_seed: With one, the shards come in another order each epoch, the same on all
            processes before they are shared out.
        shuffle_buffer: So many samples of a process are mixed; needs a seed.

    Raises:
        ChannelError: The job has no such channel, it is in Pipe mode, or has no tar file. (A host
            that was given no objects, ``ShardedByS3Key``, has no samples instead.)
        ValueError: A buffer without a seed.
    """

    def __init__(
        self, name: str, *, shuffle_seed: int | None = None, shuffle_buffer: int = 0
    ) -> None:
        if shuffle_buffer and shuffle_seed is None:
            raise ValueError(f"shuffle_buffer={shuffle_buffer} needs a shuffle_seed")
        super().__init__(_Source(Channel(name), shuffle_seed, shuffle_buffer))

    def set_epoch(self, epoch: int) -> None:
        """Before each epoch, from 0: the order. For pipelines made of this one as well."""
        self.pipeline[0].epoch.fill_(epoch)


class _Source:
    """The first stage: samples of this process's shards."""

    def __init__(self, channel: Channel, shuffle_seed: int | None, shuffle_buffer: int) -> None:
        self._channel = channel
        self._shuffle_seed = shuffle_seed
        self._shuffle_buffer = shuffle_buffer
        # Workers that outlive an epoch (persistent_workers) see the next one too.
        self.epoch = torch.zeros((), dtype=torch.int64)
        self.epoch.share_memory_()  # type: ignore[no-untyped-call]
        self._shards = [path for path in channel.files() if path.name.endswith(ENDINGS)]
        if not self._shards and not channel.sharded:
            raise ChannelError(
                f"channel {channel.name!r} has no tar shard (*{', *'.join(ENDINGS)}) in "
                f"{channel.path}"
            )

    def __call__(self) -> Iterator[dict[str, Any]]:
        share = Share.of_this_process(self._channel)
        shards, epoch = self._shards, int(self.epoch)
        if 0 < len(shards) < share.count:
            raise ChannelError(
                f"channel {self._channel.name!r} has {len(shards)} tar shards, fewer than the "
                f"{share.count} that share them (ranks x DataLoader workers): use fewer workers, "
                "or write more and smaller shards"
            )
        if self._shuffle_seed is not None:
            shards = random.Random(f"{self._shuffle_seed} {epoch}").sample(shards, len(shards))
        samples = (sample for shard in share.take(iter(shards)) for sample in read(shard))
        if self._shuffle_buffer:
            mixed = random.Random(f"{self._shuffle_seed} {epoch} {share.index}")
            mix = webdataset.shuffle(self._shuffle_buffer, initial=self._shuffle_buffer, rng=mixed)
            return iter(mix(samples))
        return samples


def read(shard: Path) -> Iterator[dict[str, Any]]:
    """The samples of one shard: files with the same name up to the first dot.

    Args:
        shard: A tar file, compressed or not.

    Returns:
        Samples as `webdataset` makes them: ``__key__``, ``__url__``, and bytes by extension.

    Raises:
        ChannelError: It is no whole tar file, cannot be read, or has files and no sample.
    """
    members = samples = 0

    def files() -> Iterator[dict[str, Any]]:
        nonlocal members
        # The buffer is the file's: tarfile's own is copied with every read.
        with (
            shard.open("rb", buffering=_READ_BYTES) as file,
            tarfile.open(fileobj=file, mode="r|*", tarinfo=_Member) as archive,
        ):
            for member in archive:
                if member.isreg():
                    members += 1
                    content = archive.extractfile(member)
                    data = content.read() if content else b""
                    yield {"fname": member.name, "data": data, "__url__": str(shard)}
                # The archive keeps a list of all that it has seen.
                archive.members = []  # type: ignore[attr-defined]

    try:
        for sample in group_by_keys(files()):
            samples += 1
            yield sample
    except (tarfile.TarError, OSError, EOFError, ValueError, zlib.error) as error:
        reason = error.args[0] if isinstance(error, ValueError) else error
        raise ChannelError(
            f"tar shard {shard} is damaged or cut off after {samples} samples ({reason}); write "
            "or upload it again"
        ) from error
    if members and not samples:
        raise ChannelError(
            f"tar shard {shard} has {members} files and no sample: their names need the form "
            "key.extension"
        )


class _Member(tarfile.TarInfo):
    """A header that ends the archive only where it is the end mark.

    `tarfile` takes a damaged header, or the end of the file, for the end of the archive as soon
    as it has read one member; what follows would be lost in silence.
    """

    @classmethod
    def fromtarfile(cls, tarfile_: tarfile.TarFile) -> _Member:
        """The next header.

        Raises:
            tarfile.ReadError: There is none, and no end mark.
        """
        try:
            return super().fromtarfile(tarfile_)
        except tarfile.EOFHeaderError:  # type: ignore[attr-defined]
            raise
        except tarfile.HeaderError as error:
            raise tarfile.ReadError(f"{error}, and no end mark") from error
