"""Real tar shards, read by as many processes and workers as a job has."""

from __future__ import annotations

import io
import json
import subprocess
import sys
import tarfile
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest
import torch

from byoc_training.data import ChannelError
from byoc_training.shards import ShardDataset, read

if TYPE_CHECKING:
    from pathlib import Path


def write(path: Path, keys: range, mode: str = "w") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, mode) as archive:  # type: ignore[call-overload]
        for key in keys:
            for ending, data in (("cls", str(key).encode()), ("bin", bytes([key % 256]) * 700)):
                info = tarfile.TarInfo(f"{key:04d}.{ending}")
                info.size = len(data)
                archive.addfile(info, io.BytesIO(data))
    return path


@pytest.fixture
def channel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A channel with so many shards; the sizes differ, as those of real ones do."""

    def make(shards: int, **entry: str) -> Path:
        folder = tmp_path / "training"
        folder.mkdir(exist_ok=True)
        first = 0
        for number in range(shards):
            write(folder / f"part-{number:02d}.tar", range(first, first + 3 + number % 3))
            first += 3 + number % 3
        monkeypatch.setenv("SM_CHANNELS", '["training"]')
        monkeypatch.setenv("SM_CHANNEL_TRAINING", str(folder))
        monkeypatch.setenv("SM_INPUT_DATA_CONFIG", json.dumps({"training": entry}))
        return folder

    return make


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch):
    """The keys that each rank reads."""

    def run(ranks: int, workers: int, epoch: int = 0, **options: Any) -> list[list[int]]:
        found = []
        for rank in range(ranks):
            for name, value in (
                ("RANK", rank), ("LOCAL_RANK", rank), ("WORLD_SIZE", ranks),
                ("LOCAL_WORLD_SIZE", ranks),
            ):  # fmt: skip
                monkeypatch.setenv(name, str(value))
            dataset = ShardDataset("training", **options)
            dataset.set_epoch(epoch)
            loader: Any = torch.utils.data.DataLoader(
                dataset.to_tuple("cls", "bin"), batch_size=None, num_workers=workers
            )
            keys = []
            for label, data in loader:
                assert data == bytes([int(label)]) * 700
                keys.append(int(label))
            found.append(keys)
        return found

    return run


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("ranks", [1, 2, 4])
def test_every_sample_is_seen_exactly_once(channel, seen, ranks, workers):
    channel(9)
    total = sum(3 + number % 3 for number in range(9))
    for options in ({}, {"shuffle_seed": 3, "shuffle_buffer": 5}):
        found = seen(ranks, workers, **options)
        assert all(found)
        assert Counter(key for keys in found for key in keys) == Counter(range(total))


def test_the_order_is_that_of_the_names_or_of_the_seed_and_the_epoch(channel, seen):
    channel(8)
    total = sum(3 + number % 3 for number in range(8))
    assert seen(1, 0) == [list(range(total))]
    options = {"shuffle_seed": 7, "shuffle_buffer": 6}
    first, again, second, other = (
        seen(2, 0, epoch=epoch, **{**options, "shuffle_seed": seed})
        for epoch, seed in ((0, 7), (0, 7), (1, 7), (0, 8))
    )
    assert first == again
    assert first != second
    assert first != other


def test_workers_that_live_on_have_the_next_epoch_s_order(channel):
    channel(6)
    dataset = ShardDataset("training", shuffle_seed=1)
    loader: Any = torch.utils.data.DataLoader(
        dataset.to_tuple("cls"), batch_size=None, num_workers=1, persistent_workers=True
    )
    orders = []
    for epoch in (0, 1, 0):
        dataset.set_epoch(epoch)
        orders.append([int(label) for (label,) in loader])
    assert orders[0] == orders[2]
    assert orders[0] != orders[1]
    del loader


@pytest.mark.contract(30)
def test_a_host_with_other_objects_shares_them_among_its_own_ranks(channel, monkeypatch):
    folder = channel(2, S3DistributionType="ShardedByS3Key")
    for name, value in (
        ("RANK", "3"), ("WORLD_SIZE", "4"), ("LOCAL_RANK", "1"), ("LOCAL_WORLD_SIZE", "2"),
    ):  # fmt: skip
        monkeypatch.setenv(name, value)
    assert [sample["__key__"] for sample in ShardDataset("training")] == [
        "0003", "0004", "0005", "0006",
    ]  # fmt: skip
    for shard in folder.iterdir():
        shard.unlink()
    assert list(ShardDataset("training")) == []


def test_a_channel_without_shards_is_one_line(channel):
    folder = channel(0)
    (folder / "data.csv").write_text("1")
    with pytest.raises(ChannelError, match=r"channel 'training' has no tar shard \(\*.tar, "):
        ShardDataset("training")


@pytest.mark.contract(29)
def test_a_pipe_channel_has_no_shards(channel):
    channel(2, TrainingInputMode="Pipe")
    with pytest.raises(ChannelError, match="in Pipe mode; it has no files"):
        ShardDataset("training")


def test_fewer_shards_than_processes_and_workers_is_one_line(channel, seen):
    channel(3)
    words = "has 3 tar shards, fewer than the 4 that share them"
    with pytest.raises(ChannelError, match=words):
        seen(4, 0)
    with pytest.raises(ChannelError, match=words):
        seen(2, 2)


def test_a_buffer_without_a_seed_is_refused(channel):
    channel(2)
    with pytest.raises(ValueError, match="needs a shuffle_seed"):
        ShardDataset("training", shuffle_buffer=10)


def test_compressed_shards_and_folders(channel, seen):
    folder = channel(1)
    write(folder / "more" / "part-01.tar.gz", range(3, 8), "w:gz")
    write(folder / "more" / "part-02.tgz", range(8, 9), "w:gz")
    (folder / "README.md").write_text("about")
    assert sorted(seen(1, 0)[0]) == list(range(9))


@pytest.mark.parametrize("ending", ["tar", "tar.gz"])
def test_a_shard_that_is_cut_off_anywhere_is_named(tmp_path, ending):
    """At every block, members' borders among them, where `tarfile` alone sees a good end."""
    whole = write(tmp_path / f"whole.{ending}", range(6), "w:gz" if ending == "tar.gz" else "w")
    data = whole.read_bytes()
    count = len(list(read(whole)))
    assert count == 6
    # The end mark is two blocks, and the archive is filled up to 10 KiB; one block is enough.
    last = len(data) if ending == "tar.gz" else 6 * (2 * 512 + 512 + 1024)
    step = 512 if ending == "tar" else max(1, len(data) // 40)
    cut = tmp_path / f"cut.{ending}"
    cuts = 0
    for size in range(0, last - (8 if ending == "tar.gz" else 0), step):
        cut.write_bytes(data[:size])
        try:
            got = len(list(read(cut)))
        except ChannelError as error:
            assert f"tar shard {cut} is damaged or cut off after " in str(error)  # noqa: PT017
            cuts += 1
        else:
            # Only what comes after the end mark was missing.
            assert got == count, size
    assert cuts > 20


def test_a_damaged_header_is_not_taken_for_the_end(tmp_path):
    shard = write(tmp_path / "a.tar", range(4))
    data = bytearray(shard.read_bytes())
    assert data.count(b"ustar") == 8
    header = data.index(b"0002.cls")
    data[header + 148] ^= 0xFF
    shard.write_bytes(data)
    with pytest.raises(ChannelError, match=r"a\.tar is damaged or cut off after \d samples"):
        list(read(shard))


def test_what_is_no_sample_is_said(tmp_path):
    shard = tmp_path / "a.tar"
    with tarfile.open(shard, "w") as archive:
        archive.addfile(tarfile.TarInfo("README"), io.BytesIO())
    with pytest.raises(ChannelError, match="has 1 files and no sample: their names need"):
        list(read(shard))
    with tarfile.open(shard, "w") as archive:
        for _ in range(2):
            archive.addfile(tarfile.TarInfo("1.txt"), io.BytesIO())
    with pytest.raises(ChannelError, match=r"1\.txt: duplicate file name"):
        list(read(shard))


@pytest.mark.contract(28)
@pytest.mark.slow
def test_a_damaged_shard_is_in_the_failure_file(job):
    folder = job.channel("training")
    write(folder / "good.tar", range(3))
    (folder / "bad.tar").write_bytes(write(folder / "bad.tar", range(9)).read_bytes()[:5000])
    job.program(
        "from byoc_training.shards import ShardDataset\n"
        "import torch\n"
        "if __name__ == '__main__':\n"
        "    data = ShardDataset('training').to_tuple('cls')\n"
        "    print(len(list(torch.utils.data.DataLoader(data, batch_size=None, num_workers=2))))\n"
    )
    result = job.run("train")
    assert result.code == 1
    assert (
        f"ChannelError: tar shard {folder / 'bad.tar'} is damaged or cut off"
        in (result.failure.split("\n")[0])
    ), result.failure


@pytest.mark.contract(28)
@pytest.mark.slow
def test_a_read_only_channel_is_enough(job):
    """FastFile is mounted so; a file system of its own, where one can be made."""
    folder = job.channel("training", **{"lines.txt": "1\n2\n"})
    write(folder / "part.tar", range(5))
    job.program(
        "import torch\n"
        "from byoc_training.data import ChannelDataset\n"
        "from byoc_training.shards import ShardDataset\n"
        "path = ChannelDataset('training').channel.path\n"
        "try: (path / 'x').touch(); print('writable')\n"
        "except OSError as error: print(error.strerror)\n"
        "print(len(list(ChannelDataset('training'))), len(list(ShardDataset('training'))))\n"
    )
    done = subprocess.run(
        ["unshare", "--user", "--map-root-user", "--mount", "/bin/sh", "-c",
         f'mount --bind {folder} {folder} && mount -o remount,ro,bind {folder} && exec "$0" "$@"',
         sys.executable, "-m", "byoc_training.main"],
        env=job.variables(), capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    if "train: " not in done.stderr:
        pytest.skip(f"no file system can be mounted here: {done.stderr.strip()}")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["Read-only file system", "2 5"]
