"""The requests inside one model: waiting, sent, streaming, or held by a process that died."""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from byoc_serving.batcher import Admission
from byoc_serving.deadline import ABANDONED
from byoc_serving.exchange import CLIENT_LEFT, Response, error_response
from byoc_serving.multimodel.parcel import pack
from byoc_serving.multimodel.wire import Frame, Kind, head
from byoc_serving.relay import call_soon
from byoc_serving.running import End, Left
from byoc_serving.streaming import Stream, StreamCancelledError

if TYPE_CHECKING:
    from collections.abc import Callable

    from byoc_serving.backend import Delivery
    from byoc_serving.errors import RequestError
    from byoc_serving.exchange import Invocation
    from byoc_serving.multimodel.channel import Channel
    from byoc_serving.multimodel.tally import Tally
    from byoc_serving.settings import Settings


@dataclass
class Call:
    """A request inside.

    Attributes:
        deaths: processes that ended while they ran it.
        abandoned: its client has left, and the process knows.
    """

    invocation: Invocation
    start: bytes
    body: bytes
    deaths: int = 0
    abandoned: bool = False
    stream: Stream[Response] | None = None
    paused: bool = False


class Calls:
    """Sends requests to the model's process and hands its answers on; all on one loop.

    What a process was running when it died is sent to the next one again, first and one by one, so
    that the one that kills again fails alone; what it had not looked at is sent as if nothing had
    happened. Streams that have begun break off.

    Args:
        settings: the server's.
        deliver: gets answered requests.
        tally: counts them.
    """

    def __init__(
        self, settings: Settings, deliver: Callable[[Delivery], None], tally: Tally
    ) -> None:
        self._tally = tally
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
        self._numbers += 1
        number = self._numbers
        meta, body = pack(invocation)
        self._inside[number] = Call(invocation, head(Kind.INVOKE, number, meta, len(body)), body)
        self.idle.clear()
        self._unsent.append(number)
        self._pump()

    def __len__(self) -> int:
        """How many requests are inside."""
        return len(self._inside)

    def sweep(self) -> None:
        """Look for requests whose clients have left: the process need not run them."""
        left = [
            number
            for number, call in self._inside.items()
            if call.stream is None and not call.abandoned and call.invocation.future.cancelled()
        ]
        for number in left:
            self._inside[number].abandoned = True
            for waiting in (self._unsent, self._suspects):
                if number in waiting:
                    waiting.remove(number)
                    self._give(number, ABANDONED)
            # It answers this one like any other, and so gives its place free.
            self._say(Kind.CANCEL, number)
            self._tally.answered(CLIENT_LEFT)

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

    def died(self, left: Left, error: Callable[[], RequestError]) -> None:
        """The process has ended by itself, or was ended because it hung.

        Args:
            left: what it was running.
            error: what a request gets that is guilty: it was inside two of them, or hung alone.
        """
        self._channel = None
        waiting = {*self._unsent, *self._suspects}
        again: list[int] = []
        suspect, self._suspect = self._suspect, None
        for number, call in list(self._inside.items()):
            if call.stream is not None:
                self._fail(number, error())
            elif call.abandoned:
                self._give(number, ABANDONED)
            elif number in left.ids:
                call.deaths += 1
                alone = left.count == 1
                if alone and (call.deaths > 1 or left.end is End.HUNG):
                    self._fail(number, error())
                else:
                    self._suspects.append(number)
            elif number == suspect:
                self._suspects.appendleft(number)
            elif number not in waiting:
                # Sent, and not looked at.
                again.append(number)
        self._unsent.extendleft(reversed(again))

    def fail_all(self, error: RequestError) -> None:
        """Answer everything that is inside with an error."""
        self._unsent.clear()
        self._suspects.clear()
        self._suspect = None
        for number in list(self._inside):
            self._fail(number, error)

    def _fail(self, number: int, error: RequestError) -> None:
        call = self._inside.get(number)
        if call is not None:
            self._give(number, error_response(error, call.invocation.request_id))

    def _give(self, number: int, response: Response) -> None:
        """Answer a request without its process."""
        call = self._leave(number, response.status)
        if call is None:
            return
        if call.stream is None:
            self._deliver([(call.invocation, response)])
        elif call.stream.head is None:
            call.stream.answer(response)
        else:
            call.stream.fail()

    def _leave(self, number: int, status: int) -> Call | None:
        """A request is done, in whatever way."""
        call = self._inside.pop(number, None)
        if number == self._suspect:
            self._suspect = None
        if call is not None:
            self.admission.leave(call.invocation.size_bytes)
            if not call.abandoned:
                self._tally.answered(status)
        if not self._inside:
            self.idle.set()
        return call

    def answered(self, frames: list[Frame]) -> None:
        """Answers, or parts of streams, that have arrived."""
        pairs: Delivery = []
        for frame in frames:
            if frame.kind == Kind.ANSWER:
                response, meta = _response(frame)
                call = self._leave(frame.number, response.status)
                if call is None:
                    continue
                self._tally.reported(call.invocation, meta)
                if call.stream is None:
                    pairs.append((call.invocation, response))
                else:
                    call.stream.answer(response)
            elif frame.number in self._inside:
                self._part(frame, self._inside[frame.number])
        if pairs:
            self._deliver(pairs)
        if self._unsent or self._suspects:
            self._pump()

    def _part(self, frame: Frame, call: Call) -> None:
        """A part of a stream."""
        import orjson  # noqa: PLC0415 - checked by main before anything else loads

        if frame.kind == Kind.STREAM:
            call.stream = self._begin(frame.number)
            self._tally.reported(call.invocation, orjson.loads(frame.meta))
            self._deliver([(call.invocation, Response(200, stream=call.stream))])
        stream = call.stream
        if stream is None:
            return
        if frame.kind == Kind.OPEN:
            stream.open(_response(frame)[0])
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
            broken = b"true" in frame.meta
            status = stream.head.status if stream.head is not None else 200
            self._leave(frame.number, 500 if broken and not stream.cancelled else status)
            if broken:
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


def _response(frame: Frame) -> tuple[Response, dict[str, Any]]:
    """The response, and all that came with it."""
    import orjson  # noqa: PLC0415 - checked by main before anything else loads

    meta = orjson.loads(frame.meta)
    headers = tuple((name, value) for name, value in meta["headers"])
    return Response(meta["status"], frame.body, meta["type"], headers), meta
