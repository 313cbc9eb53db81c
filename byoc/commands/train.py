"""``byoc train``: data to S3, a training job, its states and its log."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from byoc import jobs, kinds, words
from byoc.commands import options
from byoc.commands.options import aws_command, instance_types, merged, texts, toml_argument
from byoc.commands.waiting import finish, wait_for
from byoc.metrics import EXAMPLE_METRICS

if TYPE_CHECKING:
    from byoc.commands.options import Call


@click.command("train")
@toml_argument("train", maps=("data", "hyperparameters", "environment", "tags"), paths=("data",))
@click.option(
    "--data",
    "-d",
    multiple=True,
    metavar="CHANNEL=SOURCE",
    help="A folder or file here, or s3://…; again for each channel.",
)
@click.option(
    "--hyperparameter",
    "-p",
    "given_hyperparameters",
    multiple=True,
    metavar="NAME=VALUE",
    help="Again for each.",
)
@click.option("--name", metavar="NAME", help="Of the job. Default: one that is not taken.")
@click.option(
    "--image",
    default=jobs.IMAGE,
    show_default=True,
    metavar="IMAGE",
    help="A full name, or one in this account's registry.",
)
@options.role
@options.bucket
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
    "--max-time",
    default="1d",
    show_default=True,
    metavar="TIME",
    help="The longest that the job may run: 90s, 15m, 2h, 1d.",
)
@click.option("--spot", is_flag=True, help="Spare capacity: cheaper, and may be interrupted.")
@click.option(
    "--checkpoints",
    metavar="S3-URI",
    is_flag=False,
    flag_value="auto",
    help="Keep /opt/ml/checkpoints there; without a value in the bucket.",
)
@click.option(
    "--env",
    "-e",
    "given_environment",
    multiple=True,
    metavar="NAME=VALUE",
    help="A variable of the container; again for each.",
)
@click.option(
    "--metric",
    "metric_names",
    multiple=True,
    default=EXAMPLE_METRICS,
    metavar="NAME",
    show_default="those of the example",
    help="A metric that the program logs.",
)
@click.option("--output", metavar="S3-URI", help="For the model. Default: in the bucket.")
@click.option(
    "--input-mode", type=click.Choice(["File", "FastFile"]), default="File", show_default=True
)
@click.option("--tag", "given_tags", multiple=True, metavar="KEY=VALUE", help="Of AWS.")
@click.option("--wait", "-w", is_flag=True, help="Wait for the end; exit code 14 when it failed.")
@click.option("--logs/--no-logs", default=True, show_default=True, help="With --wait: its log.")
@aws_command(yes=True)
def command(  # noqa: PLR0913 - a command has as many arguments as options
    call: Call,
    *,
    data: tuple[str, ...],
    given_hyperparameters: tuple[str, ...],
    max_time: str,
    given_environment: tuple[str, ...],
    given_tags: tuple[str, ...],
    wait: bool,
    logs: bool,
    **rest: Any,
) -> None:
    """Train a model: upload data, start a training job, and wait for it if asked.

    \b
      byoc train --data training=data/mnist --hyperparameter epochs=1 --wait
      byoc train --image sagemaker-byoc-training:latest -t ml.g5.xlarge --spot \\
                 --data training=s3://bucket/mnist/ -p epochs=14 --max-time 1h
      byoc train --data code=src -p sagemaker_program=train.py -p lr=0.1 --wait
      byoc train job.toml --dry-run

    Without a program of your own, in the channel code, the image's runs.

    FILE is a TOML file; its table [train] has the options' names, with [train.data],
    [train.hyperparameters], [train.environment] and [train.tags].
    """  # noqa: D301 - click's mark
    hyperparameters = words.pairs(given_hyperparameters, "hyperparameter", "epochs=1")
    environment = words.pairs(given_environment, "variable", "OMP_NUM_THREADS=1")
    training = jobs.Training(
        data=merged("data", words.pairs(data, "channel", "training=data/mnist")),
        hyperparameters=merged("hyperparameters", {}),
        raw_hyperparameters=hyperparameters,
        max_seconds=words.seconds(max_time),
        environment=texts(merged("environment", environment)),
        tags=texts(merged("tags", words.pairs(given_tags, "tag", "team=vision"))),
        **rest,
    )
    job = jobs.train(call.aws, training, may_create=call.may_create, report=call.console)
    if call.dry_run:
        return
    if not wait:
        finish(call, kinds.TRAINING, job.name, "", wait=False)
        return
    call.console.say(f"training job {job.name}")
    ended = wait_for(call, kinds.TRAINING, job.name, logs=logs)
    if call.console.machine:
        call.console.result(ended)
    else:
        show(call, ended)


def show(call: Call, job: dict[str, Any]) -> None:
    """What a training job that has completed leaves."""
    billed = job.get("BillableTimeInSeconds")
    if billed is not None:
        call.console.say(f"billed for {billed} s")
    finals = job.get("FinalMetricDataList") or ()
    if finals:
        width = max(len(one["MetricName"]) for one in finals)
        for one in finals:
            call.console.say(f"  {one['MetricName']:<{width}}  {one['Value']:.6g}")
    model = (job.get("ModelArtifacts") or {}).get("S3ModelArtifacts")
    if model:
        call.console.say(f"model {model}")
        call.console.say(f"serve it: byoc deploy --job {job['TrainingJobName']}")
