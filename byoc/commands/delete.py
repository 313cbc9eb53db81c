"""``byoc delete``: an endpoint with what belongs to it, or a single model or configuration."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from byoc import deletion, kinds
from byoc.commands.options import aws_command
from byoc.errors import NotFoundError, SettingsError

if TYPE_CHECKING:
    from byoc.commands.options import Call

DELETABLE = [kind.name for kind in kinds.KINDS.values() if kind.deletes]


@click.command("delete")
@click.argument("names", nargs=-1, required=True, metavar="NAME...")
@click.option(
    "--kind", type=click.Choice(DELETABLE), default="endpoint", show_default=True,
    help="An endpoint goes with its configuration and its models.",
)  # fmt: skip
@click.option("--keep-models", is_flag=True, help="Delete the endpoint and its configuration.")
@click.option("--missing-ok", is_flag=True, help="It is no error when there is none.")
@aws_command(yes=True)
def command(
    call: Call, *, names: tuple[str, ...], kind: str, keep_models: bool, missing_ok: bool
) -> None:
    """Delete endpoints, which cost as long as they are there. Asks first.

    \b
      byoc delete my-endpoint
      byoc delete old-model --kind model --yes
    """  # noqa: D301 - click's mark
    of = kinds.KINDS[kind]
    gone: list[dict[str, str]] = []
    for name in names:
        try:
            if of is kinds.ENDPOINT:
                parts = deletion.composition(call.aws, name) if not call.dry_run else []
                kept = [part for part in parts if not (keep_models and part[0] is kinds.MODEL)]
                _agree(call, ", ".join(f"{part.words} {one}" for part, one in kept))
                gone += [
                    {"kind": part, "name": one}
                    for part, one in deletion.delete(
                        call.aws, name, with_models=not keep_models, report=call.console
                    )
                ]
            else:
                _agree(call, f"{of.words} {name}")
                call.aws.call("sagemaker", f"Delete{of.noun}", {of.member: name})
                if not call.dry_run:
                    call.console.say(f"deleted {of.words} {name}")
                gone.append({"kind": kind, "name": name})
        except NotFoundError:  # noqa: PERF203 - a handful
            if not missing_ok:
                raise
    if call.console.machine and not call.dry_run:
        call.console.result(gone)


def _agree(call: Call, what: str) -> None:
    if not call.agreed(f"Delete {what}?"):
        raise SettingsError(f"nothing was deleted; to delete {what} without being asked give --yes")
