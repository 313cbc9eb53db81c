"""Ranks that wait for each other in vain: real ones over gloo, and NCCL's words as recorded."""

from __future__ import annotations

import os

import pytest

from byoc_training import cause, collective

HANG = """
import datetime, os, time
rank = int(os.environ["RANK"])
if {before} and rank in {missing}: time.sleep(600)
import torch, torch.distributed as dist
dist.init_process_group("gloo", timeout=datetime.timedelta(seconds=20))
dist.barrier()
if rank in {missing}: time.sleep(600)
{operation}
"""
SUM = "dist.all_reduce(torch.ones(1))"
#: Rank 0 leads it; were its time-out as long as the others', chance would decide who speaks first.
BARRIER = """
long = datetime.timedelta(seconds=3 if rank == 0 else 15)
dist.monitored_barrier(timeout=long, wait_all_ranks=True)
"""
WORK = "WorkNCCL(SeqNum=7, OpType=ALLREDUCE, NumelIn=1, NumelOut=1, Timeout(ms)=600000)"


def watchdog(
    rank: int, prefix: str = "[rank{0}]:[E127 07:33:01.418116038 ProcessGroupNCCL.cpp:683] "
) -> str:
    begin = prefix.format(rank)
    return (
        f"{begin}[Rank {rank}] Watchdog caught collective operation timeout: {WORK} ran for 600081 "
        "milliseconds before timing out."
    )


def heard(rank: int, begun: int, ended: int) -> str:
    return (
        f"[rank{rank}]:[E127 07:33:01.418116038 ProcessGroupNCCL.cpp:1682] [PG ID 0 PG GUID "
        f"0(default_pg) Rank {rank}] Received a dump signal due to a collective timeout from  rank "
        f"0 and we will try our best to dump the debug info. Last enqueued NCCL work: {begun}, "
        f"last completed NCCL work: {ended}.This is most likely caused by incorrect usages"
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("count", "missing", "before", "operation", "words"),
    [
        (2, [1], False, SUM, "most likely missing: rank 1, which did not come to where rank 0"),
        (4, [2], False, SUM, "most likely missing: rank 2, which did not come to where ranks 0-1"),
        (2, [0], True, SUM, "missing: rank 0, which did not come to where the others waited"),
        (4, [3], True, SUM, "missing: rank 3, which did not come to where the others waited"),
        (4, [1, 3], False, BARRIER, "missing: ranks 1, 3, which did not come"),
    ],
)  # fmt: skip
def test_the_rank_that_never_comes_is_named(job, count, missing, before, operation, words):
    job.hyperparameters(byoc_launcher="torchrun", byoc_processes_per_host=str(count))
    job.program(HANG.format(missing=missing, before=before, operation=operation))
    result = job.run("train")
    assert result.code == 1
    first, second, *_ = result.failure.split("\n")
    # The exception's own message first.
    assert collective.timed_out(first), first
    assert second.startswith(words), second


def test_a_rank_that_nccl_s_watchdog_ended_is_not_just_aborted(job):
    """The process does what torch's does: writes its lines, and aborts."""
    job.hyperparameters(byoc_launcher="torchrun", byoc_processes_per_host="3")
    lines = {0: watchdog(0), 1: heard(1, 6, 6), 2: watchdog(2)}
    job.program(
        "import os, time\n"
        f"lines = {lines!r}\n"
        "rank = int(os.environ['RANK'])\n"
        "os.write(2, (lines[rank] + '\\n').encode())\n"
        "time.sleep(1 if rank != 1 else 600)\n"
        "os.abort()\n"
    )
    result = job.run("train")
    assert result.code == 134
    first, second, *_ = result.failure.split("\n")
    assert f"Watchdog caught collective operation timeout: {WORK} ran for 600081" in first
    assert second == "missing: rank 1, which did not come to where ranks 0, 2 waited"


def read(*lines: str) -> collective.Wait:
    return collective.read(cause.clean_lines("\n".join(lines).encode()))


@pytest.mark.parametrize(
    ("lines", "waiting", "missing"),
    [
        # Nobody names it: it is who does not complain.
        ([watchdog(0), watchdog(2), watchdog(3)], {0, 2, 3}, (1,)),
        # As torch 2.0 and 2.1 begin their lines.
        ([watchdog(0, "[E ProcessGroupNCCL.cpp:475] ")], {0}, (1, 2, 3)),
        # It says itself that it is in no operation; rank 3 has heard of it, and is in one.
        ([watchdog(0), watchdog(2), heard(1, 6, 6), heard(3, 7, 6)], {0, 2, 3}, (1,)),
        # TORCH_NCCL_DESYNC_DEBUG's reports.
        ([watchdog(0), ("\t - To our best knowledge, ranks [1, 3] are the lagging ranks that "
          "caused this timeout. They never joined any collectives")], {0}, (1, 3)),
        ([watchdog(0), ("\t     [2] finished collective #6, but didn't join collective #7 (count "
          "from 1)")], {0}, (2,)),
        ([("[rank3]: torch.distributed.DistBackendError: [3] is setting up NCCL communicator and "
          "retrieving ncclUniqueId from [0] via c10d key-value store by key '0', but store->"
          "get('0') got error: wait timeout after 600000ms, keys: /default_pg/0//cuda//0")],
         {3}, (0,)),
        ([("torch.distributed.DistStoreError: wait timeout after 5000ms, keys: "
          "/default_pg/0//cpu//0/12")], set(), (12,)),
        ([("[rank0]: RuntimeError: [../gloo/transport/tcp/unbound_buffer.cc:81] Timed out waiting "
          "1800000ms for recv operation to complete"),
          ("[rank2]: RuntimeError: [../gloo/transport/tcp/pair.cc:525] Connection closed by peer "
          "[127.0.0.1]:3333")], {0, 2}, (1, 3)),
        (["[rank0]: RuntimeError: [Rank 0]: Ranks 1, 3 failed to pass monitoredBarrier in 5000 ms",
          "[rank2]: RuntimeError: Rank 2 successfully reached monitoredBarrier, but received errors"
          ], {0, 2}, (1, 3)),
        # How many there are is all that is known.
        ([("torch.distributed.DistStoreError: Timed out after 61 seconds waiting for clients. 3/4 "
          "clients joined.")], set(), ()),
        (["RuntimeError: Socket Timeout"], set(), ()),
        # A lost connection is no time-out.
        (["[rank2]: RuntimeError: [../gloo/transport/tcp/pair.cc:525] Connection closed by peer"],
         {2}, ()),
        (["[rank0]: ValueError: boom", "[rank1]: TimeoutError: timed out"], set(), ()),
    ],
)  # fmt: skip
def test_who_is_missing(lines, waiting, missing):
    wait = read(*lines)
    assert wait.waiting == waiting
    assert wait.missing(range(4)) == missing


def test_what_is_not_known_is_not_said():
    everyone = read(watchdog(0), watchdog(1))
    assert collective.told(everyone, (0, 1)) == (
        "ranks 0-1, all of this host's, waited: for one of another host, or each in another "
        "operation"
    )
    # Which ranks there are is only known of torchrun's; whose the line is, not before the start.
    assert collective.told(everyone, ()) == ""
    assert collective.told(read("RuntimeError: Socket Timeout"), (0, 1)) == ""


@pytest.mark.parametrize(
    ("ranks", "text"),
    [([3], "rank 3"), ([1, 0], "ranks 0-1"), ([0, 2, 3, 4, 9], "ranks 0, 2-4, 9")],
)
def test_ranks_in_words(ranks, text):
    assert collective.named(ranks) == text


def test_the_installed_torch_s_words_are_those_that_are_looked_for():
    import torch

    folder = os.path.join(os.path.dirname(torch.__file__), "lib")  # noqa: PTH118, PTH120
    wanted = {
        "libtorch_cpu.so": (
            b"Timed out waiting ",
            b"wait timeout after {}ms, keys: {}",
            b"Timed out after {} seconds waiting for clients. {}/{} clients joined.",
            b" failed to pass monitoredBarrier in ",
            b"Connection closed by peer ",
        ),
        "libtorch_cuda.so": (
            b"Watchdog caught collective operation timeout: ",
            b"Received a dump signal due to a collective timeout from ",
            b"] are the lagging ranks that caused this timeout. They never joined any collectives",
            b", but didn't join collective #",
        ),
    }
    for name, words in wanted.items():
        path = os.path.join(folder, name)  # noqa: PTH118
        if not os.path.exists(path):  # noqa: PTH110
            pytest.skip("a torch without CUDA")
        found = dict.fromkeys(words, False)
        keep = b""
        with open(path, "rb") as file:  # noqa: PTH123
            while block := file.read(1 << 24):
                for word in words:
                    found[word] = found[word] or word in keep + block
                keep = block[-200:]
        assert all(found.values()), found
