from __future__ import annotations

import subprocess
import sys

import pytest

from byoc_training import cause, report
from byoc_training.console import Console
from byoc_training.errors import ProgramError


@pytest.mark.contract(6)
def test_exception_message_comes_first(job):
    job.program("import sys\nprint('noise ' * 5000, file=sys.stderr)\nraise ValueError('boom 42')")
    result = job.run("train")
    assert result.code == 1
    assert len(result.failure) <= 1024
    assert result.failure.startswith("ValueError: boom 42\n")
    assert "exit code 1" in result.failure
    assert result.stderr.splitlines()[-1] == "train: error: ValueError: boom 42 (exit code 1)"


@pytest.mark.contract(9)
@pytest.mark.parametrize("code", [1, 2, 3, 77, 255])
def test_exit_code_of_the_program_is_kept(job, code):
    job.program(f"import sys; sys.exit({code})")
    result = job.run("train")
    assert result.code == code
    assert f"exit code {code}" in result.failure


@pytest.mark.contract(7)
def test_first_failure_text_stays(job):
    job.program(
        "import os\nopen(os.environ['SM_OUTPUT_FAILURE'], 'w').write('mine')\nraise ValueError('x')"
    )
    result = job.run("train")
    assert (result.code, result.failure) == (1, "mine")


def test_empty_failure_file_is_filled(job):
    (job.root / "output").mkdir()
    job.failure.touch()
    job.program("raise ValueError('x')")
    assert job.run("train").failure.startswith("ValueError: x")


@pytest.mark.contract(8)
@pytest.mark.parametrize("letter", ["ü", "数", "🎉"])
def test_long_message_of_any_script_is_cut_between_characters(job, letter):
    job.program(f"raise ValueError('a' + {letter!r} * 4000)")
    job.run("train")
    data = job.failure.read_bytes()
    assert 600 < len(data) <= 1024
    assert data.decode("utf-8").startswith("ValueError: a" + letter * 100)


@pytest.mark.parametrize("setting", ["PYTHONIOENCODING", "LC_ALL"])
def test_failure_is_utf8_whatever_the_locale(job, setting):
    job.program("raise ValueError('grün')")
    result = job.run("train", **{setting: "C" if setting == "LC_ALL" else "latin-1"})
    assert result.failure.startswith("ValueError: gr")


@pytest.mark.contract(12)
def test_program_killed_by_sigkill_is_137_and_says_out_of_memory(job):
    job.program("import os, signal; os.kill(os.getpid(), signal.SIGKILL)")
    result = job.run("train")
    assert result.code == 137
    assert "out of memory" in result.failure.splitlines()[0]
    assert "limit" in result.failure


@pytest.mark.contract(12)
def test_kill_by_the_kernel_is_recognised(job):
    """A real memory cgroup, where this machine lets us make one."""
    import uuid
    from pathlib import Path

    group = Path("/sys/fs/cgroup/memory") / f"byoc-test-{uuid.uuid4().hex[:8]}"
    try:
        group.mkdir()
        (group / "memory.limit_in_bytes").write_text(str(64 * 1024 * 1024))
    except OSError as error:
        pytest.skip(f"no memory cgroup can be made here: {error}")
    try:
        job.program("x = bytearray(300 * 1024 * 1024)\nfor i in range(0, len(x), 4096): x[i] = 1\n")
        done = subprocess.run(
            ["/bin/sh", "-c", f'echo $$ > {group}/cgroup.procs; exec "$0" "$@"',
             sys.executable, "-m", "byoc_training.main"],
            env=job.variables(), capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
    finally:
        group.rmdir()
    assert done.returncode == 137, done.stderr
    assert "out of memory: the kernel killed train.py (memory limit 0.1 GiB)" in done.stderr


def test_signal_is_named(job):
    job.program("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)")
    result = job.run("train")
    assert result.code == 139
    assert "SIGSEGV" in result.failure


@pytest.mark.contract(6)
def test_failure_file_that_cannot_be_written_keeps_the_exit_code(job):
    job.program("import sys; sys.exit(3)")
    (job.root / "output" / "failure").mkdir(parents=True)
    result = job.run("train")
    assert result.code == 3
    assert "cannot write" in result.stderr
    assert list((job.root / "output" / "failure").iterdir()) == []
    assert not list((job.root / "output").glob(".*"))


def test_success_writes_no_failure_file(job):
    job.probe()
    assert job.run("train").failure is None


def tail(*lines: str) -> bytes:
    return "\n".join(lines).encode()


TRACE = ("Traceback (most recent call last):", '  File "a.py", line 1, in <module>', "    f()")


@pytest.mark.parametrize(
    ("stderr", "text"),
    [
        (tail(*TRACE, "ValueError: boom"), "ValueError: boom"),
        (tail(*TRACE, "ValueError: one", "two", "three"), "ValueError: one\ntwo\nthree"),
        (tail(*TRACE, "KeyError: 'a'", "", "During handling of the above exception, another "
              "exception occurred:", "", *TRACE, "RuntimeError: b"), "RuntimeError: b"),
        (tail(*TRACE, "my.pkg.CustomError"), "my.pkg.CustomError"),
        (tail(*TRACE, "    ^^^", "torch.cuda.OutOfMemoryError: CUDA out of memory."),
         "torch.cuda.OutOfMemoryError: CUDA out of memory."),
        (tail('  File "a.py", line 2', "    f(", "     ^", "SyntaxError: '(' was never closed"),
         "SyntaxError: '(' was never closed"),
        (tail("usage: a.py [-h]", "a.py: error: argument --x: invalid int value: 'a'"),
         "a.py: error: argument --x: invalid int value: 'a'"),
        (tail("10%\r50%\r\x1b[31mlast\x1b[0m", ""), "last"),
        (b"", ""),
        (b"\xff\xfe broken", "\ufffd\ufffd broken"),
    ],
)  # fmt: skip
def test_cause_is_found_in_error_output(stderr, text):
    assert cause.find(stderr).text == text


def test_cause_of_a_rank_beats_the_launchers_summary():
    stderr = tail(
        "[rank1]: " + TRACE[0], "[rank1]:   File", "[rank1]: ValueError: only on rank 1",
        *TRACE, "torch.distributed.elastic.multiprocessing.errors.ChildFailedError:", "====",
    )  # fmt: skip
    found = cause.find(stderr)
    assert (found.text, found.rank) == ("ValueError: only on rank 1", 1)


def test_exception_group_is_named(job):
    if sys.version_info < (3, 11):
        pytest.skip("exception groups came with Python 3.11")
    job.program("raise ExceptionGroup('several', [ValueError('a'), TypeError('b')])")
    assert job.run("train").failure.splitlines()[0] in (
        "ExceptionGroup: several (2 sub-exceptions)", "TypeError: b"
    )  # fmt: skip


def test_as_many_last_lines_as_fit_are_kept():
    details = ("a.py ended", *(f"line {n} " + "x" * 40 for n in range(30)))
    text = report.failure_text(ProgramError("cause", 1, details))
    assert len(text.encode()) <= 1024
    assert text.startswith("cause\na.py ended\nlast lines:\n")
    assert text.endswith(details[-1])


def test_full_disk_loses_the_text_but_not_the_run(tmp_path, capfd):
    report.write_failure(tmp_path / "file" / "failure", "x", Console())
    assert (tmp_path / "file" / "failure").read_text() == "x"
    (tmp_path / "plain").write_text("")
    report.write_failure(tmp_path / "plain" / "failure", "x", Console())
    assert "cannot write" in capfd.readouterr().err


@pytest.mark.contract(6)
@pytest.mark.parametrize(
    "noise",
    [
        "class A:\n    def __del__(self): raise TypeError('noise')\nkept = A()\n",
        "import atexit\ndef noise(): raise TypeError('noise')\natexit.register(noise)\n",
    ],
)
def test_what_fails_after_the_end_does_not_hide_the_cause(job, noise):
    job.program(noise + "raise ValueError('the cause')")
    assert job.run("train").failure.startswith("ValueError: the cause\n")


@pytest.mark.contract(6)
def test_last_words_beat_an_error_that_was_only_logged(job):
    job.program(
        "import sys\nprint('ConnectionError: mirror 1, going on', file=sys.stderr)\n"
        "sys.exit('no data in the channel')"
    )
    assert job.run("train").failure.startswith("no data in the channel\n")


def test_last_words_long_after_a_logged_traceback_are_among_the_first_200_characters(job):
    job.program(
        "import sys, traceback\ntry: 1 / 0\nexcept ZeroDivisionError: traceback.print_exc()\n"
        "for n in range(20): print('step', n, file=sys.stderr)\nsys.exit('no data in the channel')"
    )
    assert "no data in the channel" in job.run("train").failure[:200]


@pytest.mark.contract(6, 8)
@pytest.mark.parametrize("letter", ["x", "数"])
def test_message_longer_than_what_is_kept_still_begins_with_the_exception(job, letter):
    job.program(f"raise ValueError('boom ' + {letter!r} * 1_000_000)")
    job.run("train")
    data = job.failure.read_bytes()
    assert len(data) <= 1024
    assert data.decode("utf-8").startswith("ValueError: boom " + letter * 100)


def test_source_line_of_a_warning_is_not_the_cause():
    stderr = tail("a.py:1: UserWarning: careful", "  warnings.warn('careful')")
    assert cause.find(stderr).text == "a.py:1: UserWarning: careful"


def test_frame_of_an_exception_group_is_not_part_of_the_message():
    stderr = tail(
        "  + Exception Group Traceback (most recent call last):", "  | ExceptionGroup: two (1)",
        "  +-+---------------- 1 ----------------", "    | Traceback (most recent call last):",
        '    |   File "a.py", line 1, in a', "    | ValueError: leaf",
        "    +------------------------------------",
    )  # fmt: skip
    assert cause.find(stderr).text == "ValueError: leaf"


def test_syntax_error_of_a_worker_beats_the_launchers_summary():
    stderr = tail(
        '  File "a.py", line 1', "    f(", "SyntaxError: '(' was never closed", *TRACE,
        "torch.distributed.elastic.multiprocessing.errors.ChildFailedError:", "====", "a.py FAILED",
    )  # fmt: skip
    assert cause.find(stderr).text == "SyntaxError: '(' was never closed"
