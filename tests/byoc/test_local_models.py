"""What `byoc` does with a model, against a real local endpoint: variants, updates, async, jobs."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from byoc.errors import FailedError, RequestError
from tests.byoc.test_local_story import server  # noqa: F401 - the fixture

if TYPE_CHECKING:
    from pathlib import Path

HANDLER = """
import json, os, pathlib

def model_fn(model_dir):
    return (pathlib.Path(model_dir) / "version").read_text()

def input_fn(body, content_type):
    return json.loads(body)

def predict_fn(data, model):
    if data == "stream":
        return (f"{n} of {model};".encode() for n in range(3))
    if data == "fail":
        raise ValueError("told to fail")
    return {"version": model, "data": data, "given": os.environ.get("GIVEN")}

def output_fn(prediction, accept):
    if not isinstance(prediction, dict):
        return prediction
    return json.dumps(prediction).encode(), "application/json"
"""


@pytest.fixture
def local(server, monkeypatch, tmp_path):  # noqa: F811 - the fixture
    for name, value in (
        ("AWS_ENDPOINT_URL", server),
        ("AWS_REGION", "us-east-1"),
        ("AWS_ACCESS_KEY_ID", "local"),
        ("AWS_SECRET_ACCESS_KEY", "local"),
    ):
        monkeypatch.setenv(name, value)
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "inference.py").write_text(HANDLER)
    return server


@pytest.fixture
def archive(byoc, local, tmp_path):
    """Makes a model archive of a version."""

    def make(version: str) -> Path:
        folder: Path = tmp_path / version
        folder.mkdir()
        (folder / "version").write_text(version)
        packed: Path = tmp_path / f"{version}.tar.gz"
        done = byoc("package", str(folder), str(packed), "--code", str(tmp_path / "code"))
        assert done.code == 0, done
        return packed

    return make


@pytest.mark.slow
def test_an_endpoint_is_updated_and_says_what_is_no_longer_used(byoc, archive, tmp_path):
    first = byoc("deploy", "--model-data", str(archive("one")), "--name", "up", "-y")
    assert first.code == 0, first
    assert byoc("invoke", "up", "--body", "1", "--json").json["answer"]["version"] == "one"
    taken = byoc("deploy", "--model-data", str(archive("again")), "--name", "up")
    assert taken.code == RequestError.exit_code
    assert "there is an endpoint up already; change it with --update" in taken.err
    models = byoc("list", "models", "--json").json
    assert len(models) == 1  # what was made for the refused one has been taken away again
    words = ("deploy", "--model-data", str(archive("two")), "--name", "up", "--update")
    done = byoc(*words, "-e", "GIVEN=x")
    assert done.code == 0, done
    assert f"no longer used: model {models[0]['name']}" in done.out
    answer = byoc("invoke", "up", "--body", "[1]", "--json").json["answer"]
    assert answer == {"version": "two", "data": [1], "given": "x"}
    asked = ("invoke", "up", "--body", '"stream"', "--stream")
    assert byoc(*asked, "-o", str(tmp_path / "streamed")).code == 0
    assert (tmp_path / "streamed").read_text() == "0 of two;1 of two;2 of two;"
    assert byoc("delete", "up", "--yes").code == 0


@pytest.mark.slow
def test_variants_share_the_requests_and_one_can_be_asked_for(byoc, archive):
    words = [f"--variant={name}:model-data={archive(name)},weight={w}" for name, w in
             (("red", 1), ("blue", 0))]  # fmt: skip
    done = byoc("deploy", "--name", "both", *words, "-y")
    assert done.code == 0, done
    for variant in ("red", "blue"):
        answer = byoc("invoke", "both", "--body", "1", "--variant", variant, "--json").json
        assert answer["variant"] == answer["answer"]["version"] == variant
    versions = {
        byoc("invoke", "both", "--body", "1", "--json").json["answer"]["version"] for _ in range(5)
    }
    assert versions == {"red"}
    assert byoc("delete", "both", "--yes").code == 0


@pytest.mark.slow
def test_an_asynchronous_endpoint_answers_through_s3(byoc, archive):
    done = byoc("deploy", "--model-data", str(archive("slow")), "--name", "later", "--async", "-y")
    assert done.code == 0, done
    answer = byoc("invoke", "later", "--body", "7", "--async", "--json")
    assert answer.code == 0, answer
    assert answer.json["answer"] == {"version": "slow", "data": 7, "given": None}
    failed = byoc("invoke", "later", "--body", '"fail"', "--async")
    assert failed.code != 0
    assert "told to fail" in failed.err
    assert byoc("delete", "later", "--yes").code == 0


@pytest.mark.slow
def test_a_transform_job_of_a_folder(byoc, archive, tmp_path):
    (tmp_path / "rows").mkdir()
    for name in ("a", "b"):
        (tmp_path / "rows" / f"{name}.jsonl").write_text("".join(f"{n}\n" for n in range(4)))
    words = ("transform", str(tmp_path / "rows"), "--model-data", str(archive("batch")))
    done = byoc(*words, "--split", "Line", "--strategy", "SingleRecord", "--wait", "--json", "-y")
    assert done.code == 0, done
    assert done.json["TransformJobStatus"] == "Completed"
    output = done.json["TransformOutput"]["S3OutputPath"]
    from byoc import connect

    s3 = connect("us-east-1").client("s3")
    bucket, _, prefix = output.removeprefix("s3://").partition("/")
    keys = [one["Key"] for one in s3.list_objects_v2(Bucket=bucket, Prefix=prefix)["Contents"]]
    assert sorted(key.rpartition("/")[2] for key in keys) == ["a.jsonl.out", "b.jsonl.out"]
    body = s3.get_object(Bucket=bucket, Key=keys[0])["Body"].read()
    assert json.loads(body.splitlines()[0])["version"] == "batch"


def test_a_processing_job_of_a_script(byoc, local, tmp_path):
    (tmp_path / "raw").mkdir()
    (tmp_path / "raw" / "in.txt").write_text("hello")
    (tmp_path / "prepare.py").write_text(
        "import pathlib, sys\n"
        "root = pathlib.Path('/opt/ml/processing')\n"
        "text = (root / 'input/raw/in.txt').read_text()\n"
        "(root / 'output/data').mkdir(parents=True, exist_ok=True)\n"
        "(root / 'output/data/out.txt').write_text(text + sys.argv[1])\n"
        "print('prepared')\n"
    )
    words = ("--input", f"raw={tmp_path / 'raw'}", "--output", "data", "--wait", "--json", "-y")
    done = byoc("process", *words, str(tmp_path / "prepare.py"), "!")
    assert done.code == 0, done
    assert done.json["ProcessingJobStatus"] == "Completed"
    (output,) = done.json["ProcessingOutputConfig"]["Outputs"]
    bucket, _, prefix = output["S3Output"]["S3Uri"].removeprefix("s3://").partition("/")
    from byoc import connect

    s3 = connect("us-east-1").client("s3")
    assert s3.get_object(Bucket=bucket, Key=f"{prefix}/out.txt")["Body"].read() == b"hello!"
    assert "prepared" in byoc("logs", done.json["ProcessingJobName"]).out


def test_a_processing_job_that_fails_says_why(byoc, local, tmp_path):
    (tmp_path / "bad.py").write_text("raise SystemExit('no such column')\n")
    done = byoc("process", "--wait", "-y", str(tmp_path / "bad.py"))
    assert done.code == FailedError.exit_code, done
    assert len(done.err.splitlines()) == 1
