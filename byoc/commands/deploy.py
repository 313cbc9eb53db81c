"""``byoc deploy``: a model, a configuration and an endpoint that serves."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from byoc import deployments, endpoint_status, endpoints, kinds, words
from byoc.commands import options
from byoc.commands.options import (
    aws_command,
    instance_types,
    merged,
    texts,
    toml_argument,
)
from byoc.errors import INTERRUPTED, SettingsError

if TYPE_CHECKING:
    from byoc.commands.options import Call


@click.command("deploy")
@toml_argument("deploy", maps=("environment", "tags"), paths=("model-data",))
@click.option("--job", metavar="NAME", help="The training job that made the model.")
@click.option("--model-data", metavar="ARCHIVE", help="s3://….tar.gz, or an archive here.")
@click.option("--model", metavar="NAME", help="A model that SageMaker has already.")
@click.option("--name", metavar="NAME", help="Of the endpoint. Default: one that is not taken.")
@click.option(
    "--image",
    default=deployments.IMAGE,
    show_default=True,
    metavar="IMAGE",
    help="A full name, or one in this account's registry.",
)
@click.option(
    "--instance-type",
    "-t",
    default=deployments.INSTANCE_TYPE,
    show_default=True,
    metavar="TYPE",
    shell_complete=instance_types,
)
@click.option("--instance-count", "-n", type=click.IntRange(1), default=1, show_default=True)
@click.option(
    "--ami",
    metavar="VERSION",
    help="InferenceAmiVersion. Default: what the image's CUDA needs there.",
)
@click.option(
    "--variant",
    "variants",
    multiple=True,
    metavar="NAME[:KEY=VALUE,…]",
    help="Again for each; keys: job, model-data, model, image, instance-type, "
    "instance-count, weight, ami. The options above stand for what is not given.",
)
@click.option("--serverless", is_flag=True, help="No instances; paid by the request.")
@click.option(
    "--memory",
    type=int,
    default=4096,
    show_default=True,
    metavar="MB",
    help="With --serverless: 1024 to 6144.",
)
@click.option("--async", "asynchronous", is_flag=True, help="Requests and answers in S3.")
@click.option("--async-output", metavar="S3-URI", help="With --async. Default: in the bucket.")
@click.option(
    "--concurrency",
    type=click.IntRange(1),
    metavar="N",
    help="Requests at a time, with --serverless (5) or --async.",
)
@click.option(
    "--env",
    "-e",
    "given_environment",
    multiple=True,
    metavar="NAME=VALUE",
    help="A variable of the containers; again for each.",
)
@options.role
@options.bucket
@click.option("--tag", "given_tags", multiple=True, metavar="KEY=VALUE", help="Of AWS.")
@click.option("--update", is_flag=True, help="Change the endpoint --name; it serves meanwhile.")
@click.option("--wait/--no-wait", default=True, show_default=True, help="Until it serves.")
@aws_command(yes=True)
def command(  # noqa: PLR0913 - a command has as many arguments as options
    call: Call,
    *,
    name: str | None,
    variants: tuple[str, ...],
    serverless: bool,
    memory: int,
    asynchronous: bool,
    async_output: str | None,
    concurrency: int | None,
    given_environment: tuple[str, ...],
    role: str | None,
    bucket: str | None,
    given_tags: tuple[str, ...],
    update: bool,
    wait: bool,
    **usual: Any,
) -> None:
    """Serve a model: make a model, a configuration and an endpoint, and wait until it serves.

    \b
      byoc deploy --job mnist-20261127-101500-123
      byoc deploy --model-data model.tar.gz --name digits -t ml.g5.xlarge
      byoc deploy --job NAME --serverless --memory 3072
      byoc deploy --variant old:model=m1,weight=9 --variant new:job=NAME,weight=1
      byoc deploy --name digits --job NAME --update
      byoc deploy endpoint.toml --dry-run

    Combinations of image and instance that cannot start are refused before anything is made.
    FILE is a TOML file; its table [deploy] has the options' names, with [deploy.environment] and
    [deploy.tags].
    """  # noqa: D301 - click's mark
    one = deployments.Variant(**usual)
    environment = words.pairs(given_environment, "variable", "SAGEMAKER_CONTAINER_LOG_LEVEL=10")
    if async_output and not asynchronous:
        raise SettingsError("--async-output goes with --async")
    deployment = deployments.Deployment(
        variants=[deployments.variant(text, one) for text in variants] or [one],
        name=name,
        role=role,
        bucket=bucket,
        environment=texts(merged("environment", environment)),
        serverless=deployments.Serverless(memory, concurrency or 5) if serverless else None,
        asynchronous=(
            deployments.Asynchronous(async_output, concurrency) if asynchronous else None
        ),
        update=update,
        tags=texts(merged("tags", words.pairs(given_tags, "tag", "team=vision"))),
    )
    console = call.console
    endpoint = endpoints.deploy(call.aws, deployment, may_create=call.may_create, report=console)
    if call.dry_run:
        return
    described: dict[str, Any] = {"EndpointName": endpoint.name}
    if wait:
        try:
            described = endpoint_status.wait(
                call.aws, endpoint.name, config=endpoint.config, report=console
            )
        except KeyboardInterrupt:
            look = kinds.ENDPOINT.command("describe", endpoint.name)
            console.say(f"\nthe endpoint is still being made: {look}; take it away: "
                        f"byoc delete {endpoint.name}")  # fmt: skip
            raise SystemExit(INTERRUPTED) from None
        for line in endpoint_status.verify(endpoint.images, described):
            console.say(line)
        for kind, former in endpoint.former:
            console.say(f"no longer used: {kind.words} {former}")
        console.say(f"ask it: byoc invoke {endpoint.name} FILE")
    console.say(f"take it away: byoc delete {endpoint.name}")
    if console.machine:
        console.result(described)
