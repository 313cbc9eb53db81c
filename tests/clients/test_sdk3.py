"""SageMaker Python SDK v3, used as its user does, against a local endpoint with either runner.

The programs are in ``programs/sdk3_*.py``; each test reads what one of them has found.
"""

from __future__ import annotations

import json
import zipfile
from typing import TYPE_CHECKING, Any

import pytest

from byoc.local.host_processes import namespaces
from tests.clients.conftest import INFERENCE_IMAGE, TRAINING_IMAGE, Client

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.local.conftest import Endpoint

BUCKET = "sdk3-user"
#: The user's settings of the SDK. Without a bucket of its own it names one after the account, and
#: asks STS for that at an address that it puts together itself (``sts_regional_endpoint``), which
#: neither AWS_ENDPOINT_URL nor AWS_ENDPOINT_URL_STS changes.
CONFIG = f"""
SchemaVersion: "1.0"
SageMaker:
  PythonSDK:
    Modules:
      TelemetryOptOut: true
      Session:
        DefaultS3Bucket: {BUCKET}
"""


@pytest.fixture(scope="module")
def program(
    environments: Path, endpoint: Endpoint, tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., Any]:
    """Run one of the programs; what it has found."""
    home = tmp_path_factory.mktemp("user")
    config = home / "config.yaml"
    config.write_text(CONFIG)
    with zipfile.ZipFile(home / "greeting-1.0-py3-none-any.whl", "w") as wheel:
        about = "greeting-1.0.dist-info"
        wheel.writestr("greeting.py", "")
        wheel.writestr(f"{about}/METADATA", "Metadata-Version: 2.1\nName: greeting\nVersion: 1.0\n")
        wheel.writestr(f"{about}/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        wheel.writestr(f"{about}/RECORD", "")
    client = Client(environments / "sdk3", endpoint, home)

    def run(name: str, *words: str | Path) -> Any:
        return client.program(f"sdk3_{name}.py", *words, SAGEMAKER_USER_CONFIG_OVERRIDE=str(config))

    return run


@pytest.fixture(scope="module")
def trained(program: Callable[..., Any], digits_folder: Path) -> Any:
    return program("train", digits_folder, TRAINING_IMAGE)


@pytest.fixture(scope="module")
def source(program: Callable[..., Any], endpoint: Endpoint, digits_folder: Path) -> Any:
    if endpoint.runner == "process" and not namespaces():
        pytest.skip("SourceCode starts bash below /opt/ml; without root that needs Docker")
    # A container's packages go with it, but the process runner's environment is this one.
    asked = "numpy" if endpoint.runner == "process" else "./greeting-1.0-py3-none-any.whl"
    return program("source", digits_folder, TRAINING_IMAGE, asked)


@pytest.fixture(scope="module")
def served(program: Callable[..., Any], trained: Any, digits_folder: Path) -> Any:
    return program("serve", digits_folder, trained["job"], INFERENCE_IMAGE)


@pytest.fixture(scope="module")
def batch(
    program: Callable[..., Any], endpoint: Endpoint, trained: Any, digits_folder: Path
) -> Any:
    if endpoint.runner == "process" and not namespaces():
        pytest.skip("processing jobs have an entry point; without root that needs Docker")
    return program("batch", digits_folder, trained["job"], TRAINING_IMAGE, INFERENCE_IMAGE)


def seen(log: list[str]) -> list[str]:
    return [line for line in log if line.startswith("seen ")]


def test_a_trainer_without_code_runs_the_image_s_own_program(trained):
    assert trained["status"] == "Completed"
    steps = ["Starting", "Downloading", "Training", "Uploading", "Completed"]
    assert trained["transitions"] == steps
    assert trained["parameters"] == {"epochs": "6", "seed": "8"}
    assert trained["tags"] == [["story", "digits"]]


def test_channels_come_from_a_local_folder_and_from_s3(trained):
    job = trained["job"]
    assert trained["channels"] == [
        ["training", f"s3://{BUCKET}/digits/{job}/input/training"],
        ["test", f"s3://{BUCKET}/held-out"],
    ]
    for name in ("training", "test"):
        assert any(f"train: channel {name}: 4 files" in line for line in trained["log"])


def test_the_sdk_shows_the_job_s_log_and_reads_its_metrics(trained):
    assert f"{trained['job']}/algo-1" in "\n".join(trained["log"])
    epochs = [line.split(";")[0] for line in trained["log"] if line.startswith("epoch=")]
    assert epochs == [f"epoch={number}" for number in range(1, 7)]
    assert trained["metrics"]["test:accuracy"] > 0.9


def test_the_model_s_archive_is_where_the_job_says(trained):
    job = trained["job"]
    assert trained["model_data"] == f"s3://{BUCKET}/digits/{job}/output/model.tar.gz"
    assert trained["model_files"] == ["code/inference.py", "code/model.py", "model.pth"]


def test_a_script_gets_hyperparameters_environment_and_requirements(source, endpoint):
    log = source["script"]["log"]
    (line,) = seen(log)
    found = json.loads(line.removeprefix("seen "))
    assert found["hyperparameters"] == {
        "epochs": 2, "name": "adam", "flag": True, "sizes": [1, 2]
    }  # fmt: skip
    assert found["arguments"] == [
        "--epochs", "2", "--name", "adam", "--flag", "true", "--sizes", "[1, 2]"
    ]  # fmt: skip
    assert found["rate"] == "fast"
    assert found["folder"] == "/opt/ml/input/data/code"
    assert {"script.py", "requirements.txt"} <= set(found["files"])
    installed = endpoint.runner == "docker"
    assert found["greeting"] is installed
    words = "Successfully installed greeting" if installed else "Requirement already satisfied"
    assert any(line.startswith(words) for line in log)
    assert source["script"]["files"] == ["weights"]


def test_a_command_runs_in_the_source_folder(source):
    log = source["command"]["log"]
    assert seen(log) == [f"seen {source['command']['job']}"]
    assert "script.py" in log


def test_torchrun_forms_a_group_of_two_instances(source):
    found = [seen(log) for log in source["group"]["logs"]]
    assert found == [["seen [0, 2, 3.0]"], ["seen [1, 2, 3.0]"]]
    assert source["group"]["files"] == ["model.pth"]


def test_a_job_that_fails_raises_the_reason(source):
    """The SDK's driver writes the command that failed, not the script's own words, as reason."""
    found = source["bad"]
    assert found["reason"].startswith("AlgorithmError: ")
    assert found["reason"].endswith("'bad.py']' returned non-zero exit status 1., exit code: 1")
    assert found["reason"] in found["error"]
    assert "ValueError: told to fail" in found["log"]


def test_a_stopped_job_keeps_its_model(source):
    found = source["slow"]
    assert found["status"] == ["Stopped", "Stopped"]
    assert "model.pth" in found["files"]
    assert any(line.startswith("Stopped in epoch ") for line in found["log"])


def test_jobs_are_listed_in_their_order_and_by_status(source):
    assert source["listed"] == source["names"]
    assert source["failed"] == [source["names"][3]]


def test_the_trained_model_is_deployed_and_tells_a_digit(served):
    assert served["statuses"] == ["Creating", "InService"]
    assert served["variant"] == "AllTraffic"
    assert served["answer"] == served["digit"]


def test_an_endpoint_answers_in_each_form(served):
    assert set(served["right"]) == {"json", "npy", "csv"}
    assert all(share > 0.9 for share in served["right"].values())
    assert len(set(served["right"].values())) == 1


def test_a_request_that_the_model_refuses_is_a_model_error(served):
    code, status, words = served["refused"]
    assert (code, status) == ("ModelError", 400)
    assert "Received client error (400) from primary" in words
    assert "expected an array of numbers" in words


def test_the_builder_deploys_the_image_as_it_is(served):
    built = served["built"]
    assert built["image"] == INFERENCE_IMAGE
    assert built["data"] == served["artifact"]
    assert built["right"] == served["right"]["json"]


def test_resources_are_listed_and_deleted(served):
    listed = served["listed"]
    assert listed["endpoints"] == ["sdk3-built", "sdk3-digits"]
    assert listed["found"] == ["sdk3-built"]
    assert listed["configs"] is True
    assert listed["models"] is True
    code, words = served["gone"]
    assert code == "ValidationException"
    assert "Could not find endpoint" in words
    assert served["left"] == [0, 0, 0]


def test_a_processor_reads_a_local_folder_and_writes_to_s3(batch):
    assert batch["count"] == "4"


def test_a_script_processor_runs_a_local_script_with_arguments(batch):
    found = batch["converted"]
    assert found["arguments"] == ["--side", "28"]
    assert found["side"] == "28"
    # The SDK mounts the script below the input of this name.
    assert found["files"] == sorted(["code", *batch["local files"]])


def test_a_processing_job_that_fails_raises_its_exit_code(batch):
    assert "AlgorithmError" in batch["failed"]
    assert "exit code: 3" in batch["failed"]


def test_processing_jobs_are_listed_with_their_ends(batch):
    ends = ["Completed", "Completed", "Failed"]
    assert batch["processing"] == [list(one) for one in zip(batch["started"], ends, strict=True)]


def test_a_transformer_tells_digits_line_by_line(batch):
    assert batch["right"] > 0.9
    assert batch["transforms"] == [[True, "Completed"]]
