"""Jobs of several hosts: each a real `train` with a folder of its own, on a loopback address."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

from byoc_training.processes import descendants
from tests.training.conftest import DEADLINE_SECONDS, Job, Result

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable
    from pathlib import Path

#: No torch: what `train` does is the same, and takes a tenth of the time.
RANK = """
import json, os, signal, sys, time
rank, host = int(os.environ["RANK"]), os.environ["SM_CURRENT_HOST"]
# At once: several ranks write into one pipe.
os.write(1, (json.dumps([rank, int(os.environ["WORLD_SIZE"]), host]) + "\\n").encode())
"""


@dataclass
class Cluster:
    """The hosts of a job by their names."""

    jobs: dict[str, Job]

    def start(self, *names: str) -> dict[str, subprocess.Popen[str]]:
        return {name: self.jobs[name].start("train") for name in names or self.jobs}

    def finish(
        self, running: dict[str, subprocess.Popen[str]], deadline_seconds: float = DEADLINE_SECONDS
    ) -> dict[str, Result]:
        """All results; each host is read at once, so that none waits for its reader."""
        results: dict[str, Result] = {}

        def finish(name: str) -> None:
            results[name] = self.jobs[name].finish(running[name], None, deadline_seconds)

        threads = [threading.Thread(target=finish, args=(name,)) for name in running]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return results


def free_ports() -> int:
    """Two neighbouring ports that nobody has."""
    while True:
        with socket.create_server(("", 0)) as one:
            port: int = one.getsockname()[1]
            try:
                with socket.create_server(("", port + 1)):
                    return port
            except OSError:
                continue


@pytest.fixture
def cluster(tmp_path: Path):
    made: list[Job] = []

    def make(count: int, program: str, **hyperparameters: str) -> Cluster:
        names = [f"127.0.0.{number}" for number in range(1, count + 1)]
        port = str(free_ports())
        jobs = {}
        for name in names:
            job = Job(tmp_path / name)
            job.hyperparameters(byoc_launcher="torchrun", **hyperparameters)
            job.config("resourceconfig", {"current_host": name, "hosts": names[::-1]})
            job.program(RANK + program)
            job.environ |= {"BYOC_MASTER_PORT": port, "BYOC_HOSTS_TIMEOUT_SECONDS": "40"}
            jobs[name] = job
            made.append(job)
        return Cluster(jobs)

    yield make
    for job in made:
        for process in job.running:
            if process.poll() is None:
                process.kill()
            process.communicate()


A, B, C = "127.0.0.1", "127.0.0.2", "127.0.0.3"


@pytest.mark.contract(25, 48, 54)
@pytest.mark.slow
def test_ranks_follow_the_sorted_hosts_and_all_end_with_success(cluster):
    made = cluster(3, "time.sleep(rank)", byoc_processes_per_host="2")
    running = made.start(C, B)
    time.sleep(2)
    results = made.finish(running | made.start(A))
    assert [result.code for result in results.values()] == [0, 0, 0], results
    ranks = {name: sorted(map(json.loads, r.stdout.splitlines())) for name, r in results.items()}
    assert ranks == {
        A: [[0, 6, A], [1, 6, A]],
        B: [[2, 6, B], [3, 6, B]],
        C: [[4, 6, C], [5, 6, C]],
    }
    # The first host is done long before the last one, and stays for it.
    assert results[A].failure is None
    assert "all 3 hosts are there" in results[A].stderr


@pytest.mark.contract(50)
@pytest.mark.slow
@pytest.mark.parametrize("guilty", [A, B])
def test_a_rank_that_fails_ends_all_hosts_and_is_named_by_all(cluster, guilty):
    made = cluster(
        3,
        f"if host == '{guilty}' and int(os.environ['LOCAL_RANK']) == 1:\n"
        "    time.sleep(1); raise ValueError('the data are bad')\n"
        "time.sleep(600)\n",
        byoc_processes_per_host="2",
    )
    began = time.monotonic()
    results = made.finish(made.start())
    assert time.monotonic() - began < 50
    number = {A: 1, B: 3}[guilty]
    reason = f"rank {number} on {guilty}: ValueError: the data are bad"
    assert (results[guilty].failure or "").startswith(reason)
    assert results[guilty].code == 1
    for name in {A, B, C} - {guilty}:
        assert (results[name].failure or "").startswith(
            f"stopped because {guilty} failed: {reason}"
        )
        assert results[name].code == 75


@pytest.mark.slow
@pytest.mark.parametrize(
    ("ending", "code", "text"),
    [
        ("sys.exit(3)", 3, "rank 1 on 127.0.0.2: train.py ended with exit code 3"),
        ("os.kill(os.getpid(), 11)", 139, "rank 1 on 127.0.0.2: train.py was ended by SIGSEGV"),
        # As torch does now and then after an uncaught exception.
        (
            "import atexit; atexit.register(os.abort); raise KeyError('the reason')",
            134,
            "rank 1 on 127.0.0.2: KeyError: 'the reason'",
        ),
        ("os.kill(os.getpid(), 9)", 137, "rank 1 on 127.0.0.2: train.py was killed by SIGKILL"),
    ],
)
def test_the_guilty_host_has_its_ranks_exit_code(cluster, ending, code, text):
    made = cluster(2, f"time.sleep(1)\nif rank == 1: {ending}\ntime.sleep(600)")
    results = made.finish(made.start())
    assert results[B].code == code
    assert (results[B].failure or "").startswith(text)
    assert results[A].code == 75
    assert (results[A].failure or "").startswith(f"stopped because {B} failed: {text}")


@pytest.mark.slow
def test_a_broken_connection_is_not_taken_for_the_reason(cluster):
    made = cluster(
        2,
        "import torch.distributed as dist, torch\n"
        "dist.init_process_group('gloo')\n"
        "dist.barrier()\n"
        "if rank == 1: time.sleep(0.5); raise KeyError('only here')\n"
        "dist.all_reduce(torch.ones(1))\n",
    )
    results = made.finish(made.start())
    reason = "rank 1 on 127.0.0.2: KeyError: 'only here'"
    assert (results[B].failure or "").startswith(reason), results[B]
    assert (results[A].failure or "").startswith(f"stopped because {B} failed: {reason}")
    assert results[A].code == 75


@pytest.mark.slow
@pytest.mark.parametrize("when", ["before the rendezvous", "in an operation"])
def test_a_rank_of_another_host_that_never_comes_is_named_by_both(cluster, when):
    made = cluster(
        2,
        f"if rank == 3 and {when == 'before the rendezvous'}: time.sleep(600)\n"
        "import datetime, torch.distributed as dist, torch\n"
        "dist.init_process_group('gloo', timeout=datetime.timedelta(seconds=8))\n"
        "dist.barrier()\n"
        "if rank == 3: time.sleep(600)\n"
        "dist.all_reduce(torch.ones(1))\n",
        byoc_processes_per_host="2",
    )
    results = made.finish(made.start())
    assert results[B].code != 0
    assert "missing: rank 3" in (results[B].failure or "") or (results[B].failure or "").startswith(
        f"rank 3 on {B} did not come to the operation that others waited for"
    ), results[B]
    assert results[A].code == 75, results[A]
    assert (results[A].failure or "").startswith(f"stopped because {B} failed: rank ")
    assert "rank 3" in (results[A].failure or "")


@pytest.mark.slow
def test_a_host_of_which_no_rank_comes_is_named_by_both(cluster):
    made = cluster(
        2,
        "if rank == 1: time.sleep(600)\n"
        "import datetime, torch.distributed as dist, torch\n"
        "dist.init_process_group('gloo', timeout=datetime.timedelta(seconds=8))\n",
    )
    results = made.finish(made.start())
    reason = f"rank 1 on {B} did not come to the operation that others waited for"
    assert (results[B].failure or "").startswith(reason), results[B]
    assert (results[A].failure or "").startswith(f"stopped because {B} failed: {reason}")
    assert (results[A].code, results[B].code != 0) == (75, True)


@pytest.mark.slow
def test_two_containers_that_claim_to_be_the_same_host_are_told_so(cluster, tmp_path):
    made = cluster(3, "")
    double = Job(tmp_path / "double", environ=dict(made.jobs[B].environ))
    double.hyperparameters(byoc_launcher="torchrun")
    double.config("resourceconfig", {"current_host": B, "hosts": [A, B, C]})
    double.program(RANK)
    made.jobs["double"] = double
    for job in made.jobs.values():
        job.environ["BYOC_HOSTS_TIMEOUT_SECONDS"] = "20"
    results = made.finish(made.start(A, B, "double"))
    # Whoever comes second.
    words = f"{A} refuses this host: there is another {B} already"
    refused = [name for name in (B, "double") if words in (results[name].failure or "")]
    assert len(refused) == 1, results
    assert results[refused[0]].code == 75
    assert f"a connection is refused: there is another {B} already" in results[A].stderr


@pytest.mark.slow
def test_two_containers_that_claim_rank_0_are_told_so(cluster, tmp_path, wait_for):
    """Both listen, on one machine: the second cannot. On two machines the names decide."""
    made = cluster(2, "")
    double = Job(tmp_path / "double", environ=dict(made.jobs[A].environ))
    double.hyperparameters(byoc_launcher="torchrun")
    double.config("resourceconfig", {"current_host": A, "hosts": [A, B]})
    double.program(RANK)
    running = made.start(A)
    port = int(made.jobs[A].environ["BYOC_MASTER_PORT"]) + 1

    def listening() -> bool:
        with contextlib.suppress(OSError), socket.create_connection((A, port), timeout=1):
            return True
        return False

    wait_for(listening)
    made.jobs["double"] = double
    results = made.finish(made.start("double"))
    results |= made.finish(running | made.start(B))
    assert results["double"].code == 69
    assert "cannot listen for the other hosts on port" in (results["double"].failure or "")
    assert [results[name].code for name in (A, B)] == [0, 0], results


@pytest.mark.slow
def test_a_container_that_vanishes_ends_the_others(cluster, wait_for):
    made = cluster(3, "time.sleep(600)")
    running = made.start()
    # Both B and C run: each has said its rank.
    for name in (B, C):
        assert running[name].stdout is not None
        running[name].stdout.readline()
    for pid in [running[C].pid, *descendants(running[C].pid)]:
        os.kill(pid, signal.SIGKILL)
    began = time.monotonic()
    results = made.finish(running)
    assert time.monotonic() - began < 30
    for name in (A, B):
        assert results[name].code == 75
        assert f"{C} ended without a word" in (results[name].failure or "")


@pytest.mark.contract(10)
@pytest.mark.slow
def test_a_stop_of_one_host_is_told_to_every_rank_of_all(cluster):
    made = cluster(
        2,
        "def stop(*_):\n"
        "    time.sleep(1); os.write(1, f'saved {rank}\\n'.encode()); sys.exit(0)\n"
        "signal.signal(signal.SIGTERM, stop)\n"
        "os.write(1, b'ready\\n')\n"
        "time.sleep(600)\n",
        byoc_processes_per_host="2",
    )
    running = made.start()
    for process in running.values():
        assert process.stdout is not None
        while process.stdout.readline() != "ready\n":
            assert process.poll() is None
    time.sleep(1)
    running[B].send_signal(signal.SIGTERM)
    results = made.finish(running)
    assert [result.code for result in results.values()] == [0, 0], results
    said = [line for r in results.values() for line in r.stdout.splitlines() if "saved" in line]
    assert sorted(said) == [f"saved {rank}" for rank in range(4)]
    assert f"SIGTERM received by {B}" in results[A].stderr


@pytest.mark.slow
def test_ranks_that_do_not_listen_to_the_stop_say_so(cluster):
    made = cluster(2, "time.sleep(600)")
    running = made.start()
    for process in running.values():
        assert process.stdout is not None
        process.stdout.readline()
    for process in running.values():
        process.send_signal(signal.SIGTERM)
    results = made.finish(running)
    assert [result.code for result in results.values()] == [143, 143], results
    assert all("ended without handling it" in (r.failure or "") for r in results.values())


@pytest.mark.slow
def test_a_host_that_fails_before_the_start_is_named(cluster):
    made = cluster(2, "")
    (made.jobs[B].root / "code" / "train.py").unlink()
    results = made.finish(made.start())
    assert results[B].code == 66
    assert results[A].code == 75
    assert f"stopped because {B} failed" in (results[A].failure or "")


@pytest.mark.slow
def test_hosts_that_never_come_are_named(cluster):
    made = cluster(3, "")
    for job in made.jobs.values():
        job.environ["BYOC_HOSTS_TIMEOUT_SECONDS"] = "3"
    results = made.finish(made.start(A, C))
    # Whoever gives up first tells the other one.
    for result in results.values():
        assert result.code in (69, 75)
        assert f"{B} could not be reached within 3 s" in (result.failure or "")


@pytest.mark.slow
def test_strangers_on_the_port_are_sent_away(cluster, wait_for):
    made = cluster(2, "")
    port = int(made.jobs[A].environ["BYOC_MASTER_PORT"]) + 1
    running = made.start(A)

    def connected() -> socket.socket | None:
        try:
            return socket.create_connection((A, port), timeout=5)
        except OSError:
            return None

    junk: list[bytes] = [
        b"GET / HTTP/1.1\r\n\r\n",
        b"[1]\n",
        b'{"hello": "127.0.0.2", "job": "another", "hosts": []}\n',
        b'{"event": "failed", "host": "127.0.0.2", "text": "forged"}\n',
        b"x" * 200_000,
    ]
    with contextlib.ExitStack() as strangers:
        for data in junk:
            stranger = strangers.enter_context(wait_for(connected))
            stranger.sendall(data)
        time.sleep(1)
        results = made.finish(running | made.start(B))
    assert [result.code for result in results.values()] == [0, 0], results


@pytest.mark.slow
def test_ranks_end_with_train_even_when_it_is_told_nothing(
    cluster: Callable[..., Any], wait_for: Callable[..., Any]
):
    """One host, so no other one is in it: after the grace time no rank is left."""
    made = cluster(1, "signal.signal(signal.SIGTERM, signal.SIG_IGN)\nprint('r')\ntime.sleep(600)")
    made.jobs[A].environ["BYOC_STOP_GRACE_SECONDS"] = "2"
    running = made.start()
    assert running[A].stdout is not None
    running[A].stdout.readline()
    running[A].stdout.readline()
    ranks = descendants(running[A].pid)
    assert len(ranks) >= 2
    running[A].send_signal(signal.SIGTERM)
    results = made.finish(running)
    assert results[A].code == 143
    assert "did not end after SIGTERM" in (results[A].failure or "")
    # Killed; whoever is their parent then has to hear of it.
    wait_for(lambda: not any(map(alive, ranks)), 5)


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
