"""A bidirectional stream: messages in, messages out, the handler between them in its own thread.

What goes out is a ``Stream`` whose chunks are messages: the first byte is the WebSocket opcode
(RFC 6455 section 5.2; 1 text, 2 binary, 8 close with its code and reason), the rest the payload.
Plain bytes, so that another process could be at either end.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from byoc_serving.exchange import JSON, Response, one_line
from byoc_serving.streaming import StreamCancelledError
from byoc_serving.streams import produce, soon

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

    from byoc_serving.context import Context
    from byoc_serving.errors import RequestError
    from byoc_serving.handler import Function
    from byoc_serving.streaming import Stream

TEXT, BINARY, CLOSE = b"\x01", b"\x02", b"\x08"
NORMAL, GOING_AWAY, FAILED = 1000, 1001, 1011
#: A close frame carries at most 125 bytes, two of them its code (RFC 6455 section 5.5).
_REASON_BYTES = 123
#: Messages and bytes that wait for the handler before the client has to.
INBOX_MESSAGES = 1024
INBOX_BYTES = 4 * 1024 * 1024


class Messages:
    """What the client sends, as the handler reads it: an iterator, and an asynchronous one.

    Text messages are str, binary ones bytes. The iteration ends when the client closes.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._waiting: deque[str | bytes] = deque()
        self._held_bytes = 0
        self._ended = False
        self._on_put: Callable[[], None] | None = None
        self._on_take: Callable[[], None] | None = None
        #: What has been taken, since the beginning.
        self.taken_messages = self.taken_bytes = 0

    def put(self, message: str | bytes) -> None:
        """A message has come."""
        with self._changed:
            self._waiting.append(message)
            self._held_bytes += len(message)
        self._tell()

    def end(self) -> None:
        """Nothing more will come."""
        with self._changed:
            self._ended = True
        self._tell()

    def _tell(self) -> None:
        with self._changed:
            self._changed.notify_all()
            callback = self._on_put
        if callback is not None:
            callback()

    @property
    def full(self) -> bool:
        """Whether the client should wait."""
        return len(self._waiting) >= INBOX_MESSAGES or self._held_bytes >= INBOX_BYTES

    def on_take(self, callback: Callable[[], None]) -> None:
        """Have a function called whenever the handler has taken a message."""
        self._on_take = callback

    def listen(self, callback: Callable[[], None]) -> None:
        """Have a function called whenever there is a message, or will be none."""
        self._on_put = callback

    @property
    def over(self) -> bool:
        """Whether the client has closed and everything has been taken."""
        with self._changed:
            return self._ended and not self._waiting

    def take(self) -> str | bytes | None:
        """The next message, if there is one."""
        with self._changed:
            if not self._waiting:
                return None
            message = self._waiting.popleft()
            self._held_bytes -= len(message)
            self.taken_messages += 1
            self.taken_bytes += len(message)
        if self._on_take is not None:
            self._on_take()
        return message

    def __iter__(self) -> Iterator[str | bytes]:
        """Itself."""
        return self

    def __next__(self) -> str | bytes:
        """The next message; waits for it.

        Raises:
            StopIteration: the client has closed.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._ended)
        message = self.take()
        if message is None:
            raise StopIteration
        return message

    def __aiter__(self) -> AsyncIterator[str | bytes]:
        """Itself."""
        return self

    async def __anext__(self) -> str | bytes:
        """The next message; waits for it on the handler's own loop.

        Raises:
            StopAsyncIteration: the client has closed.
        """
        loop = asyncio.get_running_loop()
        arrived = asyncio.Event()
        self.listen(lambda: soon(loop, arrived.set))
        while True:
            arrived.clear()
            ended = self._ended
            message = self.take()
            if message is not None:
                return message
            if ended:
                raise StopAsyncIteration
            await arrived.wait()


@dataclass(frozen=True)
class Conversation:
    """One bidirectional stream.

    Attributes:
        function: the handler's bidirectional_fn.
        model: its model.
        messages: from the client.
        context: the request's.
        failed: what an exception means for the client.
    """

    function: Function
    model: Any
    messages: Messages
    context: Context
    failed: Callable[[Exception], RequestError]

    def run(self, stream: Stream[Response]) -> None:
        """Talk until the handler or the client has nothing more to say."""
        import torch  # noqa: PLC0415 - imported by now

        # A handler that waits for a message must wake up when nobody will send one.
        stream.on_cancel(self.messages.end)
        stream.open(Response(101))
        try:
            with torch.inference_mode():
                answers = self.function(self.context, self.messages, self.model)
                if answers is not None:
                    produce(answers, frame, stream)
            stream.end()
        except (StreamCancelledError, asyncio.CancelledError):
            stream.fail()
        except Exception as error:  # noqa: BLE001 - any failure is this conversation's own
            fault = self.failed(error)
            if not stream.cancelled:
                stream.feed(close_frame(FAILED, str(fault)))
            stream.fail()


def frame(item: Any) -> bytes:
    """A handler's item as a message: str is text, bytes are binary, anything else is JSON text.

    Raises:
        TypeError: it is nothing that JSON can say.
    """
    if isinstance(item, str):
        return TEXT + item.encode()
    if isinstance(item, (bytes, bytearray, memoryview)):
        return BINARY + bytes(item)
    from byoc_serving import codecs  # noqa: PLC0415 - numpy is imported by now

    return TEXT + codecs.encode(item, JSON)


def close_frame(code: int, reason: str) -> bytes:
    """A close message with a reason cut to what one may hold."""
    text = one_line(reason, _REASON_BYTES).encode()[:_REASON_BYTES]
    return CLOSE + code.to_bytes(2, "big") + text.decode("utf-8", "ignore").encode()
