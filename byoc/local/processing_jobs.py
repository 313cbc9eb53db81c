"""Processing jobs: Create-, Describe-, List-, Stop- and DeleteProcessingJob."""

from __future__ import annotations

from typing import TYPE_CHECKING

from byoc.local import processing_request, processing_status
from byoc.local.job_resource import JobResource, Sort
from byoc.local.kinds import PROCESSING_JOB
from byoc.local.processing_run import ProcessingRun

if TYPE_CHECKING:
    from byoc.local.job_tools import Tools

SORT = Sort(
    PROCESSING_JOB,
    "Processing",
    processing_status,
    ProcessingRun,
    processing_request.check,
    processing_request.look_up,
    (
        "ProcessingJobName", "ProcessingJobArn", "CreationTime", "ProcessingEndTime",
        "LastModifiedTime", "ProcessingJobStatus", "FailureReason", "ExitMessage",
    ),
)  # fmt: skip


class ProcessingJobs(JobResource):
    """All processing jobs.

    Args:
        tools: Shared by all kinds of job.
    """

    def __init__(self, tools: Tools) -> None:
        super().__init__(tools, SORT)
