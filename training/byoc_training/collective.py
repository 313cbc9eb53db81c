"""Who is missing when ranks wait for each other in vain.

A collective operation needs all ranks. When one does not come, the others say after the process
group's time-out that they waited, and of the missing one there is nothing. So it is found by who
does not complain; where torch itself names it, by that.

torch's own words, from 2.0 to 2.12, of gloo, of NCCL's watchdog and its flight recorder
(ProcessGroupNCCL.cpp, TraceUtils.h, ProcessGroupGloo.cpp), and of the store (TCPStore.cpp).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

# Not compiled: that would cost milliseconds of every start, and few jobs fail.
_NCCL = r"\[Rank (?P<rank>\d+)\] +Watchdog caught collective operation timeout: .*"
_BARRIER = r"\bRanks? (?P<late>\d+(?:, ?\d+)*) failed to pass monitoredBarrier in \d+ ms"
#: Each process waits for the address of every other one under a key that ends in its rank.
_STORE = r"wait timeout after \d+ms, keys: (?:\S*//\w+//\d+/(?P<late>\d+)\b)?"
_NCCL_ID = (
    r"\[(?P<rank>\d+)\] is setting up NCCL communicator and retrieving ncclUniqueId from "
    r"\[(?P<late>\d+)\].*(?:wait timeout|Socket Timeout|timed out)"
)
_TIMEOUTS = (
    _NCCL,
    _BARRIER,
    _STORE,
    _NCCL_ID,
    r"Timed out waiting \d+ms for (?:recv|send) operation",
    r"Timed out after \S+ seconds waiting for clients\. \d+/\d+ clients joined",
    r"client socket has timed out after \S+ while trying to connect",
    r"Error: Socket Timeout$",
)
#: TORCH_NCCL_DESYNC_DEBUG's report.
_DESYNC = (
    r"ranks \[(?P<late>[\d, ]+)\] are the lagging ranks that caused this timeout",
    r"\[(?P<late>[\d, ]+)\] finished collective #\d+, but didn't join collective",
)
#: The flight recorder's word of a rank that has heard of another one's time-out.
_HEARD = (
    r"Rank (?P<rank>\d+)\] +Received a dump signal due to a collective timeout.*"
    r"Last enqueued NCCL work: (?P<begun>-?\d+), last completed NCCL work: (?P<ended>-?\d+)"
)
#: A rank that speaks so was in an operation with another one.
_WAITED = (
    r"(?i)Connection (?:closed|reset) by peer|Rank \d+ successfully reached monitoredBarrier"
    r"|NCCL communicator was aborted|remote process exited or there was a network error"
)
_LONGEST = 400


@dataclass(frozen=True)
class Wait:
    """What a host's error output tells of ranks that waited for others.

    Attributes:
        text: The first time-out, in torch's words; empty where there is none.
        waiting: Ranks that were in an operation: they timed out, or lost a connection.
        late: Ranks that torch names as missing, or that say that they were in no operation.
    """

    text: str
    waiting: frozenset[int]
    late: frozenset[int]

    def missing(self, ranks: Iterable[int]) -> tuple[int, ...]:
        """The ranks that were waited for: those named, else those that did not complain.

        Args:
            ranks: This host's.

        Returns:
            In their order; none where all of this host's waited, or where no output is a rank's.
        """
        if not self.text:
            return ()
        if self.late:
            return tuple(sorted(self.late))
        return tuple(sorted(set(ranks) - self.waiting)) if self.waiting else ()


def timed_out(text: str) -> bool:
    """Whether a reason is that of a rank that waited in vain."""
    return any(re.search(pattern, text) for pattern in _TIMEOUTS)


def read(lines: Iterable[tuple[int | None, str]]) -> Wait:
    """What an error output tells.

    Args:
        lines: Each with the rank that it is of, where its beginning says so.
    """
    text = ""
    waiting: set[int] = set()
    late: set[int] = set()
    for prefix, line in lines:
        rank = prefix
        for pattern in (*_TIMEOUTS, *_DESYNC):
            found = re.search(pattern, line)
            if not found:
                continue
            fields = found.groupdict()
            rank = int(fields["rank"]) if fields.get("rank") else prefix
            late.update(map(int, re.findall(r"\d+", fields.get("late") or "")))
            text = text or found[0].strip()[:_LONGEST]
            if rank is not None:
                waiting.add(rank)
        heard = re.search(_HEARD, line)
        if heard:
            (late if heard["begun"] == heard["ended"] else waiting).add(int(heard["rank"]))
        elif rank is not None and re.search(_WAITED, line):
            waiting.add(rank)
    return Wait(text, frozenset(waiting), frozenset(late - waiting))


def named(ranks: Sequence[int]) -> str:
    """Ranks for people: ``rank 3``, ``ranks 0, 2-5``."""
    parts: list[str] = []
    begin = end = -2
    for rank in sorted(ranks):
        if rank == end + 1:
            end = rank
            parts[-1] = f"{begin}-{end}"
        else:
            begin = end = rank
            parts.append(str(rank))
    return f"rank{'s' * (len(ranks) != 1)} {', '.join(parts)}"


def told(wait: Wait, ranks: Sequence[int]) -> str:
    """One line on who is missing.

    Args:
        wait: Of this host's error output.
        ranks: This host's; none where it is not known which it has.
    """
    missing = wait.missing(ranks)
    waited = named(sorted(wait.waiting)) if wait.waiting else "the others"
    if missing:
        likely = "" if wait.late else "most likely "
        return f"{likely}missing: {named(missing)}, which did not come to where {waited} waited"
    if ranks and wait.waiting:
        return (
            f"{waited}, all of this host's, waited: for one of another host, or each in another "
            "operation"
        )
    return ""


def absence(ranks: Sequence[int], host: str, reason: str) -> str:
    """The reason of a host whose ranks were waited for by another one's.

    Args:
        ranks: Those that gave no sign of waiting themselves.
        host: Theirs.
        reason: The other host's.
    """
    return (
        f"{named(ranks)} on {host} did not come to the operation that others waited for, and gave "
        f"no sign until stopped: {reason.splitlines()[0] if reason else 'a time-out'}"
    )
