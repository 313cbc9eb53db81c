"""Training jobs beside what happens to the endpoint: kills, stops, full disks, a thousand jobs."""

from __future__ import annotations

import os
import subprocess
import time

import pytest

from byoc.local.home import Home
from byoc.local.store import Store
from tests.local.conftest import eventually
from tests.local.jobs import (
    BUCKET,
    WAITS,
    Jobs,
    channel,
    gone,
    own_mounts,
)


def test_an_image_that_no_engine_runs_fails_the_job(tmp_path, own_endpoint):
    own_endpoint.runner = "docker"
    own_endpoint.environ["DOCKER_HOST"] = f"unix://{tmp_path}/no-engine.sock"
    own_endpoint.start()
    jobs = Jobs(own_endpoint, tmp_path)
    found = jobs.run("", "Failed", algorithm={"TrainingImage": "byoc-no-such-image:1"})
    assert found["FailureReason"] == (
        "ClientError: Cannot access the image: no Docker engine answers, so the image "
        "byoc-no-such-image:1 cannot be run"
    )


def test_a_killed_endpoint_fails_what_ran_and_runs_what_waited(tmp_path, own_endpoint):
    own_endpoint.start()
    jobs = Jobs(own_endpoint, tmp_path)
    done = jobs.run("print('kept')")["TrainingJobName"]
    ran = jobs.start("print('pid', os.getpid(), flush=True); time.sleep(100)")

    def pid() -> int | None:
        return next((int(w[4:]) for w in jobs.log(ran) if w.startswith("pid ")), None)

    program = eventually(pid)
    waited = jobs.start("print('after all')")
    eventually(lambda: jobs.describe(waited)["SecondaryStatus"] == "Pending")
    own_endpoint.kill()
    own_endpoint.start()
    jobs.endpoint, jobs.s3 = own_endpoint, own_endpoint.client("s3")
    jobs.sagemaker = own_endpoint.client("sagemaker")
    found = jobs.wait(ran, "Failed")
    reason = "InternalServerError: the local endpoint ended while the job ran"
    assert found["FailureReason"] == reason
    eventually(lambda: gone(program))
    jobs.wait(waited, "Completed")
    assert "after all" in jobs.log(waited)
    # Logs of before are told again, and the model is where it was.
    eventually(lambda: "kept" in jobs.log(done))
    assert jobs.archive(done, "model.tar.gz") == {}


def test_an_endpoint_that_is_stopped_ends_its_job(tmp_path, own_endpoint):
    own_endpoint.start()
    jobs = Jobs(own_endpoint, tmp_path)
    name = jobs.start(WAITS)
    jobs.said(name, "ready")
    began = time.monotonic()
    own_endpoint.stop()
    assert time.monotonic() - began < 15
    assert list((own_endpoint.home / "work").iterdir()) == []
    own_endpoint.start()
    jobs.sagemaker = own_endpoint.client("sagemaker")
    assert jobs.describe(name)["FailureReason"].startswith(
        "InternalServerError: the local endpoint"
    )


@pytest.mark.slow
def test_a_program_that_does_not_listen_is_killed(tmp_path, own_endpoint):
    own_endpoint.start()
    jobs = Jobs(own_endpoint, tmp_path)
    name = jobs.start(
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "print('pid', os.getpid(), flush=True); time.sleep(300)\n"
    )

    def pid() -> int | None:
        return next((int(w[4:]) for w in jobs.log(name) if w.startswith("pid ")), None)

    program = eventually(pid)
    began = time.monotonic()
    own_endpoint.stop()
    assert 9 < time.monotonic() - began < 25
    eventually(lambda: gone(program), 5)


def test_two_jobs_at_a_time_when_asked_for(tmp_path, own_endpoint):
    own_endpoint.environ["BYOC_LOCAL_JOBS"] = "2"
    own_endpoint.start()
    jobs = Jobs(own_endpoint, tmp_path)
    names = [jobs.start(WAITS) for _ in range(2)]
    for name in names:
        jobs.said(name, "ready")
        jobs.sagemaker.stop_training_job(TrainingJobName=name)
    for name in names:
        jobs.wait(name, "Stopped")


def test_a_thousand_jobs_are_listed_page_by_page(tmp_path, own_endpoint):
    home = Home(own_endpoint.home)
    home.prepare()
    store = Store(home.database)
    for number in range(1000):
        status = "Failed" if number % 10 == 0 else "Completed"
        document = {
            "TrainingJobName": f"old-{number:04}",
            "TrainingJobArn": f"arn:aws:sagemaker:us-east-1:123456789012:training-job/{number}",
            "TrainingJobStatus": status,
            "SecondaryStatus": status,
            "HyperParameters": {str(n): "x" for n in range(30)},
            "_waiting": False,
        }
        store.create("training-job", f"old-{number:04}", document)
    store.close()
    own_endpoint.start()
    pages = own_endpoint.client("sagemaker").get_paginator("list_training_jobs")
    began = time.monotonic()
    found = [one for page in pages.paginate() for one in page["TrainingJobSummaries"]]
    assert time.monotonic() - began < 30
    assert [one["TrainingJobName"] for one in found] == [f"old-{n:04}" for n in range(999, -1, -1)]
    wanted = {"StatusEquals": "Failed", "NameContains": "OLD-09", "SortBy": "Name"}
    chosen = pages.paginate(SortOrder="Ascending", MaxResults=3, **wanted)
    names = [one["TrainingJobName"] for page in chosen for one in page["TrainingJobSummaries"]]
    assert names == [f"old-{n:04}" for n in range(900, 1000, 10)]


@own_mounts
def test_a_full_disk_fails_the_job_clearly(tmp_path, own_endpoint):
    """The endpoint's folder is a file system of 16 MiB."""
    own_endpoint.home.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=16m", "tmpfs", str(own_endpoint.home)]
    if subprocess.run(mount, capture_output=True, check=False).returncode != 0:
        pytest.skip("no file system can be mounted here")
    try:
        own_endpoint.start()
        jobs = Jobs(own_endpoint, tmp_path)
        found = jobs.run("(model / 'w').write_bytes(os.urandom(10_000_000))", "Failed")
        assert found["FailureReason"].startswith("ClientError: Artifact upload failed:")
        assert "No space left on device" in found["FailureReason"]
        jobs.put(**{"big/1": os.urandom(7_000_000)})
        found = jobs.run(
            "", "Failed", InputDataConfig=[channel(f"s3://{BUCKET}/big/", n) for n in "ab"]
        )
        assert found["FailureReason"].startswith("ClientError: Data download failed:1 cannot be")
        jobs.run("", "Completed")
        own_endpoint.stop()
    finally:
        subprocess.run(["umount", "-l", str(own_endpoint.home)], check=False)
