"""One model: found, loaded, warmed and asked, all in the one thread that owns it."""

from __future__ import annotations

import fcntl
import logging
import os
import sys
from typing import TYPE_CHECKING, Any

from byoc_serving.context import Context
from byoc_serving.errors import (
    BadBodyError,
    DependencyError,
    HandlerError,
    InternalError,
    ModelError,
    RefusedByModelError,
    RequestError,
    StartError,
    UnavailableError,
)
from byoc_serving.exchange import Invocation, Response, error_response, one_line
from byoc_serving.handler import Handler, explain
from byoc_serving.negotiation import choose, media_type, preferred
from byoc_serving.predictor import Predictor
from byoc_serving.requirements import satisfy
from byoc_serving.source import describe, locate

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from byoc_serving.handler import Function
    from byoc_serving.settings import Settings

log = logging.getLogger(__name__)

#: Rows in one forward pass of the default predict_fn.
DEFAULT_BATCH_ROWS = 64


class Engine:
    """A model and the functions around it.

    Args:
        settings: the server's.
        workspace: a writable directory that all workers share.
        gpu: the CUDA ordinal or UUID that this process has to itself; None: the CPU.
        on_phase: told what loading is doing.
    """

    def __init__(
        self,
        settings: Settings,
        workspace: Path,
        gpu: str | None = None,
        on_phase: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._settings = settings
        self._workspace = workspace
        self._gpu = gpu
        self._on_phase = on_phase
        self.device = "cpu"
        self.handler = Handler("none")
        self.model: Any = None
        self._folder: Path | None = None
        self._predictor: Predictor | None = None
        self._properties: dict[str, Any] = {}

    @property
    def decodes_itself(self) -> bool:
        """Whether bodies go through our own codecs alone, which any thread may run."""
        return self.handler.input_fn is None and self.handler.transform_fn is None

    def load(self) -> None:
        """Find the handler, import it, make the model.

        Raises:
            StartError: one line that says what is wrong.
        """
        settings = self._settings
        source = self._prepare()
        self._folder = source.module.parent if source.module else None
        self._import_torch()
        self._on_phase(f"importing {source.origin}")
        self.handler = handler = Handler.load(source)
        self._properties = {
            "model_dir": str(settings.model_dir),
            "gpu_id": int(self._gpu) if self._gpu and self._gpu.isdigit() else None,
            "device": self.device,
            "batch_size": 1,
        }
        context = Context(self._properties)
        if handler.pre_model_fn:
            self._hook(handler.pre_model_fn, context, str(settings.model_dir))
        self._on_phase("loading the model")
        if handler.model_fn:
            self.model = self._hook(handler.model_fn, context, str(settings.model_dir))
        else:
            self.model = self._default_model()
        self._settle_model(handler.model_fn is None or handler.predict_fn is None)
        if handler.model_warmup_fn:
            self._on_phase("warming up")
            self._hook(handler.model_warmup_fn, context, str(settings.model_dir), self.model)
        self._predictor = Predictor(self._forward, self._batch_rows())

    def _prepare(self) -> Any:
        """Locate the handler and satisfy its requirements: one worker does, the others wait."""
        self._on_phase("looking for the handler")
        with (self._workspace / "prepare.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            source = locate(self._settings, self._workspace)
            if source.requirements:
                self._on_phase("installing requirements.txt")
                site = satisfy(
                    source.requirements,
                    self._workspace / "site",
                    self._settings.pip_timeout_s,
                )
                if site is not None and str(site) not in sys.path:
                    sys.path.insert(0, str(site))
        return source

    def _import_torch(self) -> None:
        self._on_phase("importing torch")
        threads = self._settings.torch_threads
        if self._gpu is not None:
            os.environ["CUDA_VISIBLE_DEVICES"] = self._gpu
        elif threads is None:
            # More threads than the worker's own core slow a forward down several times.
            threads = 1
        if threads is not None:
            for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
                os.environ[name] = str(threads)
        try:
            import numpy  # noqa: ICN001, PLC0415 - found missing here rather than mid-request
            import torch  # noqa: PLC0415 - only here, never in the master
        except ImportError as error:
            raise DependencyError(
                f"{error.name or error} is not installed; run serve in the inference image, or "
                "install sagemaker-byoc[serve]"
            ) from error
        del numpy
        if threads is not None:
            torch.set_num_threads(threads)
        if self._gpu is not None:
            if torch.cuda.is_available():
                self.device = "cuda:0"
            else:
                log.warning(
                    "a GPU is visible but torch %s (CUDA %s) cannot use it, probably because the "
                    "driver is too old; serving on the CPU",
                    torch.__version__,
                    torch.version.cuda,
                )

    def _default_model(self) -> Any:
        from byoc_serving import models  # noqa: PLC0415 - beside torch

        if not models.self_describing(self._settings.model_dir):
            raise ModelError(
                f"{self.handler.origin} has no model_fn, and without one the model must describe "
                f"itself (TorchScript, .pt2); {describe(self._settings.model_dir)}; write a "
                "model_fn that builds the architecture and loads the weights"
            )
        return models.load(self._settings.model_dir, self.device)

    def _settle_model(self, ours: bool) -> None:  # noqa: FBT001 - one private call
        """Evaluation mode, on the device, when it is a module that our predict_fn calls."""
        import torch  # noqa: PLC0415 - imported by now

        if self.model is None:
            raise HandlerError(f"{self.handler.origin}: model_fn returned None; return the model")
        if isinstance(self.model, torch.nn.Module) and ours:
            if self.handler.model_fn:
                try:
                    self.model.to(self.device)
                except (RuntimeError, NotImplementedError) as error:
                    log.warning("the model stays where model_fn put it: %s", error)
            try:
                self.model.eval()
            except NotImplementedError:
                # Exported programs have no modes.
                pass
        elif not self.handler.predict_fn and not self.handler.transform_fn:
            if not callable(self.model):
                raise HandlerError(
                    f"{self.handler.origin}: model_fn returned a {type(self.model).__name__}, "
                    "which cannot be called; write a predict_fn"
                )

    def _batch_rows(self) -> int:
        asked = self._settings.max_batch_rows
        predict = self.handler.predict_fn
        if self.handler.transform_fn or (predict and predict.context_by):
            return 1
        if predict:
            return asked or 1
        return asked or DEFAULT_BATCH_ROWS

    def _hook(self, function: Function, context: Context, *arguments: Any) -> Any:
        """Call one of the start-up functions; its failure is the start's."""
        try:
            return function(context, *arguments)
        except StartError:
            raise
        except BaseException as error:
            raise ModelError(
                f"{self.handler.origin}: {function.name} failed: {explain(error, self._folder)}; "
                f"{describe(self._settings.model_dir)}"
            ) from error

    def run(self, invocations: list[Invocation]) -> list[Response]:
        """Answer a batch; each request gets its own answer or error."""
        import torch  # noqa: PLC0415 - imported by now

        responses: list[Response | None] = [None] * len(invocations)
        with torch.inference_mode():
            if self.handler.transform_fn:
                return [self._transform(invocation) for invocation in invocations]
            live: list[tuple[int, Context, Any]] = []
            for position, invocation in enumerate(invocations):
                context = Context(self._properties, invocation)
                try:
                    live.append((position, context, self._input(invocation, context)))
                except Exception as error:  # noqa: BLE001 - any failure is this request's own
                    responses[position] = self._failed("input", invocation, error)
            for (position, context, _), output in zip(live, self._predict(live), strict=True):
                invocation = invocations[position]
                if isinstance(output, Exception):
                    responses[position] = self._failed("predict", invocation, output)
                    continue
                try:
                    responses[position] = self._output(output, invocation, context)
                except Exception as error:  # noqa: BLE001 - any failure is this request's own
                    responses[position] = self._failed("output", invocation, error)
        return [response for response in responses if response is not None]

    def _predict(self, live: list[tuple[int, Context, Any]]) -> list[Any]:
        predict = self.handler.predict_fn
        if predict is None or self._batch_rows() > 1 or not predict.context_by:
            assert self._predictor is not None  # noqa: S101 - set by load
            return self._predictor.predict([data for _, _, data in live]) if live else []
        results: list[Any] = []
        for _, context, data in live:
            try:
                results.append(predict(context, data, self.model))
            except Exception as error:  # noqa: BLE001 - this request's own
                results.append(error)
        return results

    def _forward(self, data: Any) -> Any:
        """One pass for one joined or single input."""
        if self.handler.predict_fn:
            return self.handler.predict_fn(Context(self._properties), data, self.model)
        return self.model(data)

    def _input(self, invocation: Invocation, context: Context) -> Any:
        if self.handler.input_fn:
            body = _text_or_bytes(invocation)
            return self.handler.input_fn(context, body, invocation.content_type)
        if invocation.data is None:
            self.decode(invocation)
        import torch  # noqa: PLC0415 - imported by now

        tensor = torch.from_numpy(invocation.data)
        return tensor if self.device == "cpu" else tensor.to(self.device, non_blocking=True)

    def decode(self, invocation: Invocation) -> None:
        """The default input_fn up to the array; safe in any thread.

        Images become float32 ``[1, C, H, W]`` between 0 and 1, as torchvision's ToTensor has it.

        Raises:
            RequestError: the body is not what its type says, or the type is not supported.
        """
        import numpy as np  # noqa: PLC0415

        from byoc_serving import codecs  # noqa: PLC0415 - numpy is imported by now

        data = codecs.decode(invocation.body, invocation.content_type)
        if media_type(invocation.content_type).startswith("image/"):
            planes = data[None] if data.ndim == 2 else data.transpose(2, 0, 1)
            data = np.ascontiguousarray(planes[None], dtype=np.float32) / np.float32(255)
        invocation.data = data
        invocation.body = b""

    def accept(self, invocation: Invocation) -> str:
        """The type to answer in.

        Raises:
            NotAcceptableError: ours cannot be accepted.
        """
        from byoc_serving import codecs  # noqa: PLC0415 - numpy is imported by now

        default = self._settings.default_accept
        if self.handler.output_fn or self.handler.transform_fn:
            return preferred(invocation.accept, default)
        fallback = media_type(default)
        if fallback not in codecs.OUTPUT_TYPES:
            fallback = "application/json"
        return choose(invocation.accept, codecs.OUTPUT_TYPES, fallback)

    def _output(self, prediction: Any, invocation: Invocation, context: Context) -> Response:
        accept = self.accept(invocation)
        if self.handler.output_fn:
            prediction = self.handler.output_fn(context, prediction, accept)
        return self._response(prediction, accept, context)

    def _transform(self, invocation: Invocation) -> Response:
        context = Context(self._properties, invocation)
        assert self.handler.transform_fn is not None  # noqa: S101 - the caller looked
        try:
            accept = self.accept(invocation)
            body = _text_or_bytes(invocation)
            result = self.handler.transform_fn(
                context, self.model, body, invocation.content_type, accept
            )
            return self._response(result, accept, context)
        except Exception as error:  # noqa: BLE001 - any failure is this request's own
            return self._failed("predict", invocation, error)

    def _response(self, result: Any, accept: str, context: Context) -> Response:
        """What output_fn or the default gave: (body, type), bytes, str, or something to encode."""
        from byoc_serving import codecs  # noqa: PLC0415 - numpy is imported by now

        kind = accept
        if self.handler.output_fn or self.handler.transform_fn:
            pair = isinstance(result, tuple) and len(result) == 2
            if pair and isinstance(result[1], str) and "/" in result[1]:
                result, kind = result
        if isinstance(result, str) and (self.handler.output_fn or self.handler.transform_fn):
            body = result.encode()
        elif isinstance(result, (bytes, bytearray, memoryview)):
            body = bytes(result)
        else:
            if media_type(kind) not in codecs.OUTPUT_TYPES:
                kind = choose(kind, codecs.OUTPUT_TYPES, "application/json")
            body = codecs.encode(result, kind)
        return Response(
            context.response_status or 200,
            body,
            context.response_content_type or kind,
            context.headers(),
        )

    def _failed(self, stage: str, invocation: Invocation, error: Exception) -> Response:
        """An exception as the answer; unexpected ones go to the log with their traceback."""
        return error_response(self._classified(stage, invocation, error), invocation.request_id)

    def _classified(self, stage: str, invocation: Invocation, error: Exception) -> RequestError:
        if isinstance(error, RequestError):
            return error
        if _out_of_memory(error):
            log.error("request %s: out of memory: %s", invocation.request_id, one_line(str(error)))
            return UnavailableError(
                "out of memory on the device for this request; send smaller batches",
                "out_of_memory",
            )
        text = explain(error, None)
        if stage == "input" and _is_bad_input(error):
            return BadBodyError(text.split(": ", 1)[-1])
        if stage == "predict" and (
            isinstance(error, ValueError)
            or (self.handler.predict_fn is None and isinstance(error, _REFUSALS))
            or _is_torch_complaint(error)
        ):
            return RefusedByModelError(f"the model refuses this input: {text}")
        log.error(
            "request %s failed in %s_fn",
            invocation.request_id,
            stage,
            exc_info=error,
            extra={"request_id": invocation.request_id},
        )
        return InternalError(
            f"the handler failed in {stage}_fn with {type(error).__name__}; the log has the details "
            "under this request_id"
        )

    def rescue(self, invocation: Invocation, error: Exception) -> Response:
        """The answer when the batch itself broke: a bug of ours."""
        return self._failed("batch", invocation, error)


_REFUSALS = (RuntimeError, TypeError, IndexError, NotImplementedError)


def _text_or_bytes(invocation: Invocation) -> bytes | str:
    """What the toolkit hands to input_fn: str for text types, bytes for the others."""
    from byoc_serving import codecs  # noqa: PLC0415 - numpy is imported by now

    if media_type(invocation.content_type) not in codecs.TEXT_TYPES:
        return invocation.body
    try:
        return invocation.body.decode("utf-8")
    except UnicodeDecodeError as error:
        raise BadBodyError(
            f"not UTF-8: byte {error.start} is {invocation.body[error.start]:#04x}; "
            f"{invocation.content_type} is text"
        ) from None


def _is_bad_input(error: Exception) -> bool:
    """Whether input_fn says that the body is at fault."""
    if isinstance(error, ValueError) or _is_torch_complaint(error):
        return True
    # Pillow's UnidentifiedImageError and DecompressionBombError, without importing Pillow.
    return type(error).__module__.startswith("PIL")


def _is_torch_complaint(error: Exception) -> bool:
    """Whether torch itself refuses shapes or dtypes, which it does with bare RuntimeErrors."""
    if type(error) is not RuntimeError or "CUDA error" in str(error):
        return False
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    text = str(error)
    words = ("shape", "size", "dtype", "dimension", "expected", "Expected")
    return any(word in text for word in words)


def _out_of_memory(error: Exception) -> bool:
    return type(error).__name__ == "OutOfMemoryError" or isinstance(error, MemoryError)
