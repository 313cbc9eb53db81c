"""``byoc describe``: everything about one thing."""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING, Any

import click

from byoc import kinds
from byoc.commands.options import aside, aws_command

if TYPE_CHECKING:
    from collections.abc import Iterator

    from byoc.commands.options import Call


@click.command("describe")
@click.argument("name")
@click.option("--kind", type=click.Choice([*kinds.KINDS]), help="Where a name has more than one.")
@aws_command()
def command(call: Call, *, name: str, kind: str | None) -> None:
    """Print all that is known of a job, an endpoint, a model or a configuration.

    \b
      byoc describe my-endpoint
      byoc describe my-model --kind model --json
    """  # noqa: D301 - click's mark
    among = [kinds.KINDS[kind]] if kind else [*kinds.KINDS.values()]
    found, described = kinds.find(call.aws, name, among, aside=aside)
    if call.dry_run:
        return
    if call.console.machine:
        call.console.result(described)
        return
    click.echo(f"{found.words} {name}")
    for line in _lines(described, 1):
        click.echo(line)


def _lines(value: Any, depth: int) -> Iterator[str]:
    """A value as indented lines."""
    start = "  " * depth
    pairs = (
        value.items()
        if isinstance(value, dict)
        else ((f"{n}", one) for n, one in enumerate(value, 1))
    )
    for key, one in pairs:
        if isinstance(one, (dict, list)) and one:
            yield f"{start}{key}"
            yield from _lines(one, depth + 1)
        elif isinstance(one, dt.datetime):
            yield f"{start}{key}: {one.astimezone():%Y-%m-%d %H:%M:%S %z}"
        else:
            yield f"{start}{key}: {one}"
