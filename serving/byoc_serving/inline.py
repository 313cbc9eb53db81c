"""The backend of the inline topology: the model in this process, in a thread of its own."""

from __future__ import annotations

import contextlib
import logging
import math
import threading
import time
from typing import TYPE_CHECKING

from byoc_serving.backend import Delivery, settle
from byoc_serving.batcher import Batcher
from byoc_serving.decoding import worth_doing_here
from byoc_serving.errors import DeadlineError, StartError, UnavailableError
from byoc_serving.exchange import error_response
from byoc_serving.faults import classify
from byoc_serving.handler import explain
from byoc_serving.turns import Costs, Turns
from byoc_serving.watch import Watch

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

    from byoc_serving.conversation import Messages
    from byoc_serving.engine import Engine
    from byoc_serving.exchange import Invocation, Response
    from byoc_serving.streaming import Stream

log = logging.getLogger(__name__)


class Inline:
    """A ``Backend``: loads the engine's model and runs it, both in the model thread.

    Args:
        engine: its model, not loaded yet.
        forward_timeout_s: a batch that runs longer has hung.
    """

    def __init__(self, engine: Engine, forward_timeout_s: float = math.inf) -> None:
        self.engine = engine
        self._watch: Watch[Invocation] = Watch(forward_timeout_s)
        self._defunct: str | None = None
        self.failure: str | None = None
        self.settled = threading.Event()
        self._deliver: Callable[[Delivery], None] = settle
        self.batcher: Batcher[Invocation, Response] = Batcher(
            self._run, self._delivered, engine.rescue
        )
        self._costs = Costs()
        self._turns: Turns | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None

    @property
    def ready(self) -> bool:
        """Whether the model is loaded."""
        return self.settled.is_set() and self.failure is None and self._defunct is None

    @property
    def origin(self) -> str:
        """Where the handler's functions come from."""
        return self.engine.handler.origin

    @property
    def device(self) -> str:
        """Where the model is."""
        return self.engine.device

    def start(
        self,
        deliver: Callable[[Delivery], None],
        on_settled: Callable[[], None] | None = None,
        loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        """Start the model thread: it loads, then answers until ``close``.

        Short batches that need no function of the user's run on the loop, when there is one.
        """
        self._deliver = deliver
        if loop is not None:
            self._loop = loop
            self._turns = Turns(self._answer_here, loop.call_soon)
        self._thread = threading.Thread(
            target=self._work, args=(on_settled,), name="model", daemon=True
        )
        self._thread.start()

    def _work(self, on_settled: Callable[[], None] | None) -> None:
        try:
            self.engine.load()
            self.batcher.max_batch_items = self.engine.max_batch_items
        except StartError as error:
            log.debug("loading failed", exc_info=True)
            self.failure = str(error)
        except BaseException as error:
            log.debug("loading failed", exc_info=True)
            self.failure = f"loading the model failed: {explain(error, None)}"
        self.settled.set()
        if on_settled is not None:
            on_settled()
        if self.failure is None:
            self.batcher.serve()

    def submit(self, invocation: Invocation) -> None:
        """Queue a request; small bodies for our own codecs are decoded here.

        Raises:
            RequestError: the body is bad, or its type or the accepted ones are not ours.
        """
        if self.engine.decodes_itself and worth_doing_here(invocation):
            try:
                if self.engine.plain:
                    # A predict_fn may stream, in types of its own.
                    self.engine.accept(invocation)
                self.engine.decode(invocation)
            except Exception as error:
                # Whatever a codec raises is told like what it raises in the model thread.
                raise classify("input", error, invocation, default_predict=True) from error
            if self._turns is not None and self.engine.answers_itself and invocation.data.ndim > 1:
                share = self._costs.share(invocation.data)
                if share <= 1:
                    self._turns.submit(invocation, share)
                    return
        self.batcher.submit(invocation)

    def _run(self, batch: list[Invocation]) -> list[Response]:
        """The engine's answers, and what they cost where the inputs are of one form."""
        inputs = [invocation.data for invocation in batch]
        began = time.perf_counter()
        self._watch.begin(batch)
        try:
            responses = self.engine.run(batch)
        finally:
            self._watch.end()
        seconds = time.perf_counter() - began
        first = inputs[0]
        if (
            self._turns is not None
            and getattr(first, "ndim", 0) > 1
            and all(d is not None and d.shape[1:] == first.shape[1:] for d in inputs)
        ):
            self._costs.observe(first, sum(map(len, inputs)), seconds)
        return responses

    def _answer_here(self, batch: list[Invocation]) -> bool:
        return self.batcher.try_answer(batch, self._deliver)

    def _delivered(self, pairs: Delivery) -> None:
        self._deliver(pairs)
        if self._turns is not None and self._loop is not None:
            with contextlib.suppress(RuntimeError):  # the loop is closed, and so are the requests
                self._loop.call_soon_threadsafe(self._turns.resume)

    def defunct(self) -> str | None:
        """See ``Backend``; a hung batch is answered with 504, what waits behind it with 503."""
        if self._defunct is None and self.engine.device_lost:
            self._defunct = f"{self.engine.device} failed"
        hung = self._watch.hung()
        if self._defunct is None and hung:
            limit = f"{self._watch.limit_s:g} s (BYOC_FORWARD_TIMEOUT_SECONDS)"
            self._defunct = f"the model hangs: a batch has been running for more than {limit}"
            late = DeadlineError(f"the model has not answered within {limit}")
            waits = UnavailableError("the model hangs; its process is being replaced; try again")
            waiting = self.batcher.abandon()
            waiting += self._turns.abandon() if self._turns is not None else []
            pairs = [(i, error_response(late, i.request_id)) for i in hung]
            self._deliver(pairs + [(i, error_response(waits, i.request_id)) for i in waiting])
        return self._defunct

    @property
    def bidirectional_paths(self) -> tuple[str, ...]:
        """Where the handler takes WebSockets."""
        return self.engine.handler.bidirectional_paths

    def converse(self, invocation: Invocation, messages: Messages) -> Stream[Response]:
        """Begin a bidirectional stream."""
        return self.engine.converse(invocation, messages)

    def close(self, timeout_s: float) -> bool:
        """Answer what is queued, then end the model thread; True when it has ended.

        Streams that still run are cancelled: whoever calls this has waited for them.
        """
        self.batcher.close()
        deadline = time.monotonic() + timeout_s
        ended = self.engine.streams.close(timeout_s)
        if self._thread is not None:
            self._thread.join(max(0.0, deadline - time.monotonic()))
            if self._thread.is_alive():
                return False
        return self.engine.wait(max(0.0, deadline - time.monotonic())) and ended
