"""``byoc stop``: end a job early."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from byoc import jobs, kinds
from byoc.commands.options import aside, aws_command
from byoc.errors import FailedError

if TYPE_CHECKING:
    from byoc.commands.options import Call

STOPPABLE = [kind.name for kind in kinds.JOBS]


@click.command("stop")
@click.argument("name")
@click.option("--kind", type=click.Choice(STOPPABLE), help="Where a name has more than one.")
@click.option("--wait", "-w", is_flag=True, help="Until it has ended.")
@aws_command()
def command(call: Call, *, name: str, kind: str | None, wait: bool) -> None:
    """Stop a job: it gets SIGTERM and 120 s, and what it has written is kept.

    \b
      byoc stop mnist-20261127-101500-123 --wait
    """  # noqa: D301 - click's mark
    among = [kinds.KINDS[kind]] if kind else kinds.JOBS
    if call.dry_run and kind is None:
        among = [kinds.TRAINING]
    found, described = kinds.find(call.aws, name, among, aside=aside)
    status = str(described.get(found.status or "", ""))
    if status in kinds.ENDED:
        call.console.say(f"{found.words} {name} has ended already: {status}")
    else:
        kinds.stop(call.aws, found, name)
        if call.dry_run:
            return
        call.console.say(f"{found.words} {name} is being stopped")
        if wait:
            try:
                jobs.wait(call.aws, found, name, logs=False, report=call.console)
            except FailedError as error:  # stopped, as asked; it may have failed before
                if "was stopped" not in str(error):
                    raise
        described = kinds.describe(call.aws, found, name)
    if call.console.machine:
        call.console.result(described)
