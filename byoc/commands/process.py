"""``byoc process``: a program in an image, with folders from and to S3."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from byoc import jobs, kinds, processing, words
from byoc.commands import options
from byoc.commands.options import aws_command, instance_types
from byoc.commands.waiting import finish
from byoc.errors import SettingsError

if TYPE_CHECKING:
    from byoc.commands.options import Call

#: Options that are looked for behind SCRIPT, since there they would silently do nothing.
OURS = ("--dry-run", "--wait", "--json", "--yes")


# What stands behind SCRIPT is the program's, whatever it looks like.
@click.command("process", context_settings={"allow_interspersed_args": False})
@click.argument("script", required=False)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
@click.option(
    "--input",
    "inputs",
    multiple=True,
    metavar="NAME=SOURCE",
    help="A folder or file here, or s3://…; in /opt/ml/processing/input/NAME.",
)
@click.option(
    "--output",
    "outputs",
    multiple=True,
    metavar="NAME[=S3-URI]",
    help="Of /opt/ml/processing/output/NAME. Default: in the bucket.",
)
@click.option("--entrypoint", metavar="COMMAND", help="In place of a SCRIPT.")
@click.option("--name", metavar="NAME", help="Of the job. Default: one that is not taken.")
@click.option("--image", default=jobs.IMAGE, show_default=True, metavar="IMAGE")
@click.option(
    "--instance-type",
    "-t",
    default=jobs.INSTANCE_TYPE,
    show_default=True,
    metavar="TYPE",
    shell_complete=instance_types,
)
@click.option("--instance-count", "-n", type=click.IntRange(1), default=1, show_default=True)
@click.option(
    "--volume", "volume_gb", type=click.IntRange(1), default=30, show_default=True, metavar="GB"
)
@click.option(
    "--max-time", default="1d", show_default=True, metavar="TIME", help="90s, 15m, 2h, 1d."
)
@click.option("--env", "-e", "environment", multiple=True, metavar="NAME=VALUE")
@options.role
@options.bucket
@click.option("--wait", "-w", is_flag=True, help="Wait for the end.")
@aws_command(yes=True)
def command(  # noqa: PLR0913 - a command has as many arguments as options
    call: Call,
    *,
    script: str | None,
    arguments: tuple[str, ...],
    entrypoint: str | None,
    inputs: tuple[str, ...],
    outputs: tuple[str, ...],
    max_time: str,
    environment: tuple[str, ...],
    wait: bool,
    **rest: Any,
) -> None:
    """Run SCRIPT, a Python program, with ARGUMENTS in the training image, or any other.

    Options stand before SCRIPT; what stands behind it is for the program. Where the program has
    one of --dry-run, --wait, --json and --yes as well, -- stands before its arguments.

    \b
      byoc process --input raw=photos --output data --wait prepare.py --size 28
      byoc process --entrypoint "python3 -m tool" --image my-image:1.0
      byoc process --wait report.py -- --json
    """  # noqa: D301 - click's mark
    arguments = _of_the_program(arguments)
    if entrypoint and script:  # the words are the command's
        arguments, script = (script, *arguments), None
    wish = processing.Processing(
        script=script,
        arguments=arguments,
        entrypoint=entrypoint,
        inputs=words.pairs(inputs, "input", "raw=photos"),
        outputs={name: uri for name, _, uri in (one.partition("=") for one in outputs)},
        max_seconds=words.seconds(max_time),
        environment=words.pairs(environment, "variable", "OMP_NUM_THREADS=1"),
        **rest,
    )
    request = processing.process(call.aws, wish, may_create=call.may_create, report=call.console)
    found = request.get("ProcessingOutputConfig", {}).get("Outputs", ())
    where = "  ".join(f"{one['OutputName']} {one['S3Output']['S3Uri']}" for one in found)
    finish(call, kinds.PROCESSING, request["ProcessingJobName"], where, wait=wait)


def _of_the_program(arguments: tuple[str, ...]) -> tuple[str, ...]:
    """What stands behind SCRIPT.

    Raises:
        SettingsError: An option of ours is there, which would start a job that was to be looked at.
    """
    if arguments[:1] == ("--",):
        return arguments[1:]
    ours = next((one for one in arguments if one in OURS), None)
    if ours:
        raise SettingsError(
            f"{ours} stands behind SCRIPT and would be the program's; put it before SCRIPT, or, if "
            "it is meant for the program, -- before the program's arguments"
        )
    return arguments
