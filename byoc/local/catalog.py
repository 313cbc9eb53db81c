"""Everything that the endpoint has: the one place that knows every kind of resource."""

from __future__ import annotations

from typing import TYPE_CHECKING

from byoc.local.endpoint_configs import EndpointConfigs
from byoc.local.models import Models
from byoc.local.tags import Tags

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
    _ = runner, log
    found: list[Resource] = [Models(context), EndpointConfigs(context), Tags(context)]
    return found, _no_runtime


def _no_runtime(environ: object, start_response: object, request_id: str) -> list[bytes]:
    raise NotImplementedError
