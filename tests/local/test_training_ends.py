"""How training jobs end, and what they leave in S3."""

from __future__ import annotations

import os
import signal

import pytest

from tests.local.conftest import eventually
from tests.local.jobs import (
    BUCKET,
    OUTPUT,
    WAITS,
    gone,
    transitions,
)


def test_checkpoints_come_before_and_follow_during_and_after(jobs):
    jobs.put(**{"ck/epoch-1": "one", "ck/epoch-0": "zero"})
    name = jobs.start(
        "folder = root / 'checkpoints'\n"
        "print('there', sorted(p.name for p in folder.iterdir()), flush=True)\n"
        "(folder / 'epoch-2').write_text('two'); (folder / 'epoch-0').unlink()\n"
        "while not (folder / 'go').exists() and not os.path.exists(os.environ['GO']):\n"
        "    time.sleep(0.02)\n"
        "(folder / 'epoch-3').write_text('three')\n",
        CheckpointConfig={"S3Uri": f"s3://{BUCKET}/ck/"},
        Environment={"GO": str(jobs.folder / "go")},
    )
    eventually(lambda: jobs.keys("ck/") == ["epoch-1", "epoch-2"])
    assert jobs.describe(name)["TrainingJobStatus"] == "InProgress"
    (jobs.folder / "go").touch()
    jobs.wait(name, "Completed")
    assert jobs.keys("ck/") == ["epoch-1", "epoch-2", "epoch-3"]
    assert "there ['epoch-0', 'epoch-1']" in jobs.log(name)


def test_a_stopped_job_has_120_seconds_and_its_model_is_stored(jobs):
    name = jobs.start(WAITS)
    jobs.said(name, "ready")
    jobs.sagemaker.stop_training_job(TrainingJobName=name)
    found = jobs.wait(name, "Stopped")
    assert found["SecondaryStatus"] == "Stopped"
    assert transitions(found)[-4:] == ["Training", "Stopping", "Uploading", "Stopped"]
    assert jobs.archive(name, "model.tar.gz") == {"partial": "p"}
    assert "FailureReason" not in found
    with pytest.raises(jobs.sagemaker.exceptions.ClientError, match="in status Stopped"):
        jobs.sagemaker.stop_training_job(TrainingJobName=name)


def test_the_time_limit_stops_a_job(jobs):
    name = jobs.start(WAITS, StoppingCondition={"MaxRuntimeInSeconds": 2})
    found = jobs.wait(name, "Stopped")
    assert found["SecondaryStatus"] == "MaxRuntimeExceeded"
    assert jobs.archive(name, "model.tar.gz") == {"partial": "p"}
    assert "saved" in jobs.log(name)
    assert 2 <= found["TrainingTimeInSeconds"] <= 5


def test_a_process_that_is_killed_from_outside_fails_the_job(jobs):
    name = jobs.start("print('pid', os.getppid(), flush=True); time.sleep(100)")

    def pid() -> int | None:
        return next((int(w[4:]) for w in jobs.log(name) if w.startswith("pid ")), None)

    os.kill(eventually(pid), signal.SIGKILL)
    found = jobs.wait(name, "Failed")
    assert found["FailureReason"] == (
        "AlgorithmError: the process was killed from outside, or for want of memory, exit code: 137"
    )


def test_what_a_program_leaves_running_ends_with_it(jobs):
    found = jobs.run(
        "import subprocess\n"
        "child = subprocess.Popen(['sleep', '100'], start_new_session=True)\n"
        "print('child', child.pid, flush=True); os._exit(0)\n"
    )
    log = jobs.log(found["TrainingJobName"])
    child = next(int(line[6:]) for line in log if line.startswith("child "))
    eventually(lambda: gone(child))


def test_an_uncompressed_output_is_stored_file_by_file(jobs):
    output = {"S3OutputPath": OUTPUT + "/", "CompressionType": "NONE"}
    found = jobs.run("(model / 'w').write_text('w')", OutputDataConfig=output)
    name = found["TrainingJobName"]
    assert found["ModelArtifacts"]["S3ModelArtifacts"] == f"{OUTPUT}/{name}/output/model/"
    assert jobs.keys(f"out/{name}/output/") == ["model/w"]


def test_a_job_without_a_model_has_an_empty_archive(jobs):
    found = jobs.run("")
    name = found["TrainingJobName"]
    assert jobs.keys(f"out/{name}/output/") == ["model.tar.gz"]
    assert jobs.archive(name, "model.tar.gz") == {}


def test_a_job_without_a_limit_has_a_day(jobs):
    request = jobs.request("")
    del request["StoppingCondition"]
    jobs.sagemaker.create_training_job(**request)
    found = jobs.wait(request["TrainingJobName"], "Completed")
    assert found["StoppingCondition"] == {"MaxRuntimeInSeconds": 86400}


def test_a_job_may_have_28_days(jobs):
    found = jobs.run("", StoppingCondition={"MaxRuntimeInSeconds": 2419200})
    assert found["StoppingCondition"] == {"MaxRuntimeInSeconds": 2419200}


def test_an_output_that_cannot_be_stored_fails_the_job(jobs):
    found = jobs.run("", "Failed", OutputDataConfig={"S3OutputPath": "s3://no-such-bucket/x"})
    assert found["FailureReason"].startswith("ClientError: Artifact upload failed:")
    assert "NoSuchBucket" in found["FailureReason"]
    found = jobs.run("os.mkfifo(model / 'pipe')", "Failed")
    # In the container's words: this machine's paths tell the program's author nothing.
    assert found["FailureReason"] == (
        "ClientError: Artifact upload failed:/opt/ml/model/pipe is neither a file nor a folder; "
        "remove it"
    )


LINKS = """
(model / 'sub').mkdir()
(model / 'sub' / 'epoch-2').write_text('two')
(model / 'best').symlink_to('sub/epoch-2')
(model / 'absolute').symlink_to(model / 'best')
(model / 'latest').symlink_to('sub', target_is_directory=True)
(model / 'sub' / 'up').symlink_to('..', target_is_directory=True)
(model / 'round').symlink_to('round')
(model / 'lost').symlink_to('nothing')
(model / 'outside').symlink_to('/etc/passwd')
(model / 'beside').symlink_to('../output/data/kept')
out = root / 'output' / 'data'
(out / 'kept').write_text('k')
(out / 'link').symlink_to('kept')
"""
OUTSIDE = "which is outside of /opt/ml/model"
LEFT_OUT = (
    "/sub/up is left out: it is a symbolic link to a folder that holds the link",
    "/latest/up is left out: it is a symbolic link to a folder that holds the link",
    "/round is left out: it is a symbolic link to round, which leads round in circles",
    "/lost is left out: it is a symbolic link to /opt/ml/model/nothing, which is not there",
    f"/outside is left out: it is a symbolic link to /etc/passwd, {OUTSIDE}",
    f"/beside is left out: it is a symbolic link to /opt/ml/output/data/kept, {OUTSIDE}",
)


@pytest.mark.parametrize("compression", ["GZIP", "NONE"])
def test_links_are_stored_as_what_they_point_to_or_left_out_with_a_word(jobs, compression):
    output = {"S3OutputPath": OUTPUT, "CompressionType": compression}
    name = jobs.run(LINKS, OutputDataConfig=output)["TrainingJobName"]
    wanted = dict.fromkeys(("sub/epoch-2", "best", "absolute", "latest/epoch-2"), "two")
    if compression == "GZIP":
        assert jobs.archive(name, "model.tar.gz") == wanted
        assert jobs.archive(name, "output.tar.gz") == {"kept": "k", "link": "k"}
    else:
        names = [f"model/{one}" for one in wanted]
        expected = sorted([*names, "output/kept", "output/link"])
        assert jobs.keys(f"out/{name}/output/") == expected
    log = jobs.log(name)
    assert [line for line in LEFT_OUT if f"byoc: /opt/ml/model{line}" not in log] == []


def test_a_model_folder_that_is_a_link_itself_is_left_out(jobs):
    """Whatever is there on this machine is not the container's."""
    name = jobs.run("model.rmdir(); model.symlink_to('/etc')")["TrainingJobName"]
    assert jobs.archive(name, "model.tar.gz") == {}
    words = "byoc: /opt/ml/model is left out: it is a symbolic link to /etc"
    assert words in jobs.log(name)
