"""Looks after the connections that make a worker wait: unfinished heads and bodies, idle ones."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING

from byoc_serving.errors import RequestTimeoutError

if TYPE_CHECKING:
    from collections.abc import Collection

    from byoc_serving.connection import Protocol
    from byoc_serving.patience import Patience

#: Connections to look at before others have their turn: ten thousand take a tenth of a second.
_AT_A_TIME = 64


@dataclass
class _Seen:
    """What a sweep saw of a connection, and since when it has been so."""

    phase: tuple[str, int]
    since: float
    heard: int
    body_bytes: int
    mark: int
    last: float


class Sweeper:
    """Looks at every connection about once a second: no timers and no clock on a request's way.

    Args:
        patience: the limits.
    """

    def __init__(self, patience: Patience) -> None:
        self._patience = patience
        self._seen: dict[Protocol, _Seen] = {}

    @property
    def interval_s(self) -> float:
        """How often to sweep."""
        limits = self._patience
        return min(1.0, min(limits.head_s, limits.body_s, limits.idle_s) / 4)

    async def sweep(self, connections: Collection[Protocol], now: float) -> None:
        """Act on what has taken too long; the loop has its turns in between.

        Args:
            connections: those that are open; they may come and go meanwhile.
            now: seconds of the loop's clock.
        """
        before, self._seen = self._seen, {}
        for number, connection in enumerate(list(connections), 1):
            if number % _AT_A_TIME == 0:
                await asyncio.sleep(0)
            if connection not in connections:
                continue
            seen = self._look(connection, before.get(connection), now)
            if seen is not None:
                self._seen[connection] = seen

    def _look(self, connection: Protocol, seen: _Seen | None, now: float) -> _Seen | None:
        if connection.lingering:
            return None
        if connection.half_closed:
            connection.watch()
            return None
        if connection.straight is not None:
            return None
        if connection._awaiting_request:  # noqa: SLF001 - gunicorn's own state
            return self._waiting(connection, seen, now)
        if connection.reading_body:
            return self._body(connection, seen, now)
        return None

    def _waiting(self, connection: Protocol, seen: _Seen | None, now: float) -> _Seen | None:
        """Between requests, or within a head."""
        count: int = connection.req_count
        known = seen is not None and seen.phase[1] == count
        partial = connection.partial or (
            known
            and seen is not None
            and (seen.phase[0] == "head" or seen.heard != connection.heard)
        )
        phase = ("head" if partial else "idle", count)
        if seen is None or seen.phase != phase:
            return _Seen(phase, now, connection.heard, 0, 0, now)
        if partial and now - seen.since >= self._patience.head_s:
            connection.refuse(
                RequestTimeoutError(
                    f"the request's headers did not arrive within {self._patience.head_s:g} s"
                )
            )
            return None
        if not partial and now - seen.since >= self._patience.idle_s:
            connection.close_idle()
            return None
        return seen

    def _body(self, connection: Protocol, seen: _Seen | None, now: float) -> _Seen | None:
        phase = ("body", connection.req_count)
        received = connection.body_bytes
        if seen is None or seen.phase != phase:
            return _Seen(phase, now, 0, received, received, now)
        if received != seen.body_bytes:
            seen.body_bytes, seen.last = received, now
        if now >= self._patience.body_until(seen.since, seen.last, received - seen.mark):
            connection.body_is_late()
            return None
        return seen
