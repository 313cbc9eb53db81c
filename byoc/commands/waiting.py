"""What follows when a job has been started: its end, or how to see it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from byoc import jobs
from byoc.errors import INTERRUPTED

if TYPE_CHECKING:
    from byoc.commands.options import Call
    from byoc.kinds import Kind


def finish(
    call: Call, kind: Kind, name: str, result: str, *, wait: bool, logs: bool = True
) -> None:
    """Wait for a job and say what it leaves, or say how to follow it.

    Args:
        call: Of the command.
        kind: Of the job.
        name: Of the job.
        result: The line at the end; may be empty.
        wait: Whether to wait.
        logs: Whether its log is shown meanwhile.

    Raises:
        ByocError: The job failed, or AWS refuses.
    """
    if call.dry_run:
        return
    console = call.console
    console.say(f"{kind.words} {name}")
    if not wait:
        console.say(f"its log: {kind.command('logs', name)} --follow")
        if console.machine:
            console.result({kind.member: name})
        return
    ended = wait_for(call, kind, name, logs=logs)
    if console.machine:
        console.result(ended)
    elif result:
        console.say(result)


def wait_for(call: Call, kind: Kind, name: str, *, logs: bool) -> dict[str, Any]:
    """Wait for a job; Ctrl-C ends the wait alone, and says so."""
    try:
        return jobs.wait(call.aws, kind, name, logs=logs, report=call.console)
    except KeyboardInterrupt:
        follow, stop = kind.command("logs", name), kind.command("stop", name)
        call.console.say(f"\nthe job goes on: {follow} --follow; end it: {stop}")
        raise SystemExit(INTERRUPTED) from None
