from __future__ import annotations

import json
import os
import stat
from pathlib import Path

import pytest


def submit(job, directory: object, program: str = "train.py") -> None:
    """What SDK v2 sends: JSON-encoded, with quotes."""
    job.hyperparameters(
        sagemaker_program=json.dumps(program),
        sagemaker_submit_directory=json.dumps(str(directory)),
        sagemaker_container_log_level="20",
        sagemaker_job_name='"job-1"',
        sagemaker_region='"eu-west-1"',
    )


SOURCE = {"train.py": "import json, os, helper\nprint(json.dumps([os.getcwd(), helper.X]))\n",
          "helper.py": "X = 'helped'\n"}  # fmt: skip


@pytest.mark.contract(40)
def test_source_from_s3_is_unpacked_and_run(job, make_tar, bucket, aws):
    bucket.objects["my-bucket/job 1/source/sourcedir.tar.gz"] = make_tar(SOURCE).read_bytes()
    submit(job, "s3://my-bucket/job 1/source/sourcedir.tar.gz")
    bucket.objects = {name.replace(" ", "%20"): data for name, data in bucket.objects.items()}
    result = job.run("train", **aws)
    assert result.code == 0, result.stderr
    assert result.seen() == [str(job.root / "code"), "helped"]


@pytest.mark.contract(40)
def test_source_from_the_code_channel_runs_without_a_network(job, make_tar):
    packed = job.channel("code") / "sourcedir.tar.gz"
    make_tar(SOURCE).rename(packed)
    submit(job, packed)
    assert job.run("train").seen() == [str(job.root / "code"), "helped"]


@pytest.mark.parametrize("form", ["{}", "file://{}"])
def test_source_from_a_directory_is_copied_not_touched(job, tmp_path, form):
    folder = tmp_path / "my source"
    folder.mkdir()
    for name, text in SOURCE.items():
        (folder / name).write_text(text)
    submit(job, form.format(folder))
    assert job.run("train").seen() == [str(job.root / "code"), "helped"]
    assert sorted(path.name for path in folder.iterdir()) == sorted(SOURCE)


def test_submit_directory_may_come_from_the_variable(job, make_tar):
    path = make_tar(SOURCE)
    result = job.run("train", SAGEMAKER_PROGRAM="train.py", SAGEMAKER_SUBMIT_DIRECTORY=str(path))
    assert result.seen()[1] == "helped"


def test_another_run_over_the_same_root_takes_its_own_source(job, make_tar):
    submit(job, make_tar({"train.py": "print(1)"}))
    assert job.run("train").stdout == "1\n"
    submit(job, make_tar({"train.py": "print(2)"}, name="second.tar.gz"))
    assert job.run("train").stdout == "2\n"


@pytest.mark.contract(41)
def test_local_code_beats_the_submitted_source(job, make_tar):
    job.program("print('local')")
    del job.environ["SAGEMAKER_PROGRAM"]
    submit(job, make_tar({"train.py": "print('submitted')"}))
    result = job.run("train")
    assert result.stdout == "local\n"
    assert "is not empty: using the source there" in result.stderr


def test_program_of_the_variable_beats_the_hyperparameter(job):
    job.program("print('hyperparameter')", "a.py")
    job.program("print('variable')", "b.py")
    job.hyperparameters(sagemaker_program="a.py")
    assert job.run("train").stdout == "variable\n"


def test_absolute_program_runs_where_it_is(job, tmp_path):
    path = tmp_path / "abs.py"
    path.write_text("import os; print(os.getcwd())")
    assert job.run("train", SAGEMAKER_PROGRAM=str(path)).stdout == f"{tmp_path}\n"


def test_image_example_runs_when_the_job_names_none(job, tmp_path):
    path = tmp_path / "example.py"
    path.write_text("print('example')")
    (tmp_path / "requirements.txt").write_text("surely-not-a-package==1\n")
    assert job.run("train", BYOC_PROGRAM=str(path)).stdout == "example\n"


def test_job_without_any_program_says_what_to_do(job):
    result = job.run("train")
    assert result.code == 66
    assert "the job names no program" in result.failure
    assert "sagemaker_program" in result.failure


def test_unknown_program_lists_what_is_there(job):
    job.program("", "a.py")
    job.program("", "b/c.py")
    job.environ["SAGEMAKER_PROGRAM"] = "train.py"
    result = job.run("train")
    assert result.code == 66
    assert result.failure.startswith("train.py not found in ")
    assert result.failure.endswith("there are: a.py, b/")
    assert "Traceback" not in result.stderr


def test_program_outside_of_the_source_is_refused(job):
    job.program("")
    job.environ["SAGEMAKER_PROGRAM"] = "../output/evil.py"
    (job.root / "output").mkdir()
    (job.root / "output/evil.py").write_text("print(1)")
    result = job.run("train")
    assert (result.code, result.stdout) == (66, "")
    assert "outside of the source" in result.failure


@pytest.mark.parametrize(
    ("uri", "code", "words"),
    [
        ("/not/there.tar.gz", 65, "does not exist"),
        ("https://example.com/a.tar.gz", 65, "expected s3://, file:// or"),
        ("s3://bucket", 65, "expected s3://bucket/key"),
        ("file://elsewhere/a", 65, "another machine"),
    ],
)
def test_source_that_cannot_be_had_is_one_clear_line(job, uri, code, words):
    submit(job, uri)
    result = job.run("train")
    assert result.code == code
    assert words in result.failure
    assert "Traceback" not in result.stderr
    assert not (job.root / "code").exists()


@pytest.mark.parametrize(("status", "code"), [(404, "NoSuchKey"), (403, "AccessDenied")])
def test_s3_refusal_is_reported_with_its_code(job, bucket, aws, status, code):
    bucket.refuse_with = (status, code)
    submit(job, "s3://bucket/key.tar.gz")
    result = job.run("train", **aws)
    assert result.code == 69
    assert code in result.failure
    assert "s3:GetObject" in result.failure
    assert "Traceback" not in result.stderr


def test_root_that_contains_itself_is_refused_as_a_source(job):
    submit(job, job.root)
    result = job.run("train")
    assert result.code == 65
    assert "contains the code directory" in result.failure


@pytest.mark.contract(40)
def test_unsafe_archive_leaves_no_code_behind(job, make_tar):
    import tarfile

    submit(job, make_tar(SOURCE, tarfile.TarInfo("../evil")))
    result = job.run("train")
    assert (result.code, result.stdout) == (65, "")
    assert "would leave the code directory" in result.failure
    assert sorted(path.name for path in job.root.iterdir()) == ["input", "model", "output"]


def test_shell_script_needs_no_execute_bit(job):
    job.hyperparameters(name="a b")
    path = job.program('echo "$0 $1 $2"; exit 4\n', "run.sh")
    path.chmod(0o644)
    result = job.run("train")
    assert (result.code, result.stdout) == (4, "./run.sh --name a b\n")
    assert stat.S_IMODE(path.stat().st_mode) == 0o644


def test_interpreter_line_is_honoured(job):
    job.program("#!/bin/bash\nwords=(a b)\necho ${words[1]}\n", "run.sh")
    assert job.run("train").stdout == "b\n"


def test_interpreter_that_is_missing_is_named(job):
    job.program("#!/no/such/shell\n", "run.sh")
    result = job.run("train")
    assert result.code == 65
    assert "/no/such/shell" in result.failure


def test_binary_runs(job):
    import shutil

    path = job.program("", "prog")
    shutil.copy("/bin/echo", path)
    path.chmod(0o755)
    job.hyperparameters(x="1")
    assert job.run("train").stdout == "-x 1\n"


@pytest.mark.contract(46)
def test_python_script_with_windows_line_endings_runs(job):
    job.program("").write_bytes(b"#!/usr/bin/python3\r\nif True:\r\n    print('ran')\r\n")
    assert job.run("train").stdout == "ran\n"


@pytest.mark.contract(46)
@pytest.mark.parametrize("text", [b"#!/bin/bash\r\necho hi\r\n", b"echo hi\r\n"])
def test_shell_script_with_windows_line_endings_is_named(job, text):
    job.program("", "run.sh").write_bytes(text)
    result = job.run("train")
    assert result.code == 65
    assert "Windows line endings (CRLF)" in result.failure


def test_name_that_looks_like_an_option_is_a_file(job):
    job.program("print('ran')", "-c.py")
    assert job.run("train").stdout == "ran\n"


def test_source_is_first_on_the_module_path_and_the_working_directory(job):
    job.probe("pkg/train.py")
    seen = job.run("train", PYTHONPATH="/elsewhere").seen()
    code = str(job.root / "code")
    assert seen["cwd"] == code
    assert seen["env"]["PYTHONPATH"] == f"{code}{os.pathsep}/elsewhere"
    assert Path(seen["executable"]).samefile(job.python)


def test_code_directory_that_is_an_empty_mount_point_is_filled(job, make_tar):
    (job.root / "code").mkdir()
    submit(job, make_tar(SOURCE))
    assert job.run("train").seen()[1] == "helped"


@pytest.mark.contract(40)
def test_platform_paths_are_found_below_another_root(job, make_tar):
    packed = make_tar({"train.py": "print('from the channel')"})
    channel = job.channel("code")
    packed.rename(channel / "sourcedir.tar.gz")
    job.hyperparameters(
        sagemaker_program='"train.py"',
        sagemaker_submit_directory='"/opt/ml/input/data/code/sourcedir.tar.gz"',
    )
    assert job.run("train").stdout == "from the channel\n"


@pytest.mark.parametrize("uri", ["s3://[a/b", "file://[a"])
def test_uri_that_cannot_be_read_is_one_clear_line(job, uri):
    job.hyperparameters(sagemaker_program="train.py", sagemaker_submit_directory=uri)
    result = job.run("train")
    assert result.code == 65
    assert uri in result.failure
    assert "Traceback" not in result.stderr


def test_source_that_is_no_file_is_refused_instead_of_read_for_ever(job, tmp_path):
    os.mkfifo(tmp_path / "pipe")
    job.hyperparameters(
        sagemaker_program="train.py", sagemaker_submit_directory=str(tmp_path / "pipe")
    )
    result = job.run("train")
    assert result.code == 65
    assert "FIFO" in result.failure


@pytest.mark.parametrize("length", [300, 2500])
def test_name_longer_than_any_file_name_is_not_found(job, length):
    job.probe()
    del job.environ["SAGEMAKER_PROGRAM"]
    job.hyperparameters(sagemaker_program="x" * length)
    result = job.run("train")
    assert result.code == 66
    assert "Traceback" not in result.stderr


def test_copy_of_a_read_only_source_can_be_written(tmp_path):
    """As root nothing is read-only, so the modes are looked at."""
    from byoc_training import source

    folder = tmp_path / "given"
    (folder / "sub").mkdir(parents=True)
    (folder / "sub" / "a.py").touch()
    for place in (folder / "sub", folder):
        place.chmod(0o555)
    source.bring(str(folder), tmp_path / "ml" / "code", {})
    for name in (".", "sub"):
        assert (tmp_path / "ml" / "code" / name).stat().st_mode & 0o700 == 0o700
    for place in (folder, folder / "sub"):
        place.chmod(0o755)
