from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from byoc_training.tail import Tail

READY = "print('ready', flush=True)\n"
SLEEP = "import time\nwhile True: time.sleep(60)\n"


def started(job, **more: str):
    """A job whose program has said that it is ready."""
    process = job.start("train", **more)
    assert process.stdout.readline() == "ready\n"
    return process


def gone(pid: int) -> bool:
    """Whether a process has ended; one that only waits to be reaped has."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z"
    except FileNotFoundError:
        return True


@pytest.mark.contract(10)
def test_program_that_saves_on_sigterm_and_exits_0_has_succeeded(job):
    job.program(
        "import os, signal, sys\n"
        "def save(*_):\n"
        "    open(os.environ['SM_MODEL_DIR'] + '/model.pth', 'w').write('weights'); sys.exit(0)\n"
        "signal.signal(signal.SIGTERM, save)\n" + READY + SLEEP
    )
    process = started(job)
    process.send_signal(signal.SIGTERM)
    result = job.finish(process)
    assert (result.code, result.failure) == (0, None)
    assert (job.root / "model/model.pth").read_text() == "weights"
    assert "SIGTERM received" in result.stderr


@pytest.mark.contract(11)
def test_program_that_does_not_handle_sigterm_ends_at_once_and_quietly(job):
    job.program(READY + SLEEP)
    process = started(job)
    begun = time.monotonic()
    process.send_signal(signal.SIGTERM)
    result = job.finish(process, begun)
    assert result.code == 143
    assert result.seconds < 10
    assert result.failure.startswith("stopped by SIGTERM")
    assert "Traceback" not in result.stderr


@pytest.mark.contract(11)
def test_sigterm_while_python_starts_does_not_wait_for_it(job):
    job.program(READY + "import sys\nfor _ in range(10**9): sum(range(1000))\n")
    process = started(job)
    process.send_signal(signal.SIGTERM)
    result = job.finish(process, time.monotonic())
    assert result.code == 143
    assert result.seconds < 10


def test_second_sigterm_changes_nothing(job):
    job.program(
        "import signal, sys\nseen = []\n"
        "signal.signal(signal.SIGTERM, lambda *_: (seen.append(1), print('told', flush=True)))\n"
        + READY
        + "import os\nopen(sys.argv[2]).read()\nprint(len(seen))\n"
    )
    fifo = job.root / "gate"
    os.mkfifo(fifo)
    job.hyperparameters(gate=str(fifo))
    process = started(job)
    process.send_signal(signal.SIGTERM)
    assert process.stdout.readline() == "told\n"
    process.send_signal(signal.SIGTERM)
    process.send_signal(signal.SIGTERM)
    fifo.write_text("")
    result = job.finish(process)
    assert (result.code, result.stdout) == (0, "1\n")


@pytest.mark.contract(10)
def test_program_that_ignores_sigterm_is_killed_with_its_group_after_the_grace_time(job, wait_for):
    job.program(
        "import signal, subprocess, sys\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])\n"
        "print('ready', flush=True); print(child.pid, flush=True)\n" + SLEEP
    )
    process = started(job, BYOC_STOP_GRACE_SECONDS="0.5")
    child = int(process.stdout.readline())
    begun = time.monotonic()
    process.send_signal(signal.SIGTERM)
    result = job.finish(process, begun)
    assert result.code == 143
    assert 0.5 <= result.seconds < 10
    assert "did not end after SIGTERM in the time it had and was killed" in result.failure
    assert wait_for(lambda: gone(child))


def test_data_loading_workers_live_until_the_program_has_saved(job):
    worker = "import sys\nfor line in sys.stdin: print(line.strip() + ' loaded', flush=True)"
    job.program(
        "import os, signal, subprocess, sys\n"
        f"worker = subprocess.Popen([sys.executable, '-c', {worker!r}], stdin=-1, stdout=-1,"
        " text=True, bufsize=1)\n"
        "def ask():\n"
        "    print('batch', file=worker.stdin); return worker.stdout.readline()\n"
        "def save(*_):\n"
        "    print(ask().strip(), flush=True); worker.stdin.close(); worker.wait(); sys.exit(0)\n"
        "ask()\nsignal.signal(signal.SIGTERM, save)\n" + READY + SLEEP
    )
    process = started(job)
    process.send_signal(signal.SIGTERM)
    result = job.finish(process)
    assert (result.code, result.stdout) == (0, "batch loaded\n")


def test_child_of_an_ended_wrapper_has_the_rest_of_the_grace_time(job):
    inner = (
        "import signal, sys, time\n"
        "def save(*_):\n    time.sleep(0.5); print('saved', flush=True); sys.exit(0)\n"
        "signal.signal(signal.SIGTERM, save)\nprint('ready', flush=True)\n" + SLEEP
    )
    job.program(f"import subprocess, sys\nsubprocess.run([sys.executable, '-c', {inner!r}])\n")
    process = started(job)
    process.send_signal(signal.SIGTERM)
    assert job.finish(process).stdout == "saved\n"


def test_children_of_a_shell_script_are_told(job):
    job.program(
        f"{sys.executable} -c 'import signal, sys, time\n"
        'signal.signal(signal.SIGTERM, lambda *_: (print("saved", flush=True), sys.exit(0)))\n'
        'print("ready", flush=True)\n'
        "time.sleep(600)'\n",
        "run.sh",
    )
    process = started(job)
    process.send_signal(signal.SIGTERM)
    result = job.finish(process)
    assert result.stdout == "saved\n"


def test_interrupt_from_a_terminal_stops_the_program(job):
    job.program(READY + SLEEP)
    process = started(job)
    process.send_signal(signal.SIGINT)
    assert job.finish(process).code == 130


@pytest.mark.contract(11)
def test_sigterm_during_the_download_of_the_source_ends_at_once(job, bucket, aws, wait_for):
    bucket.gate = threading.Event()
    job.hyperparameters(
        sagemaker_program='"train.py"', sagemaker_submit_directory='"s3://b/source.tar.gz"'
    )
    process = job.start("train", **aws)
    wait_for(lambda: bucket.requests)
    begun = time.monotonic()
    process.send_signal(signal.SIGTERM)
    result = job.finish(process, begun)
    assert result.code == 143
    assert result.seconds < 5
    assert "before the program was started" in result.failure
    assert "Traceback" not in result.stderr
    assert sorted(path.name for path in job.root.iterdir()) == ["input", "model", "output"]


@pytest.mark.contract(11)
def test_sigterm_during_pip_ends_at_once(job, bucket, wait_for):
    bucket.gate = threading.Event()
    job.program("print('never')")
    (job.root / "code/requirements.txt").write_text("byoc-no-such-package==1\n")
    process = job.start(
        "train", PIP_INDEX_URL=f"{bucket.url}/simple", NO_PROXY="127.0.0.1", no_proxy="127.0.0.1",
        PIP_CONFIG_FILE=os.devnull,
    )  # fmt: skip
    wait_for(lambda: bucket.requests)
    begun = time.monotonic()
    process.send_signal(signal.SIGTERM)
    result = job.finish(process, begun)
    assert result.code == 143
    assert "never" not in result.stdout
    assert result.seconds < 10
    assert "before the program was started" in result.failure


@pytest.mark.parametrize("own_session", [False, True])
def test_process_left_behind_does_not_hold_the_job(job, wait_for, own_session):
    job.program(
        "import subprocess, sys\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'],"
        f" stdout=subprocess.DEVNULL, start_new_session={own_session})\nprint(child.pid)\n"
    )
    result = job.run("train")
    child = int(result.stdout)
    try:
        assert result.code == 0
        assert result.seconds < 10
        if not own_session:
            assert wait_for(lambda: gone(child))
    finally:
        if own_session:
            os.kill(child, signal.SIGKILL)


def test_error_output_passes_byte_by_byte_and_whole(job):
    data = bytes(range(256)) * 4096 * 8
    job.program(
        "import os\ndata = bytes(range(256)) * 4096 * 8\n"
        "while data: data = data[os.write(2, data):]\n"
    )
    process = subprocess.run(
        [sys.executable, "-m", "byoc_training.main"],
        env=job.variables(), capture_output=True, timeout=60, check=True,
    )  # fmt: skip
    assert data in process.stderr


def test_as_pid_1_orphans_are_reaped_and_sigterm_is_handed_on(job, wait_for):
    probe = subprocess.run(
        ["unshare", "--pid", "--fork", "--mount-proc", "true"], capture_output=True, check=False
    )
    if probe.returncode:
        pytest.skip("no right to make a process namespace here")
    job.program(
        "import json, os, signal, sys, time\n"
        "read, write = os.pipe()\n"
        "if os.fork() == 0:\n"
        "    pid = os.fork()\n"
        "    if pid: os.write(write, str(pid).encode()); os._exit(0)\n"
        "    time.sleep(0.2); os._exit(0)\n"
        "os.wait(); orphan = int(os.read(read, 20))\n"
        "deadline = time.monotonic() + 20\n"
        "while os.path.exists(f'/proc/{orphan}') and time.monotonic() < deadline:"
        " time.sleep(0.01)\n"
        "print(json.dumps([os.getppid(), os.path.exists(f'/proc/{orphan}')]), flush=True)\n"
        "signal.signal(signal.SIGTERM, lambda *_: sys.exit(5))\nprint('ready', flush=True)\n"
        + SLEEP
    )
    process = subprocess.Popen(
        ["unshare", "--pid", "--fork", "--mount-proc", sys.executable, "-m", "byoc_training.main"],
        env=job.variables(), stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    job.running.append(process)
    assert process.stdout is not None
    assert json.loads(process.stdout.readline()) == [1, False]
    assert process.stdout.readline() == "ready\n"
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    os.kill(int(children[0]), signal.SIGTERM)
    assert process.wait(30) == 5


@pytest.mark.contract(10)
def test_writers_that_never_pause_do_not_hold_off_the_kill(job):
    job.program(
        "import os, signal\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "os.fork(); os.fork()\nos.write(1, b'ready\\n')\n"
        "while True: os.write(2, b'x' * 65535 + b'\\n')\n"
    )
    process = job.start("train", BYOC_STOP_GRACE_SECONDS="0.5")
    seen = threading.Event()

    def drain() -> None:
        while process.stderr.buffer.read1(1 << 20):
            seen.set()

    reader = threading.Thread(target=drain)
    reader.start()
    assert process.stdout.readline() == "ready\n"
    assert seen.wait(30)
    begun = time.monotonic()
    process.send_signal(signal.SIGTERM)
    assert process.wait(30) == 143
    assert time.monotonic() - begun < 10
    reader.join(30)


def test_lines_of_every_length_are_kept_at_the_same_cost():
    def seconds(length: int) -> float:
        kept, data = Tail(), (b"x" * length + b"\n") * (1 + 65536 // (length + 1))
        begun = time.process_time()
        for _ in range(4):
            kept.add(data)
        assert kept.content().endswith(b"x" * min(length, 4096) + b"\n")
        return time.process_time() - begun

    # Shortened lines that were looked at again and again made a writer of them hundreds of times
    # slower, and late to be told to stop.
    assert seconds(4096) < 10 * seconds(50)
    assert seconds(65535) < 10 * seconds(50)


def test_under_nohup_the_end_of_the_terminal_changes_nothing(job):
    job.program("import sys\nprint('ready', flush=True)\nopen(sys.argv[2]).read()\nprint('done')")
    gate = job.root / "gate"
    os.mkfifo(gate)
    job.hyperparameters(gate=str(gate))
    process = subprocess.Popen(
        ["nohup", sys.executable, "-m", "byoc_training.main"],
        env=job.variables(), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    job.running.append(process)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGHUP)
    gate.write_text("")
    assert (process.communicate(timeout=30)[0], process.returncode) == ("done\n", 0)
