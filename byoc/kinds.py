"""The kinds of things that SageMaker has, in the words of its API."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from byoc.errors import ByocError, NotFoundError, SettingsError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from byoc.aws import Aws

#: States in which nothing changes any more by itself.
ENDED = ("Completed", "Failed", "Stopped", "InService", "OutOfService", "UpdateRollbackFailed")


@dataclass(frozen=True)
class Kind:
    """A kind.

    Attributes:
        name: Ours, as the command line has it.
        noun: The API's, as operations have it: ``Describe<noun>``.
        plural: In ``List<plural>``.
        summaries: The member of lists with the items.
        log_group: Of CloudWatch Logs; None when there is no log.
        stops: Whether there is ``Stop<noun>``.
        deletes: Whether there is ``Delete<noun>``.
    """

    name: str
    noun: str
    plural: str
    summaries: str
    log_group: str | None = None
    stops: bool = False
    deletes: bool = False

    @property
    def member(self) -> str:
        """The member of requests and answers with the name."""
        return f"{self.noun}Name"

    @property
    def status(self) -> str | None:
        """The member of answers with the state; None for what has no state."""
        return f"{self.noun}Status" if self.log_group else None

    @property
    def words(self) -> str:
        """For people."""
        return self.name.replace("-", " ")

    def command(self, verb: str, name: str) -> str:
        """The words of a command about one of this kind, whatever else has the name."""
        # A name alone means the first kind that has it: training jobs need no more.
        return f"byoc {verb} {name}" + ("" if self is TRAINING else f" --kind {self.name}")


TRAINING = Kind(
    "training-job", "TrainingJob", "TrainingJobs", "TrainingJobSummaries",
    "/aws/sagemaker/TrainingJobs", stops=True,
)  # fmt: skip
TRANSFORM = Kind(
    "transform-job", "TransformJob", "TransformJobs", "TransformJobSummaries",
    "/aws/sagemaker/TransformJobs", stops=True,
)  # fmt: skip
PROCESSING = Kind(
    "processing-job", "ProcessingJob", "ProcessingJobs", "ProcessingJobSummaries",
    "/aws/sagemaker/ProcessingJobs", stops=True,
)  # fmt: skip
ENDPOINT = Kind(
    "endpoint", "Endpoint", "Endpoints", "Endpoints", "/aws/sagemaker/Endpoints/{name}",
    deletes=True,
)  # fmt: skip
ENDPOINT_CONFIG = Kind(
    "endpoint-config", "EndpointConfig", "EndpointConfigs", "EndpointConfigs", deletes=True
)
MODEL = Kind("model", "Model", "Models", "Models", deletes=True)

KINDS = {
    kind.name: kind for kind in (TRAINING, ENDPOINT, MODEL, ENDPOINT_CONFIG, TRANSFORM, PROCESSING)
}
JOBS = (TRAINING, TRANSFORM, PROCESSING)


def describe(aws: Aws, kind: Kind, name: str) -> dict[str, Any]:
    """What the API says of one; empty when nothing is sent.

    Raises:
        NotFoundError: There is none.
        ByocError: AWS refuses.
    """
    answer = aws.ask("sagemaker", f"Describe{kind.noun}", {kind.member: name}) or {}
    answer.pop("ResponseMetadata", None)
    return answer


def find(
    aws: Aws,
    name: str,
    among: Iterable[Kind] = tuple(KINDS.values()),
    *,
    aside: Callable[[str], object] = lambda _: None,
) -> tuple[Kind, dict[str, Any]]:
    """The first kind that has something of this name, and what the API says of it.

    Args:
        aws: Where.
        name: Of what.
        among: The kinds that are meant, in this order.
        aside: Told when another of them has the name as well.

    Raises:
        NotFoundError: None has.
        SettingsError: Nothing may be sent, so that nothing can be found.
        ByocError: AWS refuses.
    """
    among = tuple(among)
    if aws.dry_run and len(among) > 1:
        raise SettingsError("--dry-run sends nothing, so what the name means must be said: --kind")
    for number, kind in enumerate(among):
        try:
            found = describe(aws, kind, name)
        except NotFoundError:
            continue
        others = [one for one in among[number + 1 :] if _there(aws, one, name)]
        if others:
            aside(
                f"{name} is the {kind.words} here; also called so: "
                + ", ".join(f"{other.words} (--kind {other.name})" for other in others)
            )
        return kind, found
    raise NotFoundError(
        f"there is no {' or '.join(kind.words for kind in among)} {name} in {aws.where}; "
        "byoc list shows what is there"
    )


def _there(aws: Aws, kind: Kind, name: str) -> bool:
    """Whether there is one, as far as one can see."""
    try:
        describe(aws, kind, name)
    except ByocError:
        return False
    return True


def listed(
    aws: Aws, kind: Kind, *, contains: str | None = None, most: int = 20
) -> list[dict[str, Any]]:
    """The newest of a kind: ``{"kind", "name", "status", "created"}``.

    Args:
        aws: Where.
        kind: Of what.
        contains: A part of the name.
        most: How many at most.

    Raises:
        ByocError: AWS refuses.
    """
    request: dict[str, Any] = {
        "SortBy": "CreationTime", "SortOrder": "Descending", "MaxResults": min(most, 100)
    }  # fmt: skip
    if contains:
        request["NameContains"] = contains
    return [
        {
            "kind": kind.name,
            "name": one[kind.member],
            "status": one.get(kind.status or "", ""),
            "created": one.get("CreationTime"),
        }
        for one in aws.pages("sagemaker", f"List{kind.plural}", kind.summaries, request, most)
    ]


def stop(aws: Aws, kind: Kind, name: str) -> None:
    """Ask a job to end: it gets SIGTERM, and what it has written is kept.

    Raises:
        ByocError: There is none, it has ended, or AWS refuses.
    """
    aws.call("sagemaker", f"Stop{kind.noun}", {kind.member: name})
