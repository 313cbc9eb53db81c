"""One model: loaded and asked, all in the one thread that owns it."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from byoc_serving import gpu, loader
from byoc_serving.context import Context
from byoc_serving.conversation import Conversation
from byoc_serving.current import working_on
from byoc_serving.deadline import too_late
from byoc_serving.decoding import decode
from byoc_serving.description import Description
from byoc_serving.exchange import Invocation, Response, error_response
from byoc_serving.faults import classify
from byoc_serving.handler import ARGUMENTS, EscapeError
from byoc_serving.optimize import Optimizer
from byoc_serving.pending import Pending
from byoc_serving.predictor import Predictor
from byoc_serving.reader import Reader, body_for
from byoc_serving.streams import Streams, is_stream
from byoc_serving.torch_errors import is_device_error
from byoc_serving.uniform import Uniform
from byoc_serving.writer import Writer

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from byoc_serving.batch_observer import BatchObserver
    from byoc_serving.conversation import Messages
    from byoc_serving.handler import Handler
    from byoc_serving.settings import Settings
    from byoc_serving.streaming import Stream

#: Rows in one forward pass of the default predict_fn.
DEFAULT_BATCH_ROWS = 64
#: How often the GPU's memory is looked at.
MEMORY_READ_S = 1.0


class Engine:
    """A model and the functions around it.

    Args:
        settings: the server's.
        workspace: a writable directory that all workers share.
        gpu: the CUDA ordinal or UUID that this process has to itself; None: the CPU.
        on_phase: told what loading is doing.
        encode: a prediction and a type of ours to a body; None: our codecs.
        observer: told of every batch; None: nobody is.
    """

    def __init__(
        self,
        settings: Settings,
        workspace: Path,
        gpu: str | None = None,
        on_phase: Callable[[str], None] = lambda _: None,
        encode: Callable[[Any, str], Any] | None = None,
        observer: BatchObserver | None = None,
    ) -> None:
        self._settings = settings
        self._workspace = workspace
        self._gpu = gpu
        self._on_phase = on_phase
        self._encode = encode
        self._observer = observer
        self._loaded = loader.Loaded()
        #: Set when an error of the device means that nothing can be computed on it any more.
        self.device_lost = False
        self._predictor = Predictor(self._forward, 1)
        self._ask: Callable[[Any], Any] = lambda _: None
        self._uniform: Uniform | None = None
        self.streams = Streams(settings.max_streams, settings.stream_timeout_s)
        self._reader = Reader(self.handler, self.device)
        self._writer = Writer(self.handler, settings, self.streams, encode)
        self._home = "cpu"
        self._predict_s = 0.0
        self._memory_read = 0.0

    @property
    def handler(self) -> Handler:
        """The user's functions."""
        return self._loaded.handler

    @property
    def device(self) -> str:
        """Where the model is: ``cpu`` or ``cuda:0``."""
        return self._loaded.device

    @property
    def decodes_itself(self) -> bool:
        """Whether bodies go through our own codecs alone, which any thread may run."""
        return self.handler.decodes_itself

    @property
    def answers_itself(self) -> bool:
        """Whether no function of the user's runs between a body and its answer, on a CPU.

        Such a request may run in any thread; a user's function may depend on its own.
        """
        return self.plain and self.device == "cpu"

    def wait(self, timeout_s: float) -> bool:
        """Wait until no thread of the engine's own is inside torch; True when that is so."""
        return not isinstance(self._ask, Optimizer) or self._ask.wait(timeout_s)

    @property
    def encodes_itself(self) -> bool:
        """Whether answers come from our own codecs alone."""
        return self.handler.encodes_itself

    @property
    def plain(self) -> bool:
        """Whether no function of the user's sees a request: headers matter to nobody."""
        return self.decodes_itself and self.encodes_itself and self.handler.predict_fn is None

    def load(self) -> None:
        """Make the model ready.

        Raises:
            StartError: one line that says what is wrong.
        """
        began = time.monotonic()
        self._loaded = loader.load(self._settings, self._workspace, self._gpu, self._on_phase)
        own = self.handler.default_predict
        self._home = gpu.home(self._loaded.model, self.device) if own else self.device
        self._reader = Reader(self.handler, "cpu" if own else self.device)
        self._writer = Writer(self.handler, self._settings, self.streams, self._encode)
        rows, coarse = self._batch_rows(), self._home != "cpu"
        copies = gpu.transfers(self._home) if own and not self.handler.output_fn else None
        self._predictor = Predictor(self._forward, rows, copies, coarse=coarse)
        self._ask = self._loaded.model
        mode = self._settings.optimize
        if mode != "off" and self._plain_module():
            self._ask = gpu.optimizer(self._loaded.model, mode, self._home, rows)
        if self.answers_itself and self._encode is None:
            self._uniform = Uniform(
                self._forward, self._predictor.joins, self._written, self._failed
            )
        functions = tuple(name for name in ARGUMENTS if getattr(self.handler, name) is not None)
        Description(self.handler.origin, functions, self.device).write(self._workspace)
        if self._observer is not None:
            self._observer.loaded(time.monotonic() - began)

    def _plain_module(self) -> bool:
        """Whether predictions are calls of a module by our own predict_fn."""
        import torch  # noqa: PLC0415 - imported by now

        return self.handler.default_predict and isinstance(self._loaded.model, torch.nn.Module)

    def _batch_rows(self) -> int:
        """Rows in one pass.

        A predict_fn of the user's is batched only when asked for, and never with a context,
        which belongs to one request.
        """
        predict = self.handler.predict_fn
        if predict:
            return 1 if predict.context_by else self._settings.max_batch_rows or 1
        return self._settings.max_batch_rows or DEFAULT_BATCH_ROWS

    @property
    def max_batch_items(self) -> int:
        """Requests worth taking at a turn: answers wait only for those they share a pass with."""
        return 1 if self.handler.transform_fn else self._batch_rows()

    def run(self, invocations: list[Invocation]) -> list[Response]:
        """Answer a batch; each request gets its own answer or error, in order."""
        if self._observer is None:
            return self._run(invocations)
        began = time.monotonic()
        try:
            with working_on(*invocations):
                return self._run(invocations)
        finally:
            self._observer.batch(invocations, began, self._predict_s)
            if self.device != "cpu" and began >= self._memory_read + MEMORY_READ_S:
                self._memory_read = began
                self._observer.gpu(*gpu.gpu_memory(self.device))

    def _run(self, invocations: list[Invocation]) -> list[Response]:
        import torch  # noqa: PLC0415 - imported by now

        with torch.inference_mode():
            began = time.monotonic()
            if self.handler.transform_fn:
                done = [
                    too_late(i) or self._guarded("predict", self._transform, i) for i in invocations
                ]
                self._predict_s = time.monotonic() - began
                return done
            if self._uniform is not None:
                answered = self._uniform.answer(invocations)
                if answered is not None:
                    responses, self._predict_s = answered
                    return responses
            requests = [Pending(i, Context(self._loaded.properties, i)) for i in invocations]
            for request in requests:
                request.response = too_late(request.invocation)
                if request.response is None:
                    self._read(request)
            for request in requests:
                # Reading may have taken long; the forward is what nobody may wait for in vain.
                request.response = request.response or too_late(request.invocation)
            began = time.monotonic()
            self._predict([request for request in requests if request.response is None])
            self._predict_s = time.monotonic() - began
            return [request.response or self._write(request) for request in requests]

    def _guarded(self, stage: str, call: Callable[..., Any], invocation: Invocation) -> Any:
        """The call's result, or the response that its exception means."""
        try:
            return call(invocation)
        except Exception as error:  # noqa: BLE001 - any failure is this request's own
            return self._failed(stage, invocation, error)

    def _failed(self, stage: str, invocation: Invocation, error: Exception) -> Response:
        self.device_lost = self.device_lost or is_device_error(error)
        fault = classify(stage, error, invocation, default_predict=self.handler.default_predict)
        return error_response(fault, invocation.request_id)

    def rescue(self, invocation: Invocation, error: BaseException) -> Response:
        """The answer when the batch itself broke: a bug of ours, or a model that exits."""
        if not isinstance(error, Exception):
            escape = EscapeError(f"the model ended with {type(error).__name__}")
            error = escape.with_traceback(error.__traceback__)
        return self._failed("batch", invocation, error)

    def _read(self, request: Pending) -> None:
        try:
            request.data = self._reader.read(request.invocation, request.context)
        except Exception as error:  # noqa: BLE001 - any failure is this request's own
            request.response = self._failed("input", request.invocation, error)

    def _write(self, request: Pending) -> Response:
        try:
            return self._writer.write(request.invocation, request.data, request.context)
        except Exception as error:  # noqa: BLE001 - any failure is this request's own
            return self._failed("output", request.invocation, error)

    def _written(self, invocation: Invocation, output: Any) -> Response:
        request = Pending(invocation, Context(self._loaded.properties, invocation))
        request.data = output
        return self._write(request)

    def _predict(self, requests: list[Pending]) -> None:
        """predict_fn, for all at once where that is the same."""
        predict = self.handler.predict_fn
        if predict and predict.context_by:
            for request in requests:
                try:
                    request.data = predict(request.context, request.data, self._loaded.model)
                except Exception as error:  # noqa: BLE001, PERF203 - this request's own
                    request.response = self._failed("predict", request.invocation, error)
            return
        outputs = self._predictor.predict([request.data for request in requests])
        for request, output in zip(requests, outputs, strict=True):
            request.data = output
            if isinstance(output, Exception):
                request.response = self._failed("predict", request.invocation, output)

    def _forward(self, data: Any) -> Any:
        """One pass for one joined or single input."""
        if self.handler.predict_fn:
            context = Context(self._loaded.properties)
            return self.handler.predict_fn(context, data, self._loaded.model)
        if self._home != "cpu" and hasattr(data, "to"):
            data = data.to(self._home)
        return self._ask(data)

    def decode(self, invocation: Invocation) -> None:
        """The default input_fn up to the array; safe in any thread.

        Raises:
            RequestError: the body is not what its type says, or the type is not supported.
        """
        decode(invocation)

    def accept(self, invocation: Invocation) -> str:
        """The type to answer in.

        Raises:
            NotAcceptableError: none of ours is accepted.
        """
        return self._writer.accept(invocation)

    def _transform(self, invocation: Invocation) -> Response:
        assert self.handler.transform_fn is not None  # noqa: S101 - the caller looked
        context = Context(self._loaded.properties, invocation)
        accept = self._writer.accept(invocation)
        body = body_for(self.handler.transform_fn, invocation)
        kind = invocation.content_type
        result = self.handler.transform_fn(context, self._loaded.model, body, kind, accept)
        if is_stream(result):
            return self._writer.streamed(invocation, result, context, whole=True)
        return self._writer.response(result, accept, context)

    def converse(self, invocation: Invocation, messages: Messages) -> Stream[Response]:
        """Begin a bidirectional stream; its chunks are messages (``conversation``).

        Raises:
            UnavailableError: there are as many streams as there may be.
        """
        function = self.handler.bidirectional_fn
        assert function is not None  # noqa: S101 - it is what makes the path known
        conversation = Conversation(
            function,
            self._loaded.model,
            messages,
            Context(self._loaded.properties, invocation),
            lambda error: classify("bidirectional", error, invocation, default_predict=False),
        )
        return self.streams.start(conversation.run, endless=True)
