"""``byoc local``: SageMaker on this machine, started, looked at and stopped."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from typing import Any

import click

from byoc.errors import LocalError
from byoc.local import exports
from byoc.local.home import Home, default_home
from byoc.partitions import partition

START_SECONDS, STOP_SECONDS = 30, 180
DEFAULT_REGION = "us-east-1"


def _home() -> Home:
    return Home(default_home())


@click.group("local")
def command() -> None:
    """SageMaker on this machine.

    One endpoint that speaks AWS's protocols and really runs the images: boto3, the AWS CLI and the
    SageMaker SDK work with it unchanged.

    \b
      byoc local up --detach
      eval "$(byoc local env)"
      aws sagemaker list-training-jobs
      byoc local down
    """  # noqa: D301 - click's mark


@command.command("up")
@click.option("--port", type=click.IntRange(0, 65535), default=0, help="Default: a free one.")
@click.option("--detach", "-d", is_flag=True, help="Return once it is ready.")
@click.option("--region", envvar="AWS_REGION", default=DEFAULT_REGION, show_default=True)
@click.option(
    "--runner",
    type=click.Choice(["auto", "docker", "process"]),
    default="auto",
    show_default=True,
    help="docker: the images; process: train and serve of this environment.",
)
def up(*, port: int, detach: bool, region: str, runner: str) -> None:
    """Start the endpoint, and print what a shell must export."""
    partition(region)  # which refuses what is none
    home = _home()
    if detach:
        url = _start(home, port, region, runner)
        click.echo(_lines(url, region))
        return
    from byoc.local.server import Server  # noqa: PLC0415 - heavy

    server = Server(home, port, region, runner)
    server.serve(lambda: click.echo(_lines(server.url, region)))


@command.command("env")
def env() -> None:
    """Print what a shell must export."""
    running = _running(_home())
    click.echo(_lines(running["url"], running["region"]))


@command.command("down")
def down() -> None:
    """Stop the endpoint, its jobs and its containers; what it keeps stays."""
    home = _home()
    running = _running(home)
    os.kill(int(running["pid"]), signal.SIGTERM)
    until = time.monotonic() + STOP_SECONDS
    while home.claimed():
        if time.monotonic() > until:
            raise LocalError(f"process {running['pid']} did not end within {STOP_SECONDS} s")
        time.sleep(0.05)
    click.echo(f"stopped; its state is in {home.root}")


@command.command("status")
@click.option("--json", "as_json", is_flag=True, help="For machines.")
def status(*, as_json: bool) -> None:
    """Say whether the endpoint runs, and where; exit code 8 when it does not."""
    home = _home()
    running = _running(home)
    if as_json:
        click.echo(json.dumps({**running, "home": str(home.root)}))
    else:
        click.echo(f"{running['url']}  process {running['pid']}  state in {home.root}")


@command.command("logs")
def logs() -> None:
    """Print the endpoint's own log; those of jobs are in CloudWatch Logs."""
    home = _home()
    if home.server_log.is_file():
        click.echo(home.server_log.read_text("utf-8", "replace"), nl=False)


def _running(home: Home) -> dict[str, Any]:
    running = home.running()
    if running is None:
        raise LocalError(f"no local endpoint runs on {home.root}; start it: byoc local up --detach")
    return running


def _start(home: Home, port: int, region: str, runner: str) -> str:
    home.prepare()
    words = ["local", "up", "--port", str(port), "--region", region, "--runner", runner]
    process = subprocess.Popen(
        [sys.executable, "-m", "byoc.main", *words],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        start_new_session=True,
        text=True,
    )
    until = time.monotonic() + START_SECONDS
    while time.monotonic() < until:
        running = home.running()
        if running is not None and running["pid"] == process.pid:
            return str(running["url"])
        if process.poll() is not None:
            words_of_it = process.stderr.read().strip() if process.stderr else ""
            raise LocalError(words_of_it.removeprefix("byoc: ") or "the endpoint did not start")
        time.sleep(0.02)
    process.kill()
    raise LocalError(f"the endpoint was not ready after {START_SECONDS} s; see byoc local logs")


def _lines(url: str, region: str) -> str:
    named = exports.shell(url, region).items()
    return "\n".join(f"export {name}={shlex.quote(value)}" for name, value in named)
