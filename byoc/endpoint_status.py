"""What becomes of an endpoint: waited for, and its running images verified."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from byoc import kinds
from byoc.errors import FailedError
from byoc.jobs import AWS_SECONDS, LOCAL_SECONDS, tell
from byoc.logs import Logs
from byoc.report import SILENT

if TYPE_CHECKING:
    from collections.abc import Mapping

    from byoc.aws import Aws
    from byoc.report import Report

#: Within this an update has begun.
UPDATE_SECONDS = 60


def wait(
    aws: Aws, name: str, *, config: str | None = None, report: Report = SILENT
) -> dict[str, Any]:
    """Wait until the endpoint serves, and tell its states meanwhile.

    Args:
        aws: Where.
        name: The endpoint's.
        config: The configuration that it is to serve; any when None.
        report: Is told.

    Returns:
        What the API says of it.

    Raises:
        FailedError: It does not come up, or an update was taken back; says the reason.
        ByocError: AWS refuses.
    """
    started, seen = time.monotonic(), [""]
    reader = Logs(aws, kinds.ENDPOINT, name)
    while True:
        endpoint = kinds.describe(aws, kinds.ENDPOINT, name)
        status, seconds = str(endpoint["EndpointStatus"]), time.monotonic() - started
        if status != seen[-1]:
            seen.append(status)
            report.say(f"{status:<12} {seconds:6.1f} s")
        if status == "InService":
            if config is None or endpoint.get("EndpointConfigName") == config:
                return endpoint
            # An update that has not begun yet looks like one that is over.
            if len(seen) > 2 or seconds > UPDATE_SECONDS:
                raise FailedError(
                    f"the update of {name} failed: {_reason(endpoint)}; it serves as before"
                )
        elif status in kinds.ENDED:
            tell(reader, report)
            raise FailedError(
                f"the endpoint {name} failed: {_reason(endpoint)}; its log: "
                f"{kinds.ENDPOINT.command('logs', name)}; take it away: byoc delete {name}"
            )
        report.waiting(f"endpoint {name}: {status}, {seconds:.0f} s")
        time.sleep(LOCAL_SECONDS if aws.local else AWS_SECONDS)


def verify(images: Mapping[str, str | None], described: Mapping[str, Any]) -> list[str]:
    """Compare the digests of the images that run with the requested ones.

    Args:
        images: The requested image's digest, by variant; None where nobody could tell.
        described: What the API says of the endpoint.

    Returns:
        A line for each variant: what runs, or why that cannot be told.

    Raises:
        FailedError: Another image runs.
    """
    lines = []
    for variant in described.get("ProductionVariants", ()):
        name = variant["VariantName"]
        wanted = images.get(name)
        deployed = [str(one.get("ResolvedImage", "")) for one in variant.get("DeployedImages", ())]
        running = [image.partition("@")[2] for image in deployed if "@sha256:" in image]
        if not wanted or not running:
            whose = "the requested image" if not wanted else "the running image"
            lines.append(f"image of {name} not verified: the digest of {whose} is not known")
        elif wanted in running:
            lines.append(f"image of {name} verified: {wanted}")
        else:
            raise FailedError(
                f"variant {name} runs {', '.join(running)}, not the requested {wanted}: the tag "
                "was moved meanwhile; deploy again, or name the digest"
            )
    return lines


def _reason(endpoint: dict[str, Any]) -> str:
    return " ".join(str(endpoint.get("FailureReason") or "no reason is given").split())
