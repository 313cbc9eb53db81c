"""SageMaker Python SDK v2 as a user has it, against a local endpoint with each runner.

What the programs print is what is tested; each runs once for all tests of an endpoint.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.clients.conftest import INFERENCE_IMAGE, TRAINING_IMAGE, Client

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.local.conftest import Endpoint

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def program(
    environments: Path, endpoint: Endpoint, tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., dict[str, Any]]:
    """Runs a program in the SDK's environment and in a home of its own; what it has found."""

    def run(name: str, *words: str | Path) -> dict[str, Any]:
        home = tmp_path_factory.mktemp("user")
        found: dict[str, Any] = Client(environments / "sdk2", endpoint, home).program(
            name, *words, SAGEMAKER_USER_CONFIG_OVERRIDE=str(defaults(home))
        )
        return found

    return run


def defaults(home: Path) -> Path:
    """The user's defaults: no telemetry, which would wait for an address outside without end."""
    path = home / "sagemaker.yaml"
    path.write_text(
        'SchemaVersion: "1.0"\n'
        "SageMaker: {PythonSDK: {Modules: {TelemetryOptOut: true}}}\n"
    )  # fmt: skip
    return path


@pytest.fixture(scope="module")
def trained(program: Callable[..., dict[str, Any]], digits_folder: Path) -> dict[str, Any]:
    return program("sdk2_train.py", digits_folder, TRAINING_IMAGE)


@pytest.fixture(scope="module")
def served(
    program: Callable[..., dict[str, Any]], digits_folder: Path, trained: dict[str, Any]
) -> dict[str, Any]:
    return program("sdk2_serve.py", digits_folder, trained["job"], INFERENCE_IMAGE)


@pytest.fixture(scope="module")
def own_program(program: Callable[..., dict[str, Any]]) -> dict[str, Any]:
    return program("sdk2_pytorch.py", TRAINING_IMAGE)


@pytest.fixture(scope="module")
def hosted(program: Callable[..., dict[str, Any]]) -> dict[str, Any]:
    return program("sdk2_host.py", INFERENCE_IMAGE)


@pytest.fixture(scope="module")
def transformed(
    program: Callable[..., dict[str, Any]], digits_folder: Path, trained: dict[str, Any]
) -> dict[str, Any]:
    return program("sdk2_transform.py", digits_folder, trained["model_data"], INFERENCE_IMAGE)


@pytest.fixture(scope="module")
def processed(program: Callable[..., dict[str, Any]]) -> dict[str, Any]:
    return program("sdk2_process.py", TRAINING_IMAGE)


def test_fit_trains_on_an_uploaded_channel_and_prints_the_log_of_the_job(trained, endpoint):
    assert trained["status"] == "Completed"
    assert trained["channel"] == f"s3://{trained['bucket']}/digits"
    assert trained["parameters"] == {"epochs": "3", "seed": "8"}
    log = trained["log"]
    assert f"byoc: runner {endpoint.runner}: " in log
    assert "channel training: 4 files, 510 KiB" in log
    assert log.count("\nepoch=") == 3
    for words in ("Training image download completed.", "Training job completed"):
        assert words in log  # the status messages, between the lines of the log
    assert "Billable seconds: " in log


def test_fit_leaves_states_metrics_tags_and_a_model(trained):
    states = ["Starting", "Downloading", "Training", "Uploading", "Completed"]
    assert trained["transitions"] == states
    (metric,) = trained["metrics"]
    assert metric["MetricName"] == "test:accuracy"
    assert f"test_accuracy={metric['Value']:g};" in trained["log"]
    assert trained["tags"] == [{"Key": "story", "Value": "digits"}]
    assert trained["model_data"] == (
        f"s3://{trained['bucket']}/{trained['job']}/output/model.tar.gz"
    )


def test_attach_finds_the_job_of_another_session(trained, served):
    assert served["parameters"] == trained["parameters"]
    assert served["model_data"] == trained["model_data"]


def test_deploy_serves_the_trained_model_which_knows_the_digit(served):
    assert served["answer"] == served["digit"]
    assert min(served["right"].values()) > 0.9
    # The same numbers, whichever serializer carries them.
    assert max(served["apart"].values()) < 1e-3


def test_a_predictor_is_told_what_is_wrong_with_its_request(served):
    assert served["refused"]["kind"] == "ModelError"
    assert "Received client error (400) from primary" in served["refused"]["words"]
    assert "got the string 'no digit'" in served["refused"]["words"]


def test_update_endpoint_puts_more_instances_behind_the_same_name(served):
    before, after = served["configs"]
    assert after.startswith(before)
    assert after != before
    assert served["counts"] == [1, 2]
    assert served["status"] == "InService"
    assert served["right after update"] == served["right"]["json"]


def test_a_deleted_endpoint_does_not_answer(served):
    assert served["gone"]["kind"] == "ValidationError"
    assert served["gone"]["words"].endswith("of account 123456789012 not found.")
    endpoints, models = served["left"]
    assert {one["EndpointStatus"] for one in endpoints} <= {"Deleting"}
    assert models == []


def test_a_program_of_ones_own_finds_its_parameters_modules_and_channels(own_program):
    alone = own_program["alone"]
    assert alone["arguments"] == [
        "--code", "007", "--flag", "True", "--layers", "[1, 2]", "--name", "adam", "--rate", "0.5",
    ]  # fmt: skip
    assert alone["parameters"] == (
        '{"code":"007","flag":true,"layers":[1,2],"name":"adam","rate":0.5}'
    )
    assert alone["files"] == ["letters/a", "letters/deeper", "one/1.txt"]
    assert own_program["model"] == ["weights: of the library"]
    assert own_program["output"] == ["report: a report"]


def test_attach_of_a_framework_estimator_finds_its_program(own_program):
    assert own_program["attached"] == [
        "train.py", "[1, 2]", "s3://sdk2-user/pytorch-alone/output/model.tar.gz",
    ]  # fmt: skip


def test_a_failed_job_is_an_exception_with_the_programs_own_reason(own_program):
    failure = own_program["failure"]
    assert failure["kind"] == "UnexpectedStatusException"
    assert failure["words"].startswith(
        "Error for Training job pytorch-wrong: Failed. Reason: AlgorithmError: "
        "ValueError: these numbers make no sense"
    )
    assert "exit code: 1" in failure["words"]
    assert failure["status"] == "Failed"
    assert own_program["traceback"]


def test_torch_distributed_on_two_instances_adds_over_both(own_program):
    assert own_program["ranks"] == ["rank 0 of 2 sum 3.0", "rank 1 of 2 sum 3.0"]
    assert own_program["sum"] == ["sum: 3.0"]


def test_a_handler_of_ones_own_is_packed_with_the_model_and_answers(hosted):
    assert hosted["answer"] == {"times": 6, "named": "2.6"}
    assert hosted["environment"]["SAGEMAKER_PROGRAM"] == "ask.py"
    assert hosted["environment"]["SAGEMAKER_SUBMIT_DIRECTORY"] == "/opt/ml/model/code"


def test_an_answer_can_be_read_as_a_stream_of_lines(hosted):
    assert hosted["stream"] == ["line 0", "line 1", "line 2"]


def test_an_error_of_the_handler_is_a_model_error_that_names_the_log(hosted):
    assert hosted["error"]["kind"] == "ModelError"
    assert "Received server error (500) from primary" in hosted["error"]["words"]
    assert "See log group /aws/sagemaker/Endpoints/" in hosted["error"]["words"]


def test_a_serverless_endpoint_takes_its_code_from_an_archive_of_its_own(hosted):
    assert hosted["serverless"]["answer"] == {"times": 12, "named": "1.1"}
    assert hosted["serverless"]["variant"] == {"MemorySizeInMB": 2048, "MaxConcurrency": 2}
    assert hosted["serverless"]["directory"].endswith("/sourcedir.tar.gz")


def test_an_asynchronous_predictor_waits_for_the_result_in_s3(hosted):
    later = hosted["later"]
    assert later["whole"] == {"times": 15, "named": "2.6"}
    assert later["response"] == {"times": 18, "named": "2.6"}
    assert later["path"].startswith("s3://sdk2-user/later/")


def test_an_asynchronous_failure_is_an_exception_with_the_models_words(hosted):
    error = hosted["later"]["error"]
    assert error["kind"] == "AsyncInferenceModelError"
    assert "the handler failed in predict_fn with RuntimeError" in error["words"]


def test_many_models_share_an_endpoint_and_one_is_added_while_it_serves(program):
    many = program("sdk2_many.py", INFERENCE_IMAGE)
    assert many["models"] == ["first/two.tar.gz", "three.tar.gz"]
    assert many["answers"] == [10, 15]
    for error, words in (("missing", "/many/four.tar.gz"), ("nameless", "needs a target model")):
        assert many[error]["kind"] == "ValidationError"
        assert words in many[error]["words"]


def test_a_transformer_answers_each_line_of_each_object(transformed):
    assert transformed["status"] == "Completed"
    assert transformed["names"] == ["a.csv.out", "deeper/b.csv.out"]
    assert transformed["csv"] > 0.9
    # The same digits as JSON Lines, one by one.
    assert transformed["lines"] == transformed["csv"]


def test_a_transformer_prints_the_log_of_the_container_and_of_the_data(transformed, endpoint):
    # Not how often: with more streams than instances, SDK v2 lists the first stream twice, and
    # then prints its lines twice (`_flush_log_streams` asks again without the token).
    assert f"runner {endpoint.runner}: " in transformed["log"]
    assert (
        "MaxConcurrentTransforms=1, MaxPayloadInMB=1, BatchStrategy=MULTI_RECORD"
        in (transformed["log"])
    )


def test_attach_finds_a_transform_job(transformed):
    assert transformed["attached"] == ["digits-batch", "MultiRecord", "Line", "text/csv"]


def test_a_record_that_the_model_refuses_fails_the_transform_job(transformed):
    failure = transformed["failure"]
    assert failure["kind"] == "UnexpectedStatusException"
    assert "Failed. Reason: ClientError: sdk2-user/bad.csv: 400: " in failure["words"]
    assert "row 1, column 3: expected a number, got 'no number'" in failure["words"]


def test_a_script_processor_reads_uploaded_files_and_stores_its_own(processed):
    assert processed["status"] == "Completed"
    assert processed["log"] == ["divided a.txt numbers", "divided b.txt numbers"]
    assert processed["halves"] == {"a.txt": "0.5 1.0 1.5", "b.txt": "2.0"}
    assert processed["output named"]


def test_a_processor_runs_an_entry_point_of_its_own(processed):
    assert processed["plain"] == "Completed"
    assert processed["upper"] == {"w.txt": "SEVEN"}
    assert processed["image"] == TRAINING_IMAGE


def test_a_failed_processing_job_is_an_exception_and_its_words_are_in_the_log(processed):
    assert processed["failure"]["kind"] == "UnexpectedStatusException"
    assert ": Failed. Reason: AlgorithmError: " in processed["failure"]["words"]
    assert "exit code: 1" in processed["failure"]["words"]
    assert processed["said"]
