"""The access log: one line for each answer, with where its time went."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from byoc_serving.exchange import one_line

if TYPE_CHECKING:
    from byoc_serving.exchange import Exchange

log = logging.getLogger("byoc_serving.access")


class AccessLog:
    """Writes the lines.

    Args:
        pings: whether ``/ping`` and ``/metrics``, which the platform asks all the time, get one.
    """

    def __init__(self, *, pings: bool) -> None:
        self._pings = pings

    def write(self, exchange: Exchange, seconds: float) -> None:
        """One line; in JSON each part is a field.

        Args:
            exchange: what was asked and answered.
            seconds: from the request's head to the end of its answer.
        """
        if not self._pings and exchange.path in {"/ping", "/metrics"}:
            return
        log.info(
            "%s %s %d", exchange.method[:20], one_line(exchange.path, 200), exchange.status,
            extra={"fields": fields(exchange, seconds)},
        )  # fmt: skip


def fields(exchange: Exchange, seconds: float) -> dict[str, Any]:
    """What is known of an exchange: bytes and milliseconds."""
    known: dict[str, Any] = {
        "method": exchange.method[:20],
        "path": one_line(exchange.path, 200),
        "status": exchange.status,
        "sent_bytes": exchange.sent_bytes,
        "total_ms": round(seconds * 1e3, 3),
    }
    invocation = exchange.invocation
    identifier = exchange.request_id or (invocation.request_id if invocation else "")
    if identifier:
        known["request_id"] = identifier
    if invocation is not None:
        known["received_bytes"] = invocation.size_bytes
        if (batch := invocation.batch) is not None:
            known["queue_ms"] = round((batch.began - invocation.queued_at) * 1e3, 3)
            known["predict_ms"] = round(batch.forward_s * 1e3, 3)
            known["batch"] = batch.requests
    return known
