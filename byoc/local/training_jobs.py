"""Training jobs: CreateTrainingJob, DescribeTrainingJob, ListTrainingJobs, Stop and Delete."""

from __future__ import annotations

from typing import TYPE_CHECKING

from byoc.local import training_request, training_status
from byoc.local.job_resource import JobResource, Sort
from byoc.local.kinds import TRAINING_JOB
from byoc.local.training_run import TrainingRun

if TYPE_CHECKING:
    from byoc.local.job_tools import Tools

SORT = Sort(
    TRAINING_JOB,
    "Training",
    training_status,
    TrainingRun,
    training_request.check,
    training_request.look_up,
    (
        "TrainingJobName", "TrainingJobArn", "CreationTime", "TrainingEndTime",
        "LastModifiedTime", "TrainingJobStatus", "SecondaryStatus",
    ),
)  # fmt: skip


class TrainingJobs(JobResource):
    """All training jobs.

    Args:
        tools: Shared by all kinds of job.
    """

    def __init__(self, tools: Tools) -> None:
        super().__init__(tools, SORT)
