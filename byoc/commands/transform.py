"""``byoc transform``: a model over many records, without an endpoint."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from byoc import deployments, kinds, transforms, words
from byoc.commands import options
from byoc.commands.options import aws_command, instance_types
from byoc.commands.waiting import finish

if TYPE_CHECKING:
    from byoc.commands.options import Call


@click.command("transform")
@click.argument("source", metavar="INPUT")
@click.option("--job", metavar="NAME", help="The training job that made the model.")
@click.option("--model-data", metavar="ARCHIVE", help="s3://….tar.gz, or an archive here.")
@click.option("--model", metavar="NAME", help="A model that SageMaker has already.")
@click.option("--image", default=deployments.IMAGE, show_default=True, metavar="IMAGE")
@click.option("--name", metavar="NAME", help="Of the job. Default: one that is not taken.")
@click.option("--output", metavar="S3-URI", help="Default: in the bucket.")
@click.option("--content-type", default="application/json", show_default=True, metavar="TYPE")
@click.option("--accept", metavar="TYPE")
@click.option(
    "--split",
    type=click.Choice(["None", "Line"]),
    default="None",
    show_default=True,
    help="Line: a record is a line.",
)
@click.option("--strategy", type=click.Choice(["MultiRecord", "SingleRecord"]))
@click.option(
    "--payload", "payload_mb", type=click.IntRange(0, 100), metavar="MB", help="Of a request."
)
@click.option("--concurrency", type=click.IntRange(1), metavar="N", help="Requests at a time.")
@click.option(
    "--instance-type",
    "-t",
    default=deployments.INSTANCE_TYPE,
    show_default=True,
    metavar="TYPE",
    shell_complete=instance_types,
)
@click.option("--instance-count", "-n", type=click.IntRange(1), default=1, show_default=True)
@click.option("--env", "-e", "environment", multiple=True, metavar="NAME=VALUE")
@options.role
@options.bucket
@click.option("--wait", "-w", is_flag=True, help="Wait for the end.")
@aws_command(yes=True)
def command(
    call: Call, *, source: str, environment: tuple[str, ...], wait: bool, **rest: Any
) -> None:
    """Run a model over the files of INPUT: a folder or file here, or s3://…

    \b
      byoc transform digits.jsonl --job NAME --split Line --wait
      byoc transform s3://bucket/images/ --model my-model --content-type image/png
    """  # noqa: D301, D415 - click's mark, and an ellipsis
    variables = words.pairs(environment, "variable", "SAGEMAKER_CONTAINER_LOG_LEVEL=10")
    wish = transforms.Transform(input=source, environment=variables, **rest)
    request = transforms.transform(call.aws, wish, may_create=call.may_create, report=call.console)
    output = request["TransformOutput"]["S3OutputPath"]
    finish(call, kinds.TRANSFORM, request["TransformJobName"], f"answers {output}", wait=wait)
