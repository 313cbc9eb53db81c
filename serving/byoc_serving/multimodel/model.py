"""One model of the endpoint: its process, its requests, and what happens when it crashes."""

from __future__ import annotations

import asyncio
import logging
import time
from functools import partial
from typing import TYPE_CHECKING, Any

from byoc_serving.errors import (
    DeadlineError,
    InsufficientMemoryError,
    InternalError,
    ModelLoadError,
    RequestError,
    UnavailableError,
    UnknownModelError,
)
from byoc_serving.exchange import error_response, one_line
from byoc_serving.exposition import forget_handlers_gauges
from byoc_serving.multimodel import memory
from byoc_serving.multimodel.calls import Calls
from byoc_serving.multimodel.endings import describe, hung, lost, lost_while_loading
from byoc_serving.multimodel.state import State
from byoc_serving.multimodel.tally import Tally
from byoc_serving.multimodel.wire import Kind
from byoc_serving.running import End

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from byoc_serving.backend import Delivery
    from byoc_serving.exchange import Invocation
    from byoc_serving.multimodel.channel import Channel
    from byoc_serving.multimodel.location import LoadRequest
    from byoc_serving.multimodel.nursery import Nursery
    from byoc_serving.observer import Observer
    from byoc_serving.running import Left
    from byoc_serving.settings import Settings

log = logging.getLogger("byoc_serving")

#: A restart waits longer after each crash in a row, up to this.
MAX_PAUSE_S = 60.0
#: Requests wait for a restart that comes sooner; others are told to come back.
PATIENCE_S = 2.0
#: A model that has run this long has recovered.
RECOVERED_S = 60.0


class Model:
    """A model and its process.

    Args:
        request: the platform's opaque name, and where the model is, as the platform said.
        folder: where that is.
        spec: what the process is told: folder, workspace, gpu.
        nursery: makes processes.
        settings: the server's.
        deliver: gets answered requests.
        observer: counts for the whole server; None: nobody does.
    """

    def __init__(
        self,
        request: LoadRequest,
        folder: Path,
        spec: dict[str, Any],
        nursery: Nursery,
        settings: Settings,
        deliver: Callable[[Delivery], None],
        observer: Observer | None = None,
    ) -> None:
        self.name = request.name
        self.url = request.url
        self.folder = folder
        self.spec = spec
        self.state = State.LOADING
        self.tally = Tally(observer)
        self.calls = Calls(settings, deliver, self.tally)
        #: Set when it is gone for good.
        self.gone = asyncio.Event()
        self._nursery = nursery
        self._settings = settings
        self._deliver = deliver
        self._channel: Channel | None = None
        self._crashes = 0
        self._since = time.monotonic()
        self._resumes_at = 0.0
        self._last_cause = ""
        self._kills = 0
        self._ending = asyncio.Event()
        self._keeper: asyncio.Task[None] | None = None
        self._killer: asyncio.Task[None] | None = None

    @property
    def label(self) -> str:
        """The name as the log shows it."""
        return one_line(self.name, 80)

    async def load(self) -> dict[str, Any]:
        """Start the process and wait until the model is loaded.

        Returns:
            What the process says of itself, with ``seconds``.

        Raises:
            InsufficientMemoryError: memory ran out.
            ModelLoadError: the model cannot load; says why.
            DeadlineError: it took too long.
            UnavailableError: it was unloaded meanwhile, or no process can be had.
        """
        began = time.monotonic()
        facts = await self._launch()
        facts["seconds"] = time.monotonic() - began
        self.ready()
        return facts

    async def _launch(self) -> dict[str, Any]:
        import orjson  # noqa: PLC0415 - checked by main before anything else loads

        kills = memory.oom_kills()
        channel = await self._nursery.fork(self.spec, self.calls.answered)
        self._channel = channel
        timeout = self._settings.load_timeout_s
        if self.state is State.UNLOADING:
            await self._nursery.stop(channel)
        await asyncio.wait([channel.loaded], timeout=timeout)
        if not channel.loaded.done():
            phase = channel.phase
            await self._nursery.stop(channel)
            raise DeadlineError(
                f"the model did not load within {timeout:.0f} s (last: {phase}); make it load "
                "faster, or raise SAGEMAKER_STARTUP_TIMEOUT"
            )
        if not channel.loaded.cancelled():
            frame = channel.loaded.result()
            facts: dict[str, Any] = orjson.loads(frame.meta)
            if frame.kind == Kind.LOADED:
                # Whoever unloads it has ended the process, or is about to.
                self._check_unloading()
                return facts
            await self._nursery.stop(channel)
            self._check_unloading()
            if facts["memory"]:
                raise InsufficientMemoryError(f"memory ran out: {facts['cause']}")
            raise ModelLoadError(facts["cause"])
        code = await channel.exited
        self._check_unloading()
        raise lost_while_loading(
            code, channel.phase, for_memory=code == -9 or memory.oom_kills() > kills
        )

    def _check_unloading(self) -> None:
        if self.state is State.UNLOADING:
            raise UnavailableError("the model was unloaded while it loaded", "unloading")

    def ready(self) -> None:
        """Take requests from now on, and look after the process."""
        self.state = State.READY
        self._since = time.monotonic()
        self._kills = memory.oom_kills()
        if self._keeper is None:
            self._keeper = asyncio.ensure_future(self._keep())
        assert self._channel is not None  # noqa: S101 - it has just said that it is loaded
        self.calls.attach(self._channel)

    def revive(self) -> None:
        """Load again what a crashed front had loaded; requests wait meanwhile."""
        self.state = State.RESTARTING
        self._keeper = asyncio.ensure_future(self._keep())

    async def _keep(self) -> None:
        """Restart the process whenever it ends by itself."""
        while self.state is not State.UNLOADING:
            if self.state is State.READY:
                assert self._channel is not None  # noqa: S101 - ready means that it is there
                code = await self._channel.exited
                left = self._channel.left()
                if self._unloading():
                    self.calls.died(left, partial(self._lost, code, left))
                    self.calls.fail_all(
                        InternalError(f"the model's process ended: {describe(code)}")
                    )
                    return
                self._crashed(code, left)
            await self._restart()

    def look(self) -> None:
        """Called a few times a second: end a process that hangs, drop what nobody waits for."""
        self.calls.sweep()
        channel, limit_s = self._channel, self._settings.forward_timeout_s
        if channel is None or channel.condemned or channel.busy_s() <= limit_s:
            return
        log.error(
            "model %s hangs: a batch has been running for more than %g s "
            "(BYOC_FORWARD_TIMEOUT_SECONDS); its process %d is killed",
            self.label,
            limit_s,
            channel.pid,
        )
        channel.condemn()
        self._killer = asyncio.ensure_future(self._nursery.kill(channel))

    def _unloading(self) -> bool:
        return self.state is State.UNLOADING

    def _crashed(self, code: int | None, left: Left) -> None:
        self.tally.restarted()
        forget_handlers_gauges(self.pid)
        self.state = State.RESTARTING
        if time.monotonic() - self._since > RECOVERED_S:
            self._crashes = 0
        if left.end is End.HUNG:
            self._last_cause = "its process hung"
        else:
            self._last_cause = f"its process ended with {describe(code)}"
            log.error("model %s crashed: %s; it restarts", self.label, self._last_cause)
        self.calls.died(left, partial(self._lost, code, left))

    def _lost(self, code: int | None, left: Left) -> RequestError:
        """What a request gets that was inside the processes that died."""
        if left.end is End.HUNG:
            return hung(self._settings.forward_timeout_s)
        return lost(code, for_memory=memory.oom_kills() > self._kills)

    async def _restart(self) -> None:
        pause = 0.0 if self._crashes == 0 else min(MAX_PAUSE_S, 0.25 * 2 ** (self._crashes - 1))
        self._crashes += 1
        self._resumes_at = time.monotonic() + pause
        if pause > PATIENCE_S:
            self.calls.fail_all(self._pausing())
        await _wait(self._ending, pause)
        if self._unloading():
            return
        try:
            facts = await self._launch()
        except RequestError as error:
            self._last_cause = one_line(str(error), 300)
            if not self._unloading():
                log.warning("model %s did not restart: %s", self.label, self._last_cause)
            return
        log.info("model %s restarted: process %s, %s", self.label, self.pid, facts["handler"])
        if not self._unloading():
            self.ready()

    @property
    def pid(self) -> int:
        """The process of now, or of before; 0: there was none yet."""
        return self._channel.pid if self._channel is not None else 0

    def _pausing(self) -> UnavailableError:
        left = max(1, round(self._resumes_at - time.monotonic()))
        return UnavailableError(
            f"the model is being restarted: {self._last_cause}", "restarting", left
        )

    def check(self) -> None:
        """Whether a request may come in.

        Raises:
            UnknownModelError: it is being unloaded.
            UnavailableError: it crashes again and again, and the next restart is not near.
        """
        if self.state is State.UNLOADING:
            raise UnknownModelError(self.name)
        if self.state is State.RESTARTING and (self._resumes_at - time.monotonic() > PATIENCE_S):
            raise self._pausing()

    def invoke(self, invocation: Invocation) -> None:
        """Send a request to the process, or keep it until there is one."""
        if self._unloading():
            # Unloaded between the check, in another thread, and now.
            self.calls.admission.leave(invocation.size_bytes)
            error = UnknownModelError(self.name)
            self._deliver([(invocation, error_response(error, invocation.request_id))])
            return
        self.calls.add(invocation)

    async def unload(self) -> None:
        """Answer what is inside, then end the process; returns when its memory is free."""
        before, self.state = self.state, State.UNLOADING
        if before is State.READY:
            await _wait(self.calls.idle, self._settings.unload_grace_s)
        self.calls.fail_all(UnavailableError("the model is being unloaded", "unloading"))
        self._ending.set()
        if self._channel is not None:
            await self._nursery.stop(self._channel)
        if self._keeper is not None:
            # A restart under way ends its own process when it sees the new state.
            await asyncio.wait([self._keeper])


async def _wait(event: asyncio.Event, seconds: float) -> None:
    waiting = asyncio.ensure_future(event.wait())
    await asyncio.wait([waiting], timeout=seconds)
    waiting.cancel()
