from __future__ import annotations

import io
import json
import os
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest
import torch

from byoc_training import data, recordio
from byoc_training.data import Channel, ChannelDataset, ChannelError

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def channel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A channel of this process, as `train` describes it."""

    def make(files: dict[str, str] | None = None, **entry: str) -> Path:
        folder = tmp_path / "training"
        for name, text in (files or {}).items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(text)
        monkeypatch.setenv("SM_CHANNELS", '["training"]')
        monkeypatch.setenv("SM_CHANNEL_TRAINING", str(folder))
        monkeypatch.setenv("SM_INPUT_DATA_CONFIG", json.dumps({"training": entry}))
        return folder

    return make


@pytest.fixture
def rank(monkeypatch: pytest.MonkeyPatch):
    def be(number: int, world: int, local: int | None = None, local_world: int = 1) -> None:
        monkeypatch.setenv("RANK", str(number))
        monkeypatch.setenv("WORLD_SIZE", str(world))
        monkeypatch.setenv("LOCAL_RANK", str(number if local is None else local))
        monkeypatch.setenv("LOCAL_WORLD_SIZE", str(local_world))

    return be


def feed(folder: Path, *epochs: bytes, late: float = 0.0) -> threading.Thread:
    """The platform's side: a FIFO an epoch, each made when the one before is done with."""

    def run() -> None:
        for number, content in enumerate(epochs):
            time.sleep(late)
            path = folder.with_name(f"{folder.name}_{number}")
            os.mkfifo(path)
            try:
                with path.open("wb") as stream:
                    stream.write(content)
            except BrokenPipeError:
                pass

    thread = threading.Thread(target=run)
    thread.start()
    return thread


def test_lines_of_all_files_in_order(channel):
    channel({"b.txt": "3\r\n4\n", "a/x.txt": "1\n2"})
    assert list(ChannelDataset("training", "lines", int)) == [1, 2, 3, 4]


def test_files_are_shared_out_where_there_are_enough(channel, rank):
    folder = channel({f"{n}.txt": "x\ny\n" for n in range(5)})
    seen = []
    for number in range(2):
        rank(number, 2)
        seen.append([path.name for path in ChannelDataset("training")])
    assert seen == [["0.txt", "2.txt", "4.txt"], ["1.txt", "3.txt"]]
    assert folder.is_dir()


def test_records_are_shared_out_where_files_are_few(channel, rank):
    channel({"all.txt": "".join(f"{n}\n" for n in range(7))})
    seen = []
    for number in range(3):
        rank(number, 3)
        seen.append(list(ChannelDataset("training", "lines", int)))
    assert seen == [[0, 3, 6], [1, 4], [2, 5]]


@pytest.mark.contract(30)
def test_a_host_with_other_objects_shares_them_among_its_own_processes(channel, rank):
    channel({"1.txt": "1", "2.txt": "2"}, S3DistributionType="ShardedByS3Key")
    rank(3, 4, local=1, local_world=2)
    assert [path.name for path in ChannelDataset("training")] == ["2.txt"]


@pytest.mark.contract(30)
def test_a_host_without_any_object_has_nothing(channel):
    channel(S3DistributionType="ShardedByS3Key")
    assert list(ChannelDataset("training", "lines")) == []


def test_loader_workers_share_the_files(channel):
    channel({f"{n}.txt": f"{n}\n" for n in range(6)})
    dataset = ChannelDataset("training", "lines", int)
    loader: Any = torch.utils.data.DataLoader(dataset, batch_size=None, num_workers=2)
    assert sorted(loader) == list(range(6))


def test_workers_that_live_on_have_the_next_epoch_s_order(channel):
    channel({f"{n}.txt": "x" for n in range(8)})
    dataset = ChannelDataset("training", shuffle_seed=5)
    loader: Any = torch.utils.data.DataLoader(
        dataset, batch_size=None, num_workers=1, persistent_workers=True
    )
    orders = []
    for epoch in (0, 1, 0):
        dataset.set_epoch(epoch)
        orders.append([path.name for path in loader])
    assert orders[0] == orders[2] != orders[1]
    del loader


def test_files_come_in_another_order_each_epoch_the_same_on_all(channel, rank):
    channel({f"{n}.txt": "x" for n in range(8)})
    orders = []
    for epoch in (0, 1, 0):
        seen: list[str] = []
        for number in range(2):
            rank(number, 2)
            dataset = ChannelDataset("training", shuffle_seed=5)
            dataset.set_epoch(epoch)
            seen += [path.name for path in dataset]
        assert sorted(seen) == [f"{n}.txt" for n in range(8)]
        orders.append(seen)
    assert orders[0] == orders[2] != orders[1]


@pytest.mark.contract(29)
def test_fifos_of_later_epochs_are_waited_for(channel):
    folder = channel(TrainingInputMode="Pipe")
    feeder = feed(folder, b"1\n2\n", b"3\n", late=0.3)
    dataset = ChannelDataset("training", "lines", int)
    epochs = []
    for epoch in range(2):
        dataset.set_epoch(epoch)
        epochs.append(list(dataset))
    feeder.join()
    assert epochs == [[1, 2], [3]]


@pytest.mark.contract(29)
def test_a_fifo_can_be_closed_early(channel):
    folder = channel(TrainingInputMode="Pipe")
    feeder = feed(folder, b"1\n" * 1_000_000, b"2\n")
    dataset = ChannelDataset("training", "lines", int)
    items = iter(dataset)
    assert next(items) == 1
    del items  # no longer wanted: the FIFO is closed
    dataset.set_epoch(1)
    assert list(dataset) == [2]
    feeder.join()


def test_recordio_from_a_pipe(channel):
    folder = channel(TrainingInputMode="Pipe", RecordWrapperType="RecordIO")
    stream = io.BytesIO()
    records = [b"", b"x" * 100_000, b"\x0a\x23\xd7\xce" * 3]
    for record in records:
        recordio.write(stream, record)
    feeder = feed(folder, stream.getvalue())
    assert list(ChannelDataset("training", "recordio")) == records
    feeder.join()


def test_a_stream_cut_off_in_a_record_says_so(channel):
    folder = channel(TrainingInputMode="Pipe", RecordWrapperType="RecordIO")
    stream = io.BytesIO()
    recordio.write(stream, b"x" * 1000)
    feeder = feed(folder, stream.getvalue()[:500])
    with pytest.raises(recordio.RecordError, match="the stream ends within a record"):
        list(ChannelDataset("training", "recordio"))
    feeder.join()


def test_a_fifo_that_never_comes_is_one_line(channel):
    folder = channel(TrainingInputMode="Pipe")
    with (
        pytest.raises(ChannelError, match=rf"{folder}_0 did not come within 0.1 s"),
        Channel("training").pipe(0, seconds=0.1),
    ):
        pass


def test_a_fifo_has_one_reader(channel, rank):
    channel(TrainingInputMode="Pipe")
    rank(0, 2, local_world=2)
    with pytest.raises(ChannelError, match="2 processes; a FIFO has one reader"):
        ChannelDataset("training", "lines")
    rank(0, 1)
    loader: Any = torch.utils.data.DataLoader(
        ChannelDataset("training", "lines"), batch_size=None, num_workers=2
    )
    with pytest.raises(ChannelError, match="2 workers; a FIFO has one reader"):
        list(loader)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ChannelDataset("test"), "no channel 'test'; it has: training"),
        (lambda: ChannelDataset("training", "files"), "in Pipe mode; its records are no files"),
        (lambda: Channel("training").files(), "in Pipe mode; it has no files"),
    ],
)
def test_what_cannot_be_read_so_is_one_line(channel, make, message):
    channel(TrainingInputMode="Pipe")
    with pytest.raises(ChannelError, match=message):
        make()


def test_unknown_records_are_named(channel):
    channel({"a": "x"})
    with pytest.raises(ValueError, match="'words'; expected one of files, lines, recordio, raw"):
        ChannelDataset("training", "words")


@pytest.mark.contract(55)
def test_workers_without_shared_memory_are_done_without(channel, monkeypatch, tmp_path):
    channel({"a": "1\n2\n"})
    dataset = ChannelDataset("training", "lines", int)
    small = tmp_path / "shm"
    small.mkdir()
    monkeypatch.setattr(data, "_SHM", small)
    monkeypatch.setattr(data, "ENOUGH_SHM_BYTES", 1 << 60)
    with pytest.warns(UserWarning, match=r"2 workers could end in a bus error; loading in this"):
        made = data.loader(dataset, num_workers=2, batch_size=None, prefetch_factor=4)
    assert made.num_workers == 0
    assert list(made) == [1, 2]
    monkeypatch.setattr(data, "ENOUGH_SHM_BYTES", 0)
    assert data.loader(dataset, num_workers=2, batch_size=None).num_workers == 2
