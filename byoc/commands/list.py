"""``byoc list``: jobs, endpoints, models."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import click

from byoc import kinds
from byoc.commands.options import aws_command
from byoc.console import ago

if TYPE_CHECKING:
    from byoc.commands.options import Call

#: Also in the plural, and ``jobs`` for training jobs.
NAMES = {name: kind for kind in kinds.KINDS.values() for name in (kind.name, f"{kind.name}s")}
NAMES |= {"jobs": kinds.TRAINING, "configs": kinds.ENDPOINT_CONFIG}


@click.command("list")
@click.argument("what", required=False, type=click.Choice([*NAMES]), metavar="[WHAT]")
@click.option("--contains", metavar="TEXT", help="A part of the name.")
@click.option("--limit", type=click.IntRange(1), default=20, show_default=True, help="Of a kind.")
@aws_command()
def command(call: Call, *, what: str | None, contains: str | None, limit: int) -> None:
    """List what is there, the newest first.

    \b
      byoc list                       everything
      byoc list training-jobs         or endpoints, models, endpoint-configs,
                                      transform-jobs, processing-jobs
      byoc list endpoints --contains mnist --json
    """  # noqa: D301 - click's mark
    chosen = [NAMES[what]] if what else [*kinds.KINDS.values()]
    with ThreadPoolExecutor(1 if call.dry_run else len(chosen)) as pool:
        lists = pool.map(
            lambda kind: kinds.listed(call.aws, kind, contains=contains, most=limit), chosen
        )
        found = [one for some in lists for one in some]
    if call.dry_run:
        return
    if call.console.machine:
        call.console.result(found)
        return
    if not found:
        click.echo(f"byoc: nothing of the kind in {call.aws.where}", err=True)
        return
    call.console.table(
        ("kind", "name", "status", "created"),
        [(one["kind"], one["name"], one["status"], ago(one["created"])) for one in found],
    )
