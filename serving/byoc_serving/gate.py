"""What a worker of the event loop does not begin with while it has enough to do.

A loop that reads, decodes or refuses whatever has come before it computes again does nothing else
once enough comes: at three times the load that a server could answer, 4 % of it was answered. So
beyond what keeps the model busy, a request's first bytes wait as they came, unparsed, in order,
with nothing more read from their connection. When even that is full, a request is refused with as
little work as can be. Pings, and everything that is no invocation, pass.
"""

from __future__ import annotations

import math
import re
from collections import deque
from typing import TYPE_CHECKING, Any

from byoc_serving.errors import UnavailableError
from byoc_serving.exchange import Exchange, error_response, request_id
from byoc_serving.straight import BEGIN

if TYPE_CHECKING:
    from byoc_serving.connection import Protocol
    from byoc_serving.exchange import Response
    from byoc_serving.service import Service

_LENGTH = re.compile(rb"\r\ncontent-length: *([0-9]{1,12})\r\n", re.IGNORECASE)
_ID = re.compile(
    rb"\r\nx-amzn-(?:sagemaker-inference-id|requestid): *([!-~]{1,128})\r\n", re.IGNORECASE
)
#: So many may wait for however long it takes; beyond them, nobody while the first has waited
#: for as long as the settings say.
ALWAYS = 1024
#: A request with any of these but one Content-Length is for the parser.
_SPECIAL = re.compile(
    rb"content-length|transfer-encoding|\r\n(?:expect|connection|upgrade)", re.IGNORECASE
)
#: What has been let in may turn out to be no request; then nothing else says that there is room.
_LOOK_S = 0.002


class Gate:
    """Holds requests back, and lets them in as others are answered.

    Args:
        service: knows what is being worked on.
        most: requests that keep the model busy.
        loop: the worker's.
    """

    def __init__(self, service: Service, most: int, loop: Any) -> None:
        self._service = service
        self._most = min(most, service.settings.queue_requests)
        self._loop = loop
        settings = service.settings
        # A transform job sends no more at once than it was told to; it must not be refused.
        self._queue_s = math.inf if settings.batch else settings.queue_s
        #: Each with the time at which it came.
        self._held: deque[tuple[Protocol, bytes, float]] = deque()
        self._bytes = 0
        self._timer: Any = None
        service.on_answers = self.answered

    def takes(self, connection: Protocol, data: bytes) -> bool:
        """Whether the bytes that begin a request are dealt with here, for now or for good."""
        admission = self._service.admission
        if admission.working < self._most and not self._held:
            return False
        if not data.startswith(BEGIN):
            return False
        waiting = admission.items + admission.held
        if self._full(waiting):
            return self._refused(connection, data, waiting)
        connection.hold()
        self._held.append((connection, data, self._loop.time()))
        self._bytes += len(data)
        admission.held += 1
        self._look_later()
        return True

    def _full(self, waiting: int) -> bool:
        admission = self._service.admission
        if waiting >= admission.max_items or self._bytes >= admission.max_bytes:
            return True
        # Measured, not foreseen: refusing takes time too, and a pace that counts it would go on
        # refusing because it refuses.
        if waiting < ALWAYS or not self._held:
            return False
        return bool(self._loop.time() - self._held[0][2] > self._queue_s)

    def answered(self) -> None:
        """Requests have been answered; safe in any thread of the loop's process."""
        if self._held:
            self._loop.call_soon_threadsafe(self._release)

    def _look_later(self) -> None:
        if self._timer is None:
            self._timer = self._loop.call_later(_LOOK_S, self._look)

    def _look(self) -> None:
        self._timer = None
        self._release()
        if self._held:
            self._look_later()

    def _release(self) -> None:
        """Let in as many as there is room for."""
        admission = self._service.admission
        room = self._most - admission.working
        while self._held and room > 0:
            connection, data, _ = self._held.popleft()
            self._bytes -= len(data)
            admission.held -= 1
            room -= connection.go_on(data)

    def _refused(self, connection: Protocol, data: bytes, waiting: int) -> bool:
        """Answer a simple request, which has come whole, with 503; False: the parser has to."""
        end = data.find(b"\r\n\r\n")
        head = data[: end + 2]
        length = _LENGTH.search(head)
        if end < 0 or length is None or len(data) != end + 4 + int(length[1]):
            return False
        lines = head.count(b"\r\n")
        if not lines == head.count(b"\r") == head.count(b"\n") or len(_SPECIAL.findall(head)) != 1:
            return False
        named = _ID.search(head)
        error = UnavailableError(
            f"the server is full: {waiting} requests are waiting or running; try again",
            "full",
        )
        response = error_response(error, request_id(named[1].decode() if named else None))
        connection.answer(response)
        self._note(response)
        return True

    def _note(self, response: Response) -> None:
        observer = self._service.observer
        if observer is not None:
            exchange = Exchange("POST", "/invocations")
            exchange.answered(response)
            observer.response(exchange)
