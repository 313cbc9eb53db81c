"""``byoc logs``: what the containers of a job or an endpoint wrote."""

from __future__ import annotations

import time
from collections import deque
from typing import TYPE_CHECKING

import click

from byoc import jobs, kinds
from byoc.commands.options import aside, aws_command
from byoc.errors import INTERRUPTED
from byoc.logs import Logs

if TYPE_CHECKING:
    from collections.abc import Iterable

    from byoc.commands.options import Call
    from byoc.logs import Line

WITH_LOGS = [kind.name for kind in kinds.KINDS.values() if kind.log_group]


@click.command("logs")
@click.argument("name")
@click.option("--follow", "-f", is_flag=True, help="Go on until the job ends, or Ctrl-C.")
@click.option("--lines", "-n", type=click.IntRange(1), help="The last so many alone.")
@click.option("--kind", type=click.Choice(WITH_LOGS), help="Where a name has more than one.")
@aws_command(dry_run=False)
def command(call: Call, *, name: str, follow: bool, lines: int | None, kind: str | None) -> None:
    """Print the log of a job or an endpoint.

    \b
      byoc logs mnist-20261127-101500-123 --follow
      byoc logs my-endpoint -n 50
    """  # noqa: D301 - click's mark
    among = [kinds.KINDS[kind]] if kind else [kinds.KINDS[one] for one in WITH_LOGS]
    found, described = kinds.find(call.aws, name, among, aside=aside)
    reader = Logs(call.aws, found, name)
    first = [*reader.new()]
    _print(call, reader, deque(first, maxlen=lines) if lines else first)
    try:
        while follow and (found is kinds.ENDPOINT or not _ended(found, described)):
            call.console.waiting(f"{found.words} {name}: {described.get(found.status or '')}")
            time.sleep(jobs.LOCAL_SECONDS if call.aws.local else jobs.AWS_SECONDS)
            described = kinds.describe(call.aws, found, name)
            _print(call, reader, reader.new())
    except KeyboardInterrupt:
        raise SystemExit(INTERRUPTED) from None
    if not first and not follow:
        click.echo(f"byoc: {found.words} {name} has written nothing (yet)", err=True)


def _ended(kind: kinds.Kind, described: dict[str, object]) -> bool:
    return described.get(kind.status or "") in kinds.ENDED


def _print(call: Call, reader: Logs, lines: Iterable[Line]) -> None:
    for line in lines:
        _print_one(call, reader, line)


def _print_one(call: Call, reader: Logs, line: Line) -> None:
    call.console.close()
    if call.console.machine:
        click.echo(_json(line))
    else:
        click.echo(f"{line.stream}  {line.text}" if reader.streams > 1 else line.text)


def _json(line: Line) -> str:
    import json  # noqa: PLC0415 - of this form alone

    content = {"stream": line.stream, "timestamp": line.milliseconds, "message": line.text}
    return json.dumps(content, ensure_ascii=False)
