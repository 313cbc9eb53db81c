"""The requests inside one model: waiting, sent, streaming, or held by a process that died."""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from byoc_serving.batcher import Admission
from byoc_serving.exchange import Response, error_response
from byoc_serving.multimodel.wire import Frame, Kind, head
from byoc_serving.relay import call_soon
from byoc_serving.streaming import Stream, StreamCancelledError

if TYPE_CHECKING:
    from collections.abc import Callable

    from byoc_serving.backend import Delivery
    from byoc_serving.errors import RequestError
    from byoc_serving.exchange import Invocation
    from byoc_serving.multimodel.channel import Channel
    from byoc_serving.settings import Settings


@dataclass
class Call:
    """A request inside: ``deaths`` counts the processes that ended while they held it."""

    invocation: Invocation
    start: bytes
    body: bytes
    deaths: int = 0
    stream: Stream[Response] | None = None
    paused: bool = False


class Calls:
    """Sends requests to the model's process and hands its answers on; all on one loop.

    A process that dies held some requests: they are sent to the next one again, first and one by
    one, so that the one that kills again fails alone. Streams that have begun break off.

    Args:
        settings: the server's.
        deliver: gets answered requests.
    """

    def __init__(self, settings: Settings, deliver: Callable[[Delivery], None]) -> None:
        self.admission = Admission(settings.queue_requests, settings.queue_bytes)
        #: Set while nothing is inside.
        self.idle = asyncio.Event()
        self.idle.set()
        self._stream_timeout_s = settings.stream_timeout_s
        self._deliver = deliver
        self._channel: Channel | None = None
        self._inside: dict[int, Call] = {}
        self._numbers = 0
        self._unsent: deque[int] = deque()
        self._suspects: deque[int] = deque()
        self._suspect: int | None = None

    def add(self, invocation: Invocation) -> None:
        """Send a request, or keep it until there is a process; ``admission`` has let it in."""
        import orjson  # noqa: PLC0415 - checked by main before anything else loads

        self._numbers += 1
        number = self._numbers
        headers = [(n.decode("latin-1"), v.decode("latin-1")) for n, v in invocation.headers]
        # One clock for all processes of the machine; no deadline is infinite, in JSON null.
        facts = {"id": invocation.request_id, "deadline": invocation.deadline}
        meta = orjson.dumps({"headers": headers, **facts})
        # Without spooling a body is in memory already, and then this copies nothing.
        body = bytes(invocation.body)
        self._inside[number] = Call(invocation, head(Kind.INVOKE, number, meta, len(body)), body)
        self.idle.clear()
        self._unsent.append(number)
        self._pump()

    def attach(self, channel: Channel) -> None:
        """A process takes requests from now on."""
        self._channel = channel
        self._pump()

    def _pump(self) -> None:
        """Send what can be sent; after a crash, what it held goes first and alone."""
        if self._channel is None:
            return
        while self._suspect is None and self._suspects:
            number = self._suspects.popleft()
            if number in self._inside:
                self._suspect = number
                self._channel.send(self._inside[number].start, self._inside[number].body)
        if self._suspect is not None:
            return
        while self._unsent:
            call = self._inside[self._unsent.popleft()]
            self._channel.send(call.start, call.body)

    def died(self, error: Callable[[], RequestError]) -> None:
        """The process has ended by itself.

        Args:
            error: what the request gets that was inside two of them.
        """
        self._channel = None
        # Neither what was never sent nor what waited for its second chance can have done it.
        innocent = {*self._unsent, *self._suspects}
        held = [number for number in self._inside if number not in innocent]
        self._suspect = None
        for number in held:
            call = self._inside[number]
            call.deaths += 1
            if call.stream is not None or (call.deaths > 1 and len(held) == 1):
                self._fail(number, error())
            else:
                self._suspects.append(number)

    def fail_all(self, error: RequestError) -> None:
        """Answer everything that is inside with an error."""
        self._unsent.clear()
        self._suspects.clear()
        self._suspect = None
        for number in list(self._inside):
            self._fail(number, error)

    def _fail(self, number: int, error: RequestError) -> None:
        call = self._leave(number)
        if call is None:
            return
        response = error_response(error, call.invocation.request_id)
        if call.stream is None:
            self._deliver([(call.invocation, response)])
        elif call.stream.head is None:
            call.stream.answer(response)
        else:
            call.stream.fail()

    def _leave(self, number: int) -> Call | None:
        """A request is done, in whatever way."""
        call = self._inside.pop(number, None)
        if number == self._suspect:
            self._suspect = None
        if call is not None:
            self.admission.leave(call.invocation.size_bytes)
        if not self._inside:
            self.idle.set()
        return call

    def answered(self, frames: list[Frame]) -> None:
        """Answers, or parts of streams, that have arrived."""
        pairs: Delivery = []
        for frame in frames:
            if frame.kind == Kind.ANSWER:
                call = self._leave(frame.number)
                if call is None:
                    continue
                if call.stream is None:
                    pairs.append((call.invocation, _response(frame)))
                else:
                    call.stream.answer(_response(frame))
            elif frame.number in self._inside:
                self._part(frame, self._inside[frame.number])
        if pairs:
            self._deliver(pairs)
        if self._unsent or self._suspects:
            self._pump()

    def _part(self, frame: Frame, call: Call) -> None:
        """A part of a stream."""
        if frame.kind == Kind.STREAM:
            call.stream = self._begin(frame.number)
            self._deliver([(call.invocation, Response(200, stream=call.stream))])
        stream = call.stream
        if stream is None:
            return
        if frame.kind == Kind.OPEN:
            stream.open(_response(frame))
        elif frame.kind == Kind.CHUNK:
            try:
                stream.feed(frame.body)
            except StreamCancelledError:
                # The process has been told, and ends it.
                return
            if stream.full and not call.paused:
                call.paused = True
                self._say(Kind.PAUSE, frame.number)
        elif frame.kind == Kind.END:
            self._leave(frame.number)
            if b"true" in frame.meta:
                stream.fail()
            else:
                stream.end()

    def _begin(self, number: int) -> Stream[Response]:
        """A stream whose consumer, in whichever thread, steers the process."""
        loop = asyncio.get_running_loop()
        stream: Stream[Response] = Stream(self._stream_timeout_s)
        stream.on_cancel(partial(call_soon, loop, self._say, Kind.CANCEL, number))
        stream.on_drain(partial(call_soon, loop, self._drained, number))
        return stream

    def _drained(self, number: int) -> None:
        call = self._inside.get(number)
        if call is not None and call.paused:
            call.paused = False
            self._say(Kind.RESUME, number)

    def _say(self, kind: Kind, number: int) -> None:
        if self._channel is not None and number in self._inside:
            self._channel.send(head(kind, number, b""), b"")


def _response(frame: Frame) -> Response:
    import orjson  # noqa: PLC0415 - checked by main before anything else loads

    meta = orjson.loads(frame.meta)
    headers = tuple((name, value) for name, value in meta["headers"])
    return Response(meta["status"], frame.body, meta["type"], headers)
