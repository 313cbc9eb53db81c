"""Everything that the endpoint has: the one place that knows every kind of resource."""

from __future__ import annotations

from typing import TYPE_CHECKING

from byoc.local.clients import Clients
from byoc.local.endpoint_configs import EndpointConfigs
from byoc.local.job_tools import Tools
from byoc.local.journal import Journals
from byoc.local.leftovers import Leftovers, Logs
from byoc.local.models import Models
from byoc.local.processing_jobs import ProcessingJobs
from byoc.local.queue import Queue
from byoc.local.tags import Tags
from byoc.local.training_jobs import TrainingJobs

if TYPE_CHECKING:
    from collections.abc import Callable

    from byoc.local.actions import Context, Resource
    from byoc.local.application import Runtime


def resources(
    context: Context, runner: str, log: Callable[[str], None]
) -> tuple[list[Resource], Runtime]:
    """All resources, and what answers invocations.

    Args:
        context: What they share.
        runner: ``auto``, ``docker`` or ``process``.
        log: The server's own.
    """
    clients = Clients(context)
    journals = Journals(context.home, clients, log)
    tools = Tools(context, clients, journals, Queue(), runner, log)
    found: list[Resource] = [
        Leftovers(context, runner),
        Models(context),
        EndpointConfigs(context),
        Tags(context),
        TrainingJobs(tools),
        ProcessingJobs(tools),
        Logs(journals),
    ]
    return found, _no_runtime


def _no_runtime(environ: object, start_response: object, request_id: str) -> list[bytes]:
    raise NotImplementedError
