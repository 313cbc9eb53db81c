from __future__ import annotations

import os
import subprocess
import sys

import pytest


@pytest.mark.contract(1, 2)
@pytest.mark.parametrize("arguments", [(), ("train",), ("train", "train")])
def test_job_runs_with_and_without_the_word_train(job, arguments):
    job.probe()
    result = job.run(*arguments)
    assert result.code == 0
    assert result.seen()["argv"] == []
    assert result.failure is None


@pytest.mark.contract(3)
def test_extra_options_follow_the_hyperparameters(job):
    job.hyperparameters(epochs="2")
    job.probe()
    seen = job.run("train", "--extra", "x y", "--flag").seen()
    assert seen["argv"] == ["--epochs", "2", "--extra", "x y", "--flag"]


@pytest.mark.contract(4)
@pytest.mark.parametrize("arguments", [("serve",), ("train", "serve"), ("foo", "--x")])
def test_unknown_first_argument_is_one_line_on_stderr(job, arguments):
    job.probe()
    result = job.run(*arguments)
    assert result.code == 64
    assert len(result.stderr.splitlines()) == 1
    assert "unknown argument" in result.stderr
    assert result.stdout == ""


def test_settings_that_make_no_sense_are_all_named(job):
    result = job.run("train", BYOC_STOP_GRACE_SECONDS="soon", BYOC_PROGRAM="train.py")
    assert result.code == 64
    assert "BYOC_STOP_GRACE_SECONDS='soon'" in result.stderr
    assert "BYOC_PROGRAM=train.py" in result.stderr
    assert "BYOC_STOP_GRACE_SECONDS='soon'" in result.failure


@pytest.mark.parametrize(("option", "word"), [("--help", "usage: train"), ("--version", "0.")])
def test_help_and_version_are_ours_outside_of_a_job(tmp_path, option, word):
    done = subprocess.run(
        [sys.executable, "-m", "byoc_training.main", option],
        env={**os.environ, "BYOC_ROOT": str(tmp_path / "none")},
        capture_output=True,
        text=True,
        check=True,
    )
    assert word in done.stdout


def test_help_belongs_to_the_program_in_a_job(job):
    job.probe()
    assert job.run("--help").seen()["argv"] == ["--help"]


def test_importing_the_command_loads_nothing_heavy():
    code = (
        "import sys, byoc_training.main\n"
        "print([m for m in ('torch', 'numpy', 'boto3', 'logging', 'asyncio') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


@pytest.mark.contract(14)
def test_local_job_opens_no_network_connection(job):
    job.channel("train", a="1")
    job.hyperparameters(sagemaker_program="train.py")
    job.probe()
    # A network namespace without interfaces is what `--network none` makes.
    probe = subprocess.run(["unshare", "-n", "true"], capture_output=True, check=False)
    if probe.returncode:
        pytest.skip("no right to make a network namespace here")
    done = subprocess.run(
        ["unshare", "-n", sys.executable, "-m", "byoc_training.main"],
        env=job.variables(),
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_model_and_output_directories_are_there_for_the_program(job):
    job.program("import os; open(os.environ['SM_MODEL_DIR'] + '/m', 'w').close();"
                "open(os.environ['SM_OUTPUT_DATA_DIR'] + '/o', 'w').close()")  # fmt: skip
    assert job.run("train").code == 0
    assert sorted(path.name for path in (job.root / "model").iterdir()) == ["m"]


@pytest.mark.contract(33)
def test_links_in_the_model_directory_are_named_and_kept(job):
    job.program(
        "import os; m = os.environ['SM_MODEL_DIR']; open(m + '/a.pt', 'w').close();"
        "os.symlink('a.pt', m + '/best.pt')"
    )
    result = job.run("train")
    assert result.code == 0
    assert "symbolic links" in result.stderr
    assert "best.pt" in result.stderr
    assert sorted(path.name for path in (job.root / "model").iterdir()) == ["a.pt", "best.pt"]


def test_empty_model_directory_is_mentioned(job):
    job.probe()
    assert "saved no model" in job.run("train").stderr


def test_root_that_cannot_be_written_is_one_clear_line(job):
    job.probe()
    (job.root / "model").write_text("a file where the directory belongs")
    result = job.run("train")
    assert result.code == 74
    assert "cannot make" in result.failure
    assert "Traceback" not in result.stderr


@pytest.mark.contract(13)
def test_every_line_appears_at_once(job):
    fifo = job.root / "gate"
    os.mkfifo(fifo)
    job.program(f"print('first')\nopen({str(fifo)!r}).read()\nprint('second')\n")
    process = job.start("train")
    assert process.stdout.readline() == "first\n"
    fifo.write_text("")
    assert job.finish(process).stdout == "second\n"


@pytest.mark.contract(47)
def test_under_a_terminal_the_program_gets_no_input_and_plain_lines(job):
    import pty

    job.program("import sys\nprint(repr(sys.stdin.read()), sys.stderr.isatty())\n")
    main, side = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "byoc_training.main", "train"],
        env=job.variables(),
        stdin=side,
        stdout=side,
        stderr=side,
    )
    os.close(side)
    shown = b""
    while True:
        try:
            data = os.read(main, 4096)
        except OSError:  # the terminal's other end is closed
            break
        shown += data
    os.close(main)
    assert process.wait(30) == 0
    assert b"'' False" in shown
    assert b"\x1b" not in shown


def test_two_jobs_run_side_by_side(job, tmp_path):
    job.probe()
    other = type(job)(tmp_path / "other")
    other.probe()
    processes = [(one, one.start("train")) for one in (job, other)]
    for one, process in processes:
        assert one.finish(process).seen()["env"]["SM_MODEL_DIR"] == str(one.root / "model")
