"""What a training job's channels bring, in every mode, and what is said when they cannot."""

from __future__ import annotations

import json
import os

import pytest

from byoc.local.host_processes import namespaces
from tests.local.jobs import (
    BUCKET,
    LIST,
    channel,
    transitions,
)


@pytest.mark.parametrize(
    ("uri", "files"),
    [
        ("digits", ["training/a", "training/deep/b"]),
        ("digits/", ["training/a", "training/deep/b"]),
        ("digits/deep/b", ["training/b"]),
        ("digits/d", ["training/deep/b"]),
    ],
)
def test_a_prefix_brings_what_is_below_it(jobs, uri, files):
    jobs.put(**{"digits/a": "1", "digits/deep/b": "2", "other": "3"})
    jobs.s3.delete_object(Bucket=BUCKET, Key="digits/a.csv")
    jobs.s3.delete_object(Bucket=BUCKET, Key="digits/deep/b.csv")
    found = jobs.run(LIST, InputDataConfig=[channel(f"s3://{BUCKET}/{uri}")])
    assert str(files) in jobs.log(found["TrainingJobName"])


def test_a_key_with_two_slashes_lies_in_the_channels_folder(jobs):
    jobs.put(**{"slashes/a": "1", "slashes//b": "2", "slashes//": ""})
    found = jobs.run(LIST, InputDataConfig=[channel(f"s3://{BUCKET}/slashes/")])
    assert "['training/a', 'training/b']" in jobs.log(found["TrainingJobName"])


def test_a_manifest_brings_what_it_names(jobs):
    manifest = [{"prefix": f"s3://{BUCKET}/many/"}, "x", "deep/y"]
    jobs.put(**{"many/x": "1", "many/deep/y": "2", "many/z": "3", "m": json.dumps(manifest)})
    source = {"S3DataType": "ManifestFile"}
    found = jobs.run(LIST, InputDataConfig=[channel(f"s3://{BUCKET}/m", source=source)])
    assert "['training/deep/y', 'training/x']" in jobs.log(found["TrainingJobName"])


@pytest.mark.skipif(
    os.geteuid() == 0 and not namespaces(), reason="root may write what is not mounted read-only"
)
def test_a_fastfile_channel_cannot_be_written(jobs):
    jobs.put(**{"fast/x": "1"})
    found = jobs.run(
        "print((data / 'training' / 'x').read_text())\n"
        "try: (data / 'training' / 'new').write_text('x')\n"
        "except OSError as error: print('refused', error.errno in (13, 30))\n",
        InputDataConfig=[channel(f"s3://{BUCKET}/fast/", InputMode="FastFile")],
    )
    assert "refused True" in jobs.log(found["TrainingJobName"])


def test_a_pipe_channel_gives_its_content_once_an_epoch(jobs):
    jobs.put(**{"piped/a": "first\n", "piped/b": "second\n"})
    found = jobs.run(
        "for epoch in range(3):\n"
        "    pipe = data / f'training_{epoch}'\n"
        "    while not pipe.exists(): time.sleep(0.01)\n"
        "    with open(pipe) as file: print(epoch, file.read().split())\n",
        InputDataConfig=[channel(f"s3://{BUCKET}/piped/", InputMode="Pipe")],
    )
    log = jobs.log(found["TrainingJobName"])
    assert [f"{epoch} ['first', 'second']" in log for epoch in range(3)] == [True] * 3


def test_an_augmented_manifest_is_a_pipe_of_its_attributes(jobs):
    lines = [{"image-ref": f"s3://{BUCKET}/img/{n}", "label": n} for n in (1, 2)]
    manifest = "\n".join(json.dumps(line) for line in lines)
    jobs.put(**{"img/1": "one", "img/2": "two", "augmented": manifest})
    source = {"S3DataType": "AugmentedManifestFile", "AttributeNames": ["image-ref", "label"]}
    found = jobs.run(
        "import struct\n"
        "with open(data / 'training_0', 'rb') as file:\n"
        "    while head := file.read(8):\n"
        "        magic, size = struct.unpack('<II', head)\n"
        "        print(hex(magic), file.read(size + -size % 4)[:size])\n",
        InputDataConfig=[
            channel(
                f"s3://{BUCKET}/augmented",
                source=source,
                InputMode="Pipe",
                RecordWrapperType="RecordIO",
            )
        ],
    )
    log = jobs.log(found["TrainingJobName"])
    records = [line for line in log if line.startswith("0xced7230a")]
    assert records == [f"0xced7230a {r!r}" for r in (b"one", b"1", b"two", b"2")]


@pytest.mark.parametrize("bucket", [BUCKET, "bucket-that-goes"])
def test_data_that_are_not_there_any_more_fail_the_job(jobs, tmp_path, bucket):
    jobs.s3.create_bucket(Bucket=bucket)
    jobs.s3.put_object(Bucket=bucket, Key="lost/1", Body=b"1")
    gate = tmp_path / "gate"
    before = jobs.start(
        f"import pathlib, time\nwhile not pathlib.Path({str(gate)!r}).exists(): time.sleep(0.02)"
    )
    name = jobs.start("", InputDataConfig=[channel(f"s3://{bucket}/lost/")])
    jobs.s3.delete_object(Bucket=bucket, Key="lost/1")
    if bucket != BUCKET:
        jobs.s3.delete_bucket(Bucket=bucket)
    gate.touch()
    jobs.wait(before, "Completed")
    found = jobs.wait(name, "Failed")
    assert found["FailureReason"].startswith(
        "ClientError: Data download failed:No S3 objects found under S3 URL "
        f'"s3://{bucket}/lost/" given in input data source'
    )
    missing = "The specified bucket does not exist" in found["FailureReason"]
    assert missing == (bucket != BUCKET)
    assert transitions(found)[-2:] == ["Downloading", "Failed"]


def test_an_object_that_a_manifest_names_in_vain_fails_the_job(jobs):
    manifest = [{"prefix": f"s3://{BUCKET}/many/"}, "lost"]
    jobs.put(**{"bad-manifest": json.dumps(manifest), "no-manifest": "{}"})
    source = {"S3DataType": "ManifestFile"}
    uri = f"s3://{BUCKET}/bad-manifest"
    found = jobs.run("", "Failed", InputDataConfig=[channel(uri, source=source)])
    assert found["FailureReason"] == (
        "ClientError: Data download failed:NoSuchKey (404): The specified key does not exist. "
        f"(s3://{BUCKET}/many/lost)"
    )
    uri = f"s3://{BUCKET}/no-manifest"
    found = jobs.run("", "Failed", InputDataConfig=[channel(uri, source=source)])
    assert "no-manifest is none: expected a JSON list" in found["FailureReason"]


def test_a_pipe_that_ends_early_fails_the_job_even_if_its_program_noticed_nothing(jobs, tmp_path):
    gate = tmp_path / "gate"
    jobs.put(**{"broken/1": b"x" * 2_000_000, "broken/2": b"y"})
    name = jobs.start(
        "with open(data / 'training_0', 'rb') as file:\n"
        "    file.read(1)\n"
        "    print('begun', flush=True)\n"
        f"    while not os.path.exists({str(gate)!r}): time.sleep(0.01)\n"
        "    print(len(file.read()))\n",
        InputDataConfig=[channel(f"s3://{BUCKET}/broken/", InputMode="Pipe")],
    )
    jobs.said(name, "begun")
    jobs.s3.delete_object(Bucket=BUCKET, Key="broken/2")
    gate.touch()
    found = jobs.wait(name, "Failed")
    assert found["FailureReason"].startswith("ClientError: Data download failed:")
    assert "1999999" in jobs.log(name)
