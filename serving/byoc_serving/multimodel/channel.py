"""The front's end of one model process: frames out, frames in, and how it ended."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from byoc_serving.multimodel.wire import Frame, Kind, Parser

if TYPE_CHECKING:
    from collections.abc import Callable

    from byoc_serving.running import Left, Running


class Channel(asyncio.Protocol):
    """A model process as the front sees it.

    Attributes:
        pid: its process id.
        phase: what its loading is doing.
        condemned: it hangs, and is being ended.
        loaded: becomes what LOADED or FAILED says; cancelled when the process ends before.
        exited: becomes the exit code when the process is gone and its memory is free: negative
            for a signal's number, None when nobody could know.

    Args:
        loop: the loop that all of this runs on.
        on_answers: gets the frames of answers that have arrived.
        running: where the process says what it runs.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        on_answers: Callable[[list[Frame]], None],
        running: Running,
    ) -> None:
        self._running = running
        self.pid = 0
        self.phase = "starting"
        self.condemned = False
        self.loaded: asyncio.Future[Frame] = loop.create_future()
        self.exited: asyncio.Future[int | None] = loop.create_future()
        self._on_answers = on_answers
        self._parser = Parser()
        self._transport: Any = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The channel is there."""
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        """Frames, or parts of them."""
        answers: list[Frame] = []
        for frame in self._parser.feed(data):
            if frame.kind == Kind.PHASE:
                import orjson  # noqa: PLC0415 - checked by main before anything else loads

                self.phase = orjson.loads(frame.meta)["phase"]
            elif frame.kind not in {Kind.LOADED, Kind.FAILED}:
                answers.append(frame)
            elif not self.loaded.done():
                self.loaded.set_result(frame)
        if answers:
            self._on_answers(answers)

    def send(self, start: bytes, body: bytes) -> None:
        """One frame; to a process that has ended it goes nowhere, and ``exited`` tells."""
        if self._transport is None or self._transport.is_closing():
            return
        self._transport.write(start)
        if body:
            self._transport.write(body)

    def busy_s(self) -> float:
        """Seconds that the process has been at its batch; 0: none runs."""
        return self._running.busy_s(0, 0)

    def condemn(self) -> None:
        """Note that the process is ended because it hangs."""
        self.condemned = True
        self._running.condemn(0, 0)

    def left(self) -> Left:
        """What the process, which has ended, was running."""
        return self._running.left(0, 0, 0)

    def gone(self, code: int | None) -> None:
        """The process is gone."""
        if self._transport is not None:
            self._transport.close()
        if not self.exited.done():
            self.exited.set_result(code)
        if not self.loaded.done():
            self.loaded.cancel()
