"""The server itself: folders that cannot be used, its end, full disks."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

import pytest

from byoc.errors import LocalError
from byoc.local.endpoints import Endpoints
from byoc.local.transform_jobs import TransformJobs
from tests.clients.inside import Inside
from tests.local.conftest import Endpoint, eventually
from tests.local.hosted import IMAGE
from tests.local.jobs import BUCKET, WAITS, Jobs

if TYPE_CHECKING:
    import threading
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def inside(tmp_path: Path) -> Iterator[Inside]:
    made = Inside(tmp_path / "inside")
    yield made
    made.close()


@pytest.fixture
def full_disk(inside: Inside, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """No failure can be kept the first two times; their names."""
    write = inside.store._write
    refused: list[str] = []

    def full(kind: str, name: str, document: dict[str, Any]) -> None:
        if "Failed" in document.values() and len(refused) < 2:
            refused.append(name)
            raise sqlite3.OperationalError("database or disk is full")
        write(kind, name, document)

    monkeypatch.setattr(inside.store, "_write", full)
    return refused


def up(home: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "byoc.main", "local", "up", "--runner", "process"],
        env={**os.environ, "BYOC_HOME": str(home)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_a_database_that_is_none_is_one_line_and_leaves_nothing_behind(own_endpoint):
    own_endpoint.home.mkdir()
    database = own_endpoint.home / "state.sqlite3"
    database.write_bytes(b"no database" * 1000)
    done = up(own_endpoint.home)
    assert done.returncode == LocalError.exit_code
    (line,) = done.stderr.splitlines()
    assert f"{database} cannot be read" in line
    assert line.endswith("move it away, and an empty one is made")
    assert database.read_bytes() == b"no database" * 1000
    database.rename(database.with_suffix(".broken"))
    own_endpoint.start()
    assert own_endpoint.client("sagemaker").list_models()["Models"] == []


def test_two_servers_cannot_have_one_folder(own_endpoint):
    own_endpoint.start()
    done = up(own_endpoint.home)
    assert done.returncode == LocalError.exit_code
    (line,) = done.stderr.splitlines()
    assert f"another local endpoint uses {own_endpoint.home}" in line
    assert own_endpoint.url in line


def test_a_job_whose_endpoint_is_stopped_stores_what_it_saves_and_tells_its_last_lines(
    tmp_path, own_endpoint
):
    own_endpoint.start()
    jobs = Jobs(own_endpoint, tmp_path)
    name = jobs.start(
        "def stop(*_):\n"
        "    pathlib.Path(os.environ['SM_CHECKPOINT_DIR'], 'last').write_text('saved')\n"
        "    print('last words', flush=True); sys.exit(0)\n"
        "signal.signal(signal.SIGTERM, stop)\n"
        "print('ready', flush=True)\n"
        "time.sleep(100)\n",
        CheckpointConfig={"S3Uri": f"s3://{BUCKET}/saved"},
    )
    jobs.said(name, "ready")
    own_endpoint.stop()
    log = own_endpoint.home / "server.log"
    assert not log.exists() or "not taken" not in log.read_text()
    own_endpoint.start()
    jobs = Jobs(own_endpoint, tmp_path)
    assert jobs.keys("saved/") == ["last"]
    jobs.said(name, "last words")


def test_a_transform_job_that_waited_waits_again_after_a_kill(tmp_path, own_endpoint):
    own_endpoint.start()
    jobs = Jobs(own_endpoint, tmp_path)
    running = jobs.start(WAITS)
    jobs.said(running, "ready")
    transform(own_endpoint, "waited")
    own_endpoint.kill()
    own_endpoint.start()
    found = ended(own_endpoint, "waited")
    # It has had its turn, and has failed for what is really wrong with it.
    assert "no-model.tar.gz" in found["FailureReason"]


def test_the_end_of_a_transform_job_is_kept_when_a_full_disk_has_room_again(inside, full_disk):
    inside.keep("transform-job", TransformJobName="full", TransformJobStatus="InProgress")
    (jobs,) = [one for one in inside.http._resources if isinstance(one, TransformJobs)]
    jobs._end("full", "Failed", "its own")
    assert full_disk == ["full", "full"]
    document = inside.store.get("transform-job", "full")
    assert document is not None
    assert (document["TransformJobStatus"], document["FailureReason"]) == ("Failed", "its own")


def test_the_failure_of_an_endpoint_is_kept_when_a_full_disk_has_room_again(inside, full_disk):
    inside.keep("endpoint", EndpointName="full", EndpointStatus="Updating", Plans=[])
    (endpoints,) = [one for one in inside.http._resources if isinstance(one, Endpoints)]

    def broken(name: str, _: threading.Event) -> None:
        raise sqlite3.OperationalError(f"{name}: database or disk is full")

    endpoints._work.begin("full", broken)

    def status() -> bool:
        document = inside.store.get("endpoint", "full")
        return document is not None and document["EndpointStatus"] == "Failed"

    eventually(status)
    assert full_disk == ["full", "full"]


def test_all_are_deleted_by_who_deletes_while_paging(inside):
    for number in range(25):
        inside.keep("model", ModelName=f"model-{number:02}")
        time.sleep(0.001)
    pages = inside.sagemaker.get_paginator("list_models").paginate()
    for page in pages:
        for one in page["Models"]:
            inside.sagemaker.delete_model(ModelName=one["ModelName"])
    assert inside.sagemaker.list_models()["Models"] == []


def transform(endpoint: Endpoint, name: str) -> None:
    """A job whose model's data are not there any more."""
    sagemaker, s3 = endpoint.client("sagemaker"), endpoint.client("s3")
    for key in ("no-model.tar.gz", "something"):
        s3.put_object(Bucket=BUCKET, Key=key, Body=b"1")
    sagemaker.create_model(
        ModelName=name,
        PrimaryContainer={"Image": IMAGE, "ModelDataUrl": f"s3://{BUCKET}/no-model.tar.gz"},
        ExecutionRoleArn="arn:aws:iam::123456789012:role/local",
    )
    s3.delete_object(Bucket=BUCKET, Key="no-model.tar.gz")
    source = {"S3DataType": "S3Prefix", "S3Uri": f"s3://{BUCKET}/something"}
    sagemaker.create_transform_job(
        TransformJobName=name,
        ModelName=name,
        TransformInput={"DataSource": {"S3DataSource": source}},
        TransformOutput={"S3OutputPath": f"s3://{BUCKET}/out"},
        TransformResources={"InstanceType": "ml.m5.large", "InstanceCount": 1},
    )


def ended(endpoint: Endpoint, name: str) -> dict[str, Any]:
    sagemaker = endpoint.client("sagemaker")

    def found() -> dict[str, Any] | None:
        told: dict[str, Any] = sagemaker.describe_transform_job(TransformJobName=name)
        return None if told["TransformJobStatus"] in ("InProgress", "Stopping") else told

    told: dict[str, Any] = eventually(found, 60)
    assert told["TransformJobStatus"] == "Failed"
    return told
