"""Everything that the endpoint has: the one place that knows every kind of resource."""

from __future__ import annotations

from typing import TYPE_CHECKING

from byoc.local.async_invocations import AsyncInvocations
from byoc.local.clients import Clients
from byoc.local.endpoint_configs import EndpointConfigs
from byoc.local.endpoints import Endpoints
from byoc.local.job_tools import Tools
from byoc.local.journal import Journals
from byoc.local.leftovers import Leftovers, Logs
from byoc.local.models import Models
from byoc.local.processing_jobs import ProcessingJobs
from byoc.local.queue import Queue
from byoc.local.references import References
from byoc.local.runtime import SageMakerRuntime
from byoc.local.tags import Tags
from byoc.local.training_jobs import TrainingJobs
from byoc.local.transform_jobs import TransformJobs

if TYPE_CHECKING:
    from collections.abc import Callable

    from byoc.local.actions import Context, Resource
    from byoc.local.application import Runtime
    from byoc.local.objects import Objects


def resources(
    context: Context, objects: Objects, runner: str, log: Callable[[str], None]
) -> tuple[list[Resource], Runtime]:
    """All resources, and what answers invocations.

    Args:
        context: What they share.
        objects: S3's.
        runner: ``auto``, ``docker`` or ``process``.
        log: The server's own.
    """
    clients = Clients(context)
    journals = Journals(context.home, clients, log)
    queue, references = Queue(), References(objects, context.region, runner)
    tools = Tools(context, clients, journals, queue, references, runner, log)
    endpoints = Endpoints(context, runner, log, clients, journals)
    later = AsyncInvocations(context, endpoints, clients, log)
    found: list[Resource] = [
        Leftovers(context, runner),
        Models(context, references),
        EndpointConfigs(context),
        endpoints,
        later,
        TransformJobs(context, runner, log, clients, journals, queue, references),
        Tags(context),
        TrainingJobs(tools),
        ProcessingJobs(tools),
        Logs(journals),
    ]
    return found, SageMakerRuntime(endpoints, later, context.region)
