from __future__ import annotations

import json
import os
import threading

import pytest

FILE_MODE = {"TrainingInputMode": "File", "S3DistributionType": "FullyReplicated"}


@pytest.mark.contract(27)
def test_channel_with_dots_and_dashes_is_found_every_way(job):
    folder = job.channel("my-data.v2", rows="1")
    job.config("inputdataconfig", {"my-data.v2": FILE_MODE})
    job.program(
        'import json, os\nprint(json.dumps(dict(os.environ)))\nos.execv("/bin/sh", ["/bin/sh",'
        ' "-c", "env | grep -q SM_CHANNEL_MY_DATA_V2 && ls $SM_CHANNEL_MY_DATA_V2 >&2"])'
    )
    result = job.run("train")
    env = json.loads(result.stdout)
    assert result.code == 0
    assert "rows" in result.stderr
    assert json.loads(env["SM_CHANNELS"]) == ["my-data.v2"]
    assert env["SM_CHANNEL_MY-DATA.V2"] == env["SM_CHANNEL_MY_DATA_V2"] == str(folder)
    paths = json.loads(env["SM_TRAINING_ENV"])["channel_input_dirs"]
    assert paths == {"my-data.v2": str(folder)}


@pytest.mark.contract(28)
def test_nothing_is_written_into_a_channel(job):
    folder = job.channel("code", **{"train.py": "import helper\n", "helper.py": "print('ran')\n"})
    job.environ["SAGEMAKER_PROGRAM"] = "train.py"
    before = {path.name: path.stat().st_mtime_ns for path in [folder, *folder.iterdir()]}
    result = job.run("train")
    assert result.stdout == "ran\n"
    assert {path.name: path.stat().st_mtime_ns for path in [folder, *folder.iterdir()]} == before


@pytest.mark.contract(29)
def test_pipe_channel_is_left_to_the_program_epoch_by_epoch(job, wait_for):
    job.config("inputdataconfig", {"train": {**FILE_MODE, "TrainingInputMode": "Pipe"}})
    data = job.root / "input" / "data"
    data.mkdir(parents=True)
    os.mkfifo(data / "train_0")
    job.program(
        "import os, time\n"
        "base = os.environ['SM_CHANNEL_TRAIN']\n"
        "print(open(base + '_0').read(), flush=True)\n"
        "while not os.path.exists(base + '_1'): time.sleep(0.01)\n"
        "with open(base + '_1') as fifo: print(fifo.readline().strip(), flush=True)\n"
    )
    process = job.start("train")
    (data / "train_0").write_text("first epoch")
    assert process.stdout.readline() == "first epoch\n"
    os.mkfifo(data / "train_1")
    closed_early = threading.Event()

    def feed() -> None:
        try:
            with (data / "train_1").open("w") as fifo:
                for _ in range(100_000):
                    fifo.write("second epoch\n")
        except BrokenPipeError:
            closed_early.set()

    feeder = threading.Thread(target=feed)
    feeder.start()
    result = job.finish(process)
    feeder.join(30)
    assert (result.code, result.stdout) == (0, "second epoch\n")
    assert closed_early.is_set()
    assert "Pipe mode" in result.stderr


@pytest.mark.contract(30)
def test_channel_without_a_directory_is_reported_and_no_error(job):
    job.config("inputdataconfig", {"train": {**FILE_MODE, "S3DistributionType": "ShardedByS3Key"}})
    job.probe()
    result = job.run("train")
    assert result.code == 0
    assert "channel train: no directory on this host" in result.stderr
    assert result.seen()["env"]["SM_CHANNEL_TRAIN"].endswith("/input/data/train")
    assert not (job.root / "input/data/train").exists()


@pytest.mark.contract(31)
def test_job_without_channels_runs(job):
    job.config("inputdataconfig", {})
    job.probe()
    result = job.run("train")
    assert result.code == 0
    assert result.seen()["env"]["SM_CHANNELS"] == "[]"


def test_files_are_counted_in_the_report(job):
    job.channel("train", a="1", b="2")
    job.channel("empty")
    job.probe()
    stderr = job.run("train").stderr
    assert "channel train: 2 files, 2 bytes, in" in stderr
    assert "channel empty: 0 files, 0 bytes, in" in stderr


@pytest.mark.parametrize("name", ["a\0", "\ud800"])
def test_name_that_no_process_can_be_given_is_refused(job, name):
    job.probe()
    job.config("inputdataconfig", {name: {}})
    result = job.run("train")
    assert result.code == 78
    assert "cannot be the name of a channel" in result.failure
    assert "Traceback" not in result.stderr


def test_name_longer_than_any_directory_is_a_channel_without_data(job):
    job.probe()
    job.config("inputdataconfig", {"a" * 300: {}})
    result = job.run("train")
    assert result.code == 0
    assert "no directory on this host" in result.stderr
