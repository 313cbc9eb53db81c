"""How a job's end is told: the failure file, the last log line, the exit code."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import signal
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from byoc_training import cause, collective, explain, torchrun
from byoc_training.errors import OutOfMemoryError, ProgramError, TrainingError
from byoc_training.peers import blamed

if TYPE_CHECKING:
    from byoc_training.console import Console
    from byoc_training.supervise import Outcome

#: FailureReason holds 1,024 characters. Counting bytes as well keeps text of any script whole.
LONGEST_FAILURE_BYTES = 1024
_LONGEST_CAUSE_BYTES = 640
_SHOWN_LINES = 30
_SIGNAL_HINTS: dict[int, str] = {
    signal.SIGSEGV: "; a library crashed: python -X faulthandler shows where",
    signal.SIGABRT: "; a library gave up, most likely with a line in the log",
    signal.SIGBUS: "; most likely no room in /dev/shm, or a mapped file that became shorter",
    signal.SIGILL: "; a library has instructions that this processor lacks",
    signal.SIGXCPU: "; a limit of processor time (ulimit -t) was reached",
    signal.SIGXFSZ: "; a limit of file size (ulimit -f) was reached",
}


def check(outcome: Outcome, label: str, host: str = "", ranks: tuple[int, ...] = ()) -> None:
    """Do nothing when the program succeeded.

    Args:
        outcome: How it ended.
        label: Its name.
        host: This host, when it was torchrun that ended, for one of its ranks.
        ranks: Those of this host, in that case.

    Raises:
        ProgramError: It failed; says why.
        PeerError: It was stopped because another host failed.
    """
    if outcome.peer_failure is not None:
        if outcome.absent:
            text = collective.absence(outcome.absent, host, outcome.peer_failure.text)
            details = _ending(outcome, label, None)
            raise ProgramError(text, outcome.code or 1, details, outcome.absent)
        try:
            _check(outcome, label, host, ranks)
        except ProgramError as error:
            if error.missing:
                raise
        raise blamed(outcome.peer_failure)
    _check(outcome, label, host, ranks)


def _check(outcome: Outcome, label: str, host: str, ranks: tuple[int, ...]) -> None:
    if outcome.code == 0:
        return
    rank = torchrun.find_failure(outcome.stderr) if host else None
    if rank is not None:
        # torchrun ends with 1 whatever happened.
        words = torchrun.words_of_ranks(outcome.stderr)
        outcome = dataclasses.replace(outcome, code=rank.code, signal=rank.signal, stderr=words)
    found = cause.find(outcome.stderr, rank.rank if rank else None)
    number = rank.rank if rank else found.rank
    all_lines = cause.clean_lines(outcome.stderr)
    lines = [text for whose, text in all_lines if text.strip() and number in (None, whose)]
    details = (*_ending(outcome, label, number), *lines[-_SHOWN_LINES:])
    where = f"rank {number} on {host}: " if host and number is not None else ""
    if outcome.stopped_by is not None and (outcome.killed or outcome.signal):
        text, code = _stopped(outcome, label)
        raise ProgramError(where + text, code, details[:1])
    if outcome.code == 137:
        raise OutOfMemoryError(where + _killed_text(outcome, label), 137, details)
    wait = collective.read(all_lines)
    in_vain = bool(wait.text) and (not found.raised or _vain(found.text))
    missing: tuple[int, ...] = ()
    if in_vain:
        # Its first line: before they are in a group, ranks write through each other. And a lost
        # connection tells less than another rank's time-out.
        first = found.text.split("\n", 1)[0]
        text = first if found.raised and collective.timed_out(first) else wait.text
        text = f"{text}\n{collective.told(wait, ranks)}".strip()
        missing = tuple(number for number in wait.missing(ranks) if number in ranks)
    elif rank and rank.signal and not (found.raised and rank.signal == signal.SIGABRT):
        # An uncaught exception may end in SIGABRT: torch's threads still run when the interpreter
        # is taken down. Any other signal is a reason of its own.
        text = _silent(outcome, label)
    else:
        text = explain.explained(found.text, lines) or _silent(outcome, label)
    if outcome.stopped_by is not None:
        text = f"after {signal.Signals(outcome.stopped_by).name}: {text}"
    if outcome.out_of_memory:
        text += f"\nThe kernel killed a process for memory (limit {outcome.memory_limit})"
    raise ProgramError(where + text, outcome.code, details, missing, waited=in_vain)


def _vain(text: str) -> bool:
    return collective.timed_out(text) or cause.secondary(text)


def _killed_text(outcome: Outcome, label: str) -> str:
    advice = "use a larger instance, a smaller batch or fewer data-loading workers"
    if outcome.out_of_memory:
        return (
            f"out of memory: the kernel killed {label} (memory limit {outcome.memory_limit}); "
            + advice
        )
    return (
        f"{label} was killed by SIGKILL, most likely out of memory (limit "
        f"{outcome.memory_limit}); {advice}"
    )


def _stopped(outcome: Outcome, label: str) -> tuple[str, int]:
    number = outcome.stopped_by or signal.SIGTERM
    name = signal.Signals(number).name
    if outcome.killed:
        return f"{label} did not end after {name} in the time it had and was killed", 128 + number
    return f"stopped by {name}: {label} ended without handling it", outcome.code


def _silent(outcome: Outcome, label: str) -> str:
    if outcome.signal:
        hint = _SIGNAL_HINTS.get(outcome.signal, "")
        return f"{label} was ended by {_signal_name(outcome.signal)}{hint}"
    return f"{label} ended with exit code {outcome.code} and no error output"


def _ending(outcome: Outcome, label: str, rank: int | None) -> tuple[str, ...]:
    where = "" if rank is None else f" (rank {rank})"
    how = f"by {_signal_name(outcome.signal)}," if outcome.signal else "with"
    return (f"{label}{where} ended {how} exit code {outcome.code} after {outcome.seconds:.1f} s",)


def _signal_name(number: int) -> str:
    try:
        return f"{signal.Signals(number).name} (signal {number})"
    except ValueError:
        return f"signal {number}"


def failure_text(error: TrainingError) -> str:
    """The failure file's text: the cause, how the program ended, and as many last lines as fit."""
    head = cut(str(error).strip() or type(error).__name__, _LONGEST_CAUSE_BYTES)
    details = error.details if isinstance(error, ProgramError) else ()
    if not details:
        return cut(str(error), LONGEST_FAILURE_BYTES)
    text = f"{head}\n{cut(details[0], 200)}"
    lines: list[str] = []
    room = LONGEST_FAILURE_BYTES - len(text.encode()) - len("\nlast lines:")
    for line in reversed(details[1:]):
        room -= len(line.encode("utf-8", "replace")) + 1
        if room < 0:
            break
        lines.insert(0, line)
    # Nothing is gained when the only line is the cause once more.
    if lines and lines != [head]:
        text += "\nlast lines:\n" + "\n".join(lines)
    return cut(text, LONGEST_FAILURE_BYTES)


def cut(text: str, size_bytes: int) -> str:
    """The longest beginning that is valid UTF-8 within a number of bytes."""
    return text.encode("utf-8", "replace")[:size_bytes].decode("utf-8", "ignore")


def write_failure(path: Path, text: str, console: Console) -> None:
    """Write the failure file unless it has text: whoever wrote first knows best.

    Never raises: the exit code matters more than the text.
    """
    try:
        if path.is_file() and path.stat().st_size > 0:
            console.info(f"{path} has a text already; leaving it")
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, name = tempfile.mkstemp(prefix=".failure-", dir=path.parent)
        try:
            with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            Path(name).chmod(0o644)
            Path(name).replace(path)
        except BaseException:
            with contextlib.suppress(OSError):
                Path(name).unlink()
            raise
    except OSError as error:
        console.error(f"cannot write {path}: {error.strerror or error}")
