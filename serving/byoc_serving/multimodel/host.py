"""The process of one model: loads it, then answers what comes over the channel.

One thread does it all: the requests that arrive during a forward wait in the channel and are the
next batch.
"""

from __future__ import annotations

import contextlib
import errno
import json
import logging
import signal
import socket
import sys
import threading
from collections import deque
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from byoc_serving.deadline import ABANDONED
from byoc_serving.engine import Engine
from byoc_serving.errors import InsufficientMemoryError, RequestError, StartError
from byoc_serving.exchange import Response, error_response, request_id
from byoc_serving.handler import explain
from byoc_serving.multimodel.memory import usage
from byoc_serving.multimodel.outlet import Outlet, answer_meta
from byoc_serving.multimodel.parcel import put_away, unpack
from byoc_serving.multimodel.report import Report
from byoc_serving.multimodel.wire import Frame, Kind, Parser, head
from byoc_serving.running import LIMIT

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import FrameType

    from byoc_serving.exchange import Invocation
    from byoc_serving.running import Running
    from byoc_serving.settings import Settings

log = logging.getLogger("byoc_serving")

_RECEIVE_BYTES = 256 * 1024
#: Bodies that are read beyond the next batch.
_AHEAD_BYTES = 4 * 1024 * 1024
#: Short of memory, the kernel ends a loading model first, then a loaded one, never the front.
_OOM_LOADING, _OOM_LOADED = 900, 500


class ModelEngine(Engine):
    """An engine whose requests say 507 when memory runs out, so that others are unloaded."""

    def _failed(self, stage: str, invocation: Invocation, error: Exception) -> Response:
        if is_memory_error(error):
            log.error("request %s: out of memory", invocation.request_id)
            fault = InsufficientMemoryError(
                "out of memory for this request; unload other models, or send smaller batches"
            )
            return error_response(fault, invocation.request_id)
        return super()._failed(stage, invocation, error)


def serve(
    channel: socket.socket, running: Running, settings: Settings, spec: Mapping[str, Any]
) -> int:
    """Be the process of a model until the channel closes or SIGTERM.

    Args:
        channel: the stream to the front.
        running: where to say what runs; the front reads it, also after a crash.
        settings: the server's; the model's own are made from them.
        spec: ``folder`` (the unpacked archive), ``workspace`` (a writable directory of this
            model's own), ``gpu`` (ordinal, UUID, or None for the CPU).

    Returns:
        The exit code: 3 when the model cannot load.
    """
    signal.signal(signal.SIGTERM, _leave)
    with contextlib.suppress(OSError):
        Path("/proc/self/comm").write_text("byoc-model")
    channel.settimeout(None)
    _oom_score(_OOM_LOADING)
    report = Report()
    host = Host(channel, running, _engine(settings, spec, channel, report), report)
    if not host.load():
        return 3
    _oom_score(_OOM_LOADED)
    host.answer_all()
    return 0


def _engine(
    settings: Settings, spec: Mapping[str, Any], channel: socket.socket, report: Report
) -> ModelEngine:
    folder, workspace = Path(spec["folder"]), Path(spec["workspace"])
    workspace.mkdir(parents=True, exist_ok=True)
    submit = settings.submit_directory
    if submit is not None and Path(submit.removeprefix("file://")).is_relative_to("/opt/ml/model"):
        # What the SDK sends for a single model; here every model has its own code.
        submit = None
    own = replace(settings, model_path=folder, submit_directory=submit)

    def told(phase: str) -> None:
        with contextlib.suppress(OSError):
            channel.sendall(head(Kind.PHASE, 0, json.dumps({"phase": phase}).encode()))

    return ModelEngine(own, workspace, spec["gpu"], told, observer=report)


def _leave(number: int, frame: FrameType | None) -> None:
    _ = number, frame
    sys.exit(0)


def _oom_score(score: int) -> None:
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text(str(score))


class Host:
    """The model's side of the channel.

    Args:
        channel: a blocking stream socket.
        running: where to say what runs.
        engine: not loaded yet.
        report: what the engine tells of its batches.
    """

    def __init__(
        self, channel: socket.socket, running: Running, engine: ModelEngine, report: Report
    ) -> None:
        self._channel = channel
        self._running = running
        self._engine = engine
        self._report = report
        self._parser = Parser()
        self._waiting: deque[Frame] = deque()
        self._outlets: dict[int, Outlet] = {}
        self._writing = threading.Lock()
        self._ended = False
        #: Of those that wait: nobody waits for their answers.
        self._abandoned: set[int] = set()
        self._ahead_bytes = 0

    def load(self) -> bool:
        """Load the model and tell the front how it went."""
        import orjson  # noqa: PLC0415 - with torch, in the zygote

        try:
            _fresh_randomness()
            self._engine.load()
        except SystemExit:
            raise
        except BaseException as error:
            log.debug("loading failed", exc_info=True)
            known = isinstance(error, StartError)
            cause = str(error) if known else f"loading failed: {explain(error, None)}"
            meta = orjson.dumps({"cause": cause, "memory": is_memory_error(error)})
            self._channel.sendall(head(Kind.FAILED, 0, meta))
            return False
        used = usage()
        facts = {
            "handler": self._engine.handler.origin,
            "device": self._engine.device,
            "private_bytes": used.private_bytes,
            "pss_bytes": used.pss_bytes,
        }
        self._channel.sendall(head(Kind.LOADED, 0, orjson.dumps(facts)))
        return True

    def answer_all(self) -> None:
        """Answer requests, a batch at a time, until the front closes the channel."""
        limit = max(1, min(self._engine.max_batch_items, LIMIT))
        while frames := self._take(limit):
            wanted = [frame for frame in frames if frame.number not in self._abandoned]
            for frame in frames:
                if frame.number in self._abandoned:
                    self._send(frame.number, ABANDONED)
            if not self._waiting:
                self._abandoned.clear()
            if not wanted:
                continue
            self._running.begin(0, 0, [(0, frame.number) for frame in wanted])
            self._answer(wanted)
            # Sent before it is no longer said to run: an answer may come twice, never not at all.
            self._running.done(0, 0)

    def _answer(self, frames: list[Frame]) -> None:
        """Answer one batch."""
        invocations: list[Invocation] = []
        numbers: list[int] = []
        for frame in frames:
            invocation = self._unpacked(frame)
            if invocation is not None:
                invocations.append(invocation)
                numbers.append(frame.number)
        if not invocations:
            return
        try:
            responses = self._engine.run(invocations)
        except Exception as error:  # noqa: BLE001 - every request gets an answer
            responses = [self._engine.rescue(i, error) for i in invocations]
        for number, invocation, response in zip(numbers, invocations, responses, strict=True):
            if response.stream is not None:
                # The generator may not have read its body yet.
                response.stream.on_done(partial(put_away, invocation))
            else:
                put_away(invocation)
            self._send(number, response)
        self._report.sent()

    def _unpacked(self, frame: Frame) -> Invocation | None:
        """A request; None: it has been answered, since its body cannot be had."""
        try:
            return unpack(frame)
        except RequestError as error:
            self._send(frame.number, error_response(error, request_id()))
            return None

    def _take(self, limit: int) -> list[Frame]:
        """What has arrived, at least one frame; none at the channel's end.

        A little more than a batch is read, because what says that a request is abandoned comes
        behind it.
        """
        waiting = self._waiting
        while not self._ended and (len(waiting) < limit or self._ahead_bytes < _AHEAD_BYTES):
            try:
                data = self._channel.recv(_RECEIVE_BYTES, socket.MSG_DONTWAIT if waiting else 0)
            except BlockingIOError:
                break
            self._ended = not data
            for frame in self._parser.feed(data):
                if frame.kind == Kind.INVOKE:
                    waiting.append(frame)
                    self._ahead_bytes += len(frame.body)
                elif frame.number in self._outlets:
                    self._outlets[frame.number].steer(frame.kind)
                elif frame.kind == Kind.CANCEL:
                    self._abandoned.add(frame.number)
        taken = [waiting.popleft() for _ in range(min(limit, len(waiting)))]
        self._ahead_bytes -= sum(len(frame.body) for frame in taken)
        return taken

    def _send(self, number: int, response: Response) -> None:
        told = self._report.meta()
        if response.stream is not None:
            self._write(head(Kind.STREAM, number, json.dumps(told).encode()), b"")
            Outlet(number, response.stream, self._write, self._outlets)
            return
        meta = answer_meta(response, told)
        self._write(head(Kind.ANSWER, number, meta, len(response.body)), response.body)

    def _write(self, start: bytes, body: bytes) -> None:
        """One frame, from whichever thread."""
        with self._writing:
            if len(body) < _RECEIVE_BYTES:
                self._channel.sendall(start + body)
            else:
                self._channel.sendall(start)
                self._channel.sendall(body)


def _fresh_randomness() -> None:
    """Forked processes begin with the same generators; each shall be its own."""
    import numpy as np  # noqa: PLC0415 - in the zygote
    import torch  # noqa: PLC0415 - in the zygote

    torch.seed()
    np.random.seed(torch.initial_seed() % (1 << 32))  # noqa: NPY002 - the handler's legacy one


def is_memory_error(error: BaseException) -> bool:
    """Whether an exception, or what caused it, means that memory ran out."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, MemoryError) or type(seen).__name__ == "OutOfMemoryError":
            return True
        if isinstance(seen, OSError) and seen.errno == errno.ENOMEM:
            return True
        if isinstance(seen, RuntimeError) and "can't allocate memory" in str(seen):
            return True
        seen = seen.__cause__ or seen.__context__
    return False
