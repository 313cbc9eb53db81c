"""``byoc doctor``: what is well, what is not, and how to mend it."""

from __future__ import annotations

import dataclasses

import click

from byoc import doctor, findings, jobs
from byoc.console import Console
from byoc.deployments import INSTANCE_TYPE
from byoc.errors import ByocError, DoctorError
from byoc.settings import connect

SIGNS = {findings.OK: ("✓", "green"), findings.NOTE: ("·", "yellow"), findings.WRONG: ("✗", "red")}


@click.command("doctor")
@click.option("--region", metavar="REGION", help="Default: AWS_REGION, byoc.toml, …")
@click.option("--profile", metavar="NAME", help="Of AWS's configuration files.")
@click.option("--endpoint-url", metavar="URL", help="In place of AWS; default: AWS_ENDPOINT_URL.")
@click.option("--role", metavar="ROLE", help="The role to look at.")
@click.option("--bucket", metavar="BUCKET", help="The bucket to look at.")
@click.option(
    "--training-type",
    default=jobs.INSTANCE_TYPE,
    show_default=True,
    metavar="TYPE",
    help="Whose quota for training is looked at.",
)
@click.option(
    "--endpoint-type",
    default=INSTANCE_TYPE,
    show_default=True,
    metavar="TYPE",
    help="And for endpoints.",
)
@click.option("--json", "as_json", is_flag=True, help="The findings as JSON.")
def command(  # noqa: PLR0913 - a command has as many arguments as options
    *,
    region: str | None,
    profile: str | None,
    endpoint_url: str | None,
    role: str | None,
    bucket: str | None,
    training_type: str,
    endpoint_type: str,
    as_json: bool,
) -> None:
    """Look at this machine and the account, and say what to mend; changes nothing.

    Takes ten seconds at most. Exit code 18 when there is something to mend.

    \b
      byoc doctor
      byoc doctor --training-type ml.g5.xlarge --json
    """  # noqa: D301 - click's mark
    aws, why = None, ""
    try:
        aws = connect(region, profile=profile, endpoint_url=endpoint_url, impatient=True)
    except ByocError as error:
        why = str(error)
    patient = findings.Patient(aws, why, role, bucket, training_type, endpoint_type)
    console = Console(machine=as_json)
    found = []
    for finding in doctor.examine(patient):
        found.append(finding)
        if not as_json:
            _show(console, finding)
    if as_json:
        console.result([dataclasses.asdict(one) for one in found])
    wrong = [one.subject for one in found if one.state == findings.WRONG]
    if wrong:
        raise DoctorError(f"to be mended: {', '.join(wrong)}")


def _show(console: Console, finding: findings.Finding) -> None:
    sign, colour = SIGNS[finding.state]
    shown = sign if console.unicode else finding.state
    shown = click.style(shown, fg=colour) if console.lively else shown
    fix = f"  -> {finding.fix}" if finding.fix else ""
    print(f"{shown} {finding.subject:<16} {finding.words}{fix}", flush=True)
