"""What answers invocations, as the HTTP side sees it: a model here, or one in another process.

``Service`` keeps HTTP's rules (admission, ping, errors); behind it stands one ``Backend``:

- ``inline.Inline``: the model in this process, in a thread of its own.
- ``remote.Remote``: the model in another process, reached over a socket and shared memory.

A backend that takes an invocation by ``submit`` answers it exactly once through the delivery it was
started with, however the request ends. A handler that streams answers with a ``Response.stream``
(``streaming.Stream``), delivered at once; the backend is its producer and must end it.
"""

from __future__ import annotations

from concurrent.futures import InvalidStateError
from typing import TYPE_CHECKING, Protocol

from byoc_serving.exchange import Invocation, Response

if TYPE_CHECKING:
    import asyncio
    import threading
    from collections.abc import Callable

    from byoc_serving.conversation import Messages
    from byoc_serving.streaming import Stream

#: Finished requests; handed over a batch at a time, so that a front wakes up once for all.
Delivery = list[tuple[Invocation, Response]]


class Backend(Protocol):
    """A model that can be asked.

    Attributes:
        settled: set when the first start has ended, well or badly (``failure`` says which).
        failure: why it can never answer, once that is known; one line.
    """

    settled: threading.Event
    failure: str | None

    @property
    def ready(self) -> bool:
        """Whether a request would be answered rather than wait for a load."""

    @property
    def origin(self) -> str:
        """Where the handler's functions come from, for the log."""

    @property
    def device(self) -> str:
        """Where the model is: ``cpu`` or ``cuda:0``."""

    def start(
        self,
        deliver: Callable[[Delivery], None],
        on_settled: Callable[[], None] | None = None,
        loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        """Begin to load, or to connect; returns at once.

        Args:
            deliver: gets finished batches, in a thread of the backend's choice.
            on_settled: called when the first start has ended, in such a thread.
            loop: the running loop, when ``submit`` is only ever called on it: the backend may
                do short work there.
        """

    def submit(self, invocation: Invocation) -> None:
        """Queue a request whose body is complete; safe in any thread.

        Raises:
            RequestError: it is refused before it was queued: the body is bad, its type or the
                accepted ones are not ours, or there is no room. There will be no delivery.
        """

    @property
    def bidirectional_paths(self) -> tuple[str, ...] | None:
        """Where WebSockets are taken, if anywhere; None: only another process knows as yet."""

    def converse(self, invocation: Invocation, messages: Messages) -> Stream[Response]:
        """Begin a bidirectional stream; the returned one carries messages (``conversation``).

        Raises:
            RequestError: not now.
        """

    def defunct(self) -> str | None:
        """Why this process has to be replaced, its requests being answered by then; else None."""

    def close(self, timeout_s: float) -> bool:
        """Answer what is queued, then end; True when that has happened in time."""


def settle(pairs: Delivery) -> None:
    """Set each request's future, unless nobody waits any more."""
    for invocation, response in pairs:
        if not invocation.future.done():
            try:
                invocation.future.set_result(response)
            except InvalidStateError:
                # Cancelled by its own thread between the two lines.
                if response.stream is not None:
                    response.stream.cancel()
        elif response.stream is not None:
            response.stream.cancel()
