"""``byoc transform``, ``process`` and ``package``."""

from __future__ import annotations

import tarfile

import pytest

from byoc.errors import CombinationError, PackagingError, SettingsError
from byoc.hosts import Cuda
from byoc.transforms import batch_ami

ROLE = ("--role", "arn:aws:iam::111122223333:role/sm", "--bucket", "b")


def test_a_transform_of_a_folder(byoc, digits, no_engine):
    planned = byoc.planned(
        "transform", str(digits), "--job", "j", "--name", "t", "--split", "Line", "--strategy",
        "MultiRecord", "--payload", "10", "--concurrency", "4", *ROLE,
    )  # fmt: skip
    operations = [one["operation"] for one in planned]
    assert operations == [
        "DescribeTrainingJob", "CreateModel", "PutObject", "PutObject", "CreateTransformJob",
    ]  # fmt: skip
    request = planned[-1]["request"]
    assert request["ModelName"] == planned[1]["request"]["ModelName"]
    assert request["TransformInput"]["SplitType"] == "Line"
    assert request["TransformOutput"] == {
        "S3OutputPath": "s3://b/byoc/transform/t", "AssembleWith": "Line"
    }  # fmt: skip
    assert (request["BatchStrategy"], request["MaxPayloadInMB"]) == ("MultiRecord", 10)
    assert request["MaxConcurrentTransforms"] == 4


def test_a_transform_with_a_model_that_exists(byoc):
    (planned,) = byoc.planned(
        "transform", "s3://b/in/", "--model", "m", "--output", "s3://b/out", "--name", "t"
    )
    assert planned["request"]["ModelName"] == "m"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("s3://b/in/", "--model", "m", "--job", "j"), "give --model, or"),
        (("s3://b/in/", "--model", "m", "--payload", "60", "--concurrency", "2"), "at most 100"),
        (("nowhere", "--model", "m"), "neither a folder nor a file"),
    ],
)
def test_wrong_transforms_are_one_line(byoc, words, said):
    done = byoc("transform", *words, "--dry-run")
    assert done.code == SettingsError.exit_code
    assert said in done.err


def test_the_ami_of_a_transform():
    assert batch_ami("ml.g5.xlarge", Cuda("12.8", 525)) == "al2-ami-sagemaker-batch-gpu-535"
    assert batch_ami("ml.g6.xlarge", Cuda("12.8", 525)) is None
    assert batch_ami("ml.m5.large", Cuda("13.0", 580)) is None
    with pytest.raises(CombinationError, match="535 at most"):
        batch_ami("ml.g5.xlarge", Cuda("13.0", 580))


def test_a_processing_job_with_a_script(byoc, tmp_path, digits):
    (tmp_path / "prepare.py").write_text("print(1)")
    planned = byoc.planned(
        "process", "--input", f"raw={digits}", "--output", "data", "--output", "more=s3://c/more",
        "--name", "p", "--max-time", "2h", "-e", "A=b", *ROLE, "prepare.py",
        "--size", "28", "--input", "its-own",
    )  # fmt: skip
    request = planned[-1]["request"]
    assert request["AppSpecification"]["ContainerEntrypoint"] == [
        "python3", "/opt/ml/processing/code/prepare.py"
    ]  # fmt: skip
    assert request["AppSpecification"]["ContainerArguments"] == [
        "--size", "28", "--input", "its-own"
    ]  # fmt: skip
    inputs = {one["InputName"]: one["S3Input"] for one in request["ProcessingInputs"]}
    assert inputs["raw"]["LocalPath"] == "/opt/ml/processing/input/raw"
    assert inputs["code"]["S3Uri"].endswith("/prepare.py")
    outputs = request["ProcessingOutputConfig"]["Outputs"]
    assert [one["S3Output"]["S3Uri"] for one in outputs] == [
        "s3://b/byoc/processing/p/data", "s3://c/more"
    ]  # fmt: skip
    assert request["StoppingCondition"] == {"MaxRuntimeInSeconds": 7200}


def test_a_processing_job_with_the_image_s_own_program(byoc):
    (planned,) = byoc.planned("process", *ROLE, "--entrypoint", "python3 -m 'a b'")
    specification = planned["request"]["AppSpecification"]
    assert specification["ContainerEntrypoint"] == ["python3", "-m", "a b"]
    words = ("process", "--entrypoint", "tool", *ROLE, "--dry-run", "a", "-b")
    specification = byoc(*words).json[0]["request"]["AppSpecification"]
    assert specification["ContainerArguments"] == ["a", "-b"]
    done = byoc("process", *ROLE, "--dry-run", "none.py")
    assert (done.code, "is not there" in done.err) == (SettingsError.exit_code, True)


def test_an_entry_point_with_an_open_quote_is_one_line(byoc):
    done = byoc("process", *ROLE, "--entrypoint", "a 'b", "--dry-run")
    assert done.code == SettingsError.exit_code
    assert done.err == (
        "byoc: --entrypoint a 'b is no command as a shell has it: No closing quotation\n"
    )


@pytest.mark.parametrize("option", ["--dry-run", "--wait", "--json", "--yes"])
def test_an_option_of_ours_behind_the_script_is_not_handed_to_the_program(byoc, tmp_path, option):
    (tmp_path / "hi.py").write_text("print(1)")
    done = byoc("process", *ROLE, "hi.py", "--size", "1", option)
    assert done.code == SettingsError.exit_code
    assert done.err.startswith(f"byoc: {option} stands behind SCRIPT")
    assert len(done.err.splitlines()) == 1
    words = ("process", *ROLE, "--dry-run", "hi.py", "--", option, "--", "x")
    specification = byoc(*words).json[-1]["request"]["AppSpecification"]
    assert specification["ContainerArguments"] == [option, "--", "x"]


def test_package_puts_the_handler_into_code(byoc, tmp_path):
    for name in (
        "model/model.pth",
        "model/code/old.py",
        "handler/inference.py",
        "handler/lib/a.py",
    ):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    done = byoc("package", "model", "--code", "handler", "--json")
    assert done.code == 0, done.err
    with tarfile.open(done.json["archive"]) as tar:
        files = sorted(one.name for one in tar.getmembers() if one.isfile())
    assert files == ["code/inference.py", "code/lib/a.py", "model.pth"]
    (tmp_path / "model/link").symlink_to("model.pth")
    done = byoc("package", "model")
    assert done.code == PackagingError.exit_code
    assert "symbolic link" in done.err
    assert byoc("package", "model", "--code", "model").code == PackagingError.exit_code
