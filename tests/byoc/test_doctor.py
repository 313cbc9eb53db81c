"""``byoc doctor``: a line each with the fix, in time, and nothing changed."""

from __future__ import annotations

import json
import threading
import time
from typing import Any

import boto3
import pytest

from byoc import doctor, image_facts
from byoc.aws import Aws
from byoc.doctor import examine
from byoc.errors import DoctorError, NotFoundError
from byoc.findings import NOTE, OK, WRONG, Finding, Patient

TRUST = json.dumps({"Statement": [{"Principal": {"Service": "sagemaker.amazonaws.com"}}]})
READ = ("Describe", "Get", "Head", "List", "Simulate", "Batch")


@pytest.fixture(autouse=True)
def no_engine(monkeypatch):
    monkeypatch.setattr(image_facts, "engine", lambda *_: None)


def by_subject(findings):
    return {one.subject: one for one in findings}


def test_without_an_account_that_is_one_finding(byoc, monkeypatch):
    monkeypatch.delenv("AWS_REGION")
    done = byoc("doctor", "--json")
    assert done.code == DoctorError.exit_code
    found = {one["subject"]: one for one in done.json}
    assert found["AWS"]["state"] == WRONG
    assert "--region" in found["AWS"]["fix"]
    assert "systemctl start docker" in found["engine"]["fix"]
    assert not {"role", "bucket", "quota"} & found.keys()


def test_lines_have_a_sign_the_subject_and_the_fix(byoc, moto):
    done = byoc("doctor")
    line = next(line for line in done.out.splitlines() if " engine " in line)
    assert "-> systemctl start docker" in line
    assert done.err.startswith("byoc: to be mended: engine")


def test_role_bucket_and_registry_are_looked_at_and_nothing_is_changed(aws, moto, far, monkeypatch):
    sent = []
    through = Aws.call

    def call(self, service, operation, request=None) -> Any:
        sent.append(operation)
        return through(self, service, operation, request)

    monkeypatch.setattr(Aws, "call", call)
    found = by_subject(examine(Patient(aws, role="mine")))
    assert found["role"].state == WRONG
    assert "is not there" in found["role"].words
    assert found["bucket"].state == NOTE
    assert found["ECR training"].fix == "byoc push makes it"
    assert all(one.startswith(READ) for one in sent), sent
    with pytest.raises(NotFoundError):
        aws.call("s3", "HeadBucket", {"Bucket": "sagemaker-eu-central-1-123456789012"})


def test_a_role_that_sagemaker_may_not_assume_is_wrong(aws, moto, far):
    iam = boto3.client("iam", endpoint_url=moto, region_name="eu-central-1")
    iam.create_role(RoleName="bad", AssumeRolePolicyDocument="{}")
    iam.create_role(RoleName="good", AssumeRolePolicyDocument=TRUST)
    bad = by_subject(examine(Patient(aws, role="bad")))["role"]
    assert (bad.state, "trust policy" in bad.fix) == (WRONG, True)
    good = by_subject(examine(Patient(aws, role="good")))["role"]
    assert "may not assume" not in good.words


def test_what_does_not_answer_in_time_is_said(monkeypatch):
    go = threading.Event()
    checks = {
        "slow": lambda _: go.wait(30) and [],
        "quick": lambda _: [Finding("quick", OK, "")],
    }
    monkeypatch.setattr(doctor, "CHECKS", checks)
    started = time.monotonic()
    found = by_subject(examine(Patient(None), seconds=0.3))
    go.set()
    assert time.monotonic() - started < 5
    assert found["slow"].words.startswith("no answer within")
    assert found["quick"].state == OK


def test_a_check_that_breaks_breaks_no_other(monkeypatch):
    def broken(_) -> None:
        raise RuntimeError("oh")

    monkeypatch.setattr(doctor, "CHECKS", {"a": broken, "b": lambda _: [Finding("b", OK, "")]})
    found = by_subject(examine(Patient(None)))
    assert (found["a"].state, found["b"].state) == (NOTE, OK)


@pytest.mark.parametrize(
    ("facts", "state", "words"),
    [
        (image_facts.Facts("engine", {"sagemaker-byoc.cuda.version": "12.8"}, "amd64"), OK, "12.8"),
        (image_facts.Facts("engine", {}, "arm64"), WRONG, "exec format error"),
        (image_facts.Facts("engine", {}, "amd64"), WRONG, "nothing about its CUDA"),
        (image_facts.Facts("nothing"), NOTE, "is not here"),
    ],
)
def test_images_of_the_engine(facts, state, words, monkeypatch):
    monkeypatch.setattr(image_facts, "here", lambda _: facts)
    found = by_subject(examine(Patient(None, "no account; sign in")))["image training"]
    assert found.state == state
    assert words in found.words
