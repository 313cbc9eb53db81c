"""Folders that S3 follows: what rotates, what vanishes, what cannot be stored."""

from __future__ import annotations

import shutil
import threading
from typing import TYPE_CHECKING, Any

import pytest

from byoc.local import s3
from byoc.local.mirror import Mirror, close_all
from tests.local.conftest import eventually

if TYPE_CHECKING:
    from pathlib import Path

BUCKET = "mirrored"


@pytest.fixture
def client(endpoint):
    made = endpoint.client("s3")
    made.create_bucket(Bucket=BUCKET)
    return made


def keys(client, prefix: str) -> list[str]:
    found = client.list_objects_v2(Bucket=BUCKET, Prefix=f"{prefix}/").get("Contents", [])
    return [one["Key"].removeprefix(f"{prefix}/") for one in found]


def mirror(client, folder: Path, prefix: str, bucket: str = BUCKET) -> Mirror:
    folder.mkdir(parents=True)
    return Mirror(client, [folder], f"s3://{bucket}/{prefix}", print)


def test_checkpoints_that_rotate_as_fast_as_they_can_are_followed_to_the_end(client, tmp_path):
    folder = tmp_path / "checkpoints"
    made = mirror(client, folder, "rotating")
    done = threading.Event()

    def rotate() -> None:
        number = 0
        while not done.is_set():
            number += 1
            kept = folder / f"checkpoint-{number}"
            (kept / "inside").mkdir(parents=True)
            for name in range(5):
                (kept / "inside" / f"{name}.bin").write_bytes(b"x")
            shutil.rmtree(folder / f"checkpoint-{number - 2}", ignore_errors=True)

    writer = threading.Thread(target=rotate)
    writer.start()
    try:
        for _ in range(40):
            made._repeat()
    finally:
        done.set()
        writer.join()
    made._repeat()
    there = [path.relative_to(folder).as_posix() for path in folder.rglob("*.bin")]
    assert sorted(keys(client, "rotating")) == sorted(there)


def test_what_goes_wrong_once_is_said_and_tried_again(client, tmp_path, monkeypatch):
    folder = tmp_path / "checkpoints"
    told: list[str] = []
    folder.mkdir()
    made = Mirror(client, [folder], f"s3://{BUCKET}/again", told.append)
    store, failures = s3.store, iter([ValueError("once"), s3.S3Error("twice")])

    def failing(*arguments: Any) -> None:
        for error in failures:
            raise error
        store(*arguments)

    monkeypatch.setattr(s3, "store", failing)
    (folder / "one").write_text("1")
    made.start()
    eventually(lambda: keys(client, "again") == ["one"])
    made.close()
    assert len(told) == 1
    assert told[0].endswith("does not follow its folder: once")


def test_a_folder_that_vanishes_has_deleted_nothing_and_one_that_is_emptied_has(client, tmp_path):
    folder = tmp_path / "checkpoints"
    made = mirror(client, folder, "vanishing")
    (folder / "one").write_text("1")
    made._repeat()
    shutil.rmtree(folder)
    made._repeat()
    assert keys(client, "vanishing") == ["one"]
    folder.mkdir()
    (folder / "two").write_text("2")
    made._repeat()
    assert keys(client, "vanishing") == ["two"]


def test_one_mirror_that_cannot_store_does_not_keep_the_others_going(client, tmp_path):
    broken = mirror(client, tmp_path / "broken", "x", bucket="there-is-none")
    well = mirror(client, tmp_path / "well", "well")
    for made, folder in ((broken, "broken"), (well, "well")):
        (tmp_path / folder / "file").write_text("kept")
        made.start()
    with pytest.raises(s3.S3Error, match="there-is-none"):
        close_all([broken, well])
    shutil.rmtree(tmp_path / "well")
    assert well._thread is None
    assert broken._thread is None
    assert keys(client, "well") == ["file"]
