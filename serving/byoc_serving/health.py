"""The answer to ``/ping``, from the shared table alone."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING

from byoc_serving.exchange import Response, one_line
from byoc_serving.table import State

if TYPE_CHECKING:
    from byoc_serving.table import Table

#: The contract says GET; one sentence of the guide says POST (contract, section 7.1).
PING_METHODS = ("GET", "HEAD", "POST")
READY = Response(200, b'{"status": "ready"}')


def ping(table: Table) -> Response:
    """200 once every worker has loaded, as long as one of them serves; else 503 and the cause.

    After the first 200 a crashed worker does not turn the answer around: its replacement
    loads while the others serve. Nor does it come before the porter has left the door: whoever
    sees a 200 can invoke. In the isolated topology requests wait for a replacement, so the answer
    stays until it is known that none will come.
    """
    if table.survives_crashes:
        if table.latched and table.failure is None:
            return READY
    elif table.latched and table.ready_count and not table.porter_listens:
        return READY
    status, cause = diagnosis(table)
    body = json.dumps({"status": status, "cause": cause}, ensure_ascii=False)
    return Response(503, body.encode(), headers=(("Retry-After", "1"),))


def diagnosis(table: Table) -> tuple[str, str]:
    """A word and a line for why the server is not ready."""
    if failure := table.failure:
        return "failed", one_line(failure)
    if table.stopping:
        return "stopping", "stopping: the server was told to end"
    ready = table.ready_count
    waiting = [slot for slot in table.slots() if slot.state is not State.READY]
    slowest = min(
        (slot for slot in waiting if slot.state is State.LOADING),
        key=lambda slot: slot.since,
        default=None,
    )
    leaving = next((slot for slot in waiting if slot.state is State.DRAINING), None)
    if slowest is None and leaving is not None:
        return "replacing", one_line(leaving.phase)
    began = slowest.since if slowest else table.started
    phase = (slowest.phase if slowest else "") or "starting"
    count = f"{ready} of {table.required} workers ready"
    return "loading", f"loading: {phase}, {time.monotonic() - began:.1f} s ({count})"
