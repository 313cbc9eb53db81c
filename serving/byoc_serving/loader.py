"""Loading one model, phase by phase: the handler, its requirements, torch, the model itself."""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import sys
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from byoc_serving import models
from byoc_serving.context import Context
from byoc_serving.errors import DependencyError, HandlerError, ModelError, StartError
from byoc_serving.handler import Handler, explain
from byoc_serving.preload import thread_variables
from byoc_serving.requirements import satisfy
from byoc_serving.source import Source, describe, locate

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from byoc_serving.handler import Function
    from byoc_serving.settings import Settings

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Loaded:
    """A model that is ready, with what goes with it.

    Attributes:
        handler: the user's functions.
        model: what model_fn, ours or the user's, returned.
        device: ``cpu`` or ``cuda:0``.
        properties: the ``system_properties`` of every context.
    """

    handler: Handler = field(default_factory=lambda: Handler("none"))
    model: Any = None
    device: str = "cpu"
    properties: dict[str, Any] = field(default_factory=dict)


def load(
    settings: Settings, workspace: Path, gpu: str | None, on_phase: Callable[[str], None]
) -> Loaded:
    """Find the handler, import it, make the model.

    Args:
        settings: the server's.
        workspace: a writable directory that all workers share.
        gpu: the CUDA ordinal or UUID that this process has to itself; None: the CPU.
        on_phase: told what loading is doing.

    Raises:
        StartError: one line that says what is wrong.
    """
    source = _prepare(settings, workspace, on_phase)
    on_phase("importing torch")
    device = _import_torch(gpu, settings.torch_threads)
    on_phase(f"importing {source.origin}")
    handler = Handler.load(source)
    properties = {
        "model_dir": str(settings.model_dir),
        "gpu_id": int(gpu) if gpu and gpu.isdigit() and device != "cpu" else None,
        "device": device,
        "batch_size": 1,
    }
    call = _Hooks(settings, source, Context(properties))
    if handler.pre_model_fn:
        call(handler.pre_model_fn, str(settings.model_dir))
    on_phase("loading the model")
    if handler.model_fn:
        model = call(handler.model_fn, str(settings.model_dir))
    else:
        model = _default_model(settings, handler, device)
    _settle(model, handler, device)
    if handler.model_warmup_fn:
        on_phase("warming up")
        call(handler.model_warmup_fn, str(settings.model_dir), model)
    return Loaded(handler, model, device, properties)


def _prepare(settings: Settings, workspace: Path, on_phase: Callable[[str], None]) -> Source:
    """Locate the handler and satisfy its requirements: one worker does, the others wait."""
    on_phase("looking for the handler")
    with (workspace / "prepare.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        source = locate(settings, workspace)
        if source.requirements:
            on_phase("installing requirements.txt")
            site = satisfy(source.requirements, workspace / "site", settings.pip_timeout_s)
            if site is not None and str(site) not in sys.path:
                sys.path.insert(0, str(site))
    return source


def _import_torch(gpu: str | None, threads: int | None) -> str:
    """Import torch, bound to one device and a number of threads; the device's name."""
    if gpu is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = gpu
    elif threads is None:
        # More threads than the worker's own core slow a forward down several times.
        threads = 1
    if threads is not None:
        thread_variables(threads)
    try:
        import numpy as np  # noqa: PLC0415 - found missing here rather than mid-request
        import torch  # noqa: PLC0415 - only here, never in the master

        import byoc_serving.codecs  # noqa: F401, PLC0415 - not during the first request
    except ImportError as error:
        raise DependencyError(
            f"{error.name or error} is not installed; run serve in the inference image, or "
            "install sagemaker-byoc[serve]"
        ) from error
    if threads is not None:
        torch.set_num_threads(threads)
    if gpu is None:
        return "cpu"
    if torch.cuda.is_available():
        return "cuda:0"
    log.warning(
        "a GPU is visible but torch %s (CUDA %s, numpy %s) cannot use it, probably because the "
        "driver is too old; serving on the CPU",
        torch.__version__,
        torch.version.cuda,
        np.__version__,
    )
    return "cpu"


@dataclass(frozen=True)
class _Hooks:
    """Calls the start-up functions; a failure of theirs is the start's."""

    settings: Settings
    source: Source
    context: Context

    def __call__(self, function: Function, *arguments: Any) -> Any:
        folder = self.source.module.parent if self.source.module else None
        try:
            return function(self.context, *arguments)
        except StartError:
            raise
        except BaseException as error:
            raise ModelError(
                f"{self.source.origin}: {function.name} failed: {explain(error, folder)}; "
                f"{describe(self.settings.model_dir)}"
            ) from error


def _default_model(settings: Settings, handler: Handler, device: str) -> Any:
    if not models.self_describing(settings.model_dir):
        raise ModelError(
            f"{handler.origin} has no model_fn, and without one the model must describe itself "
            f"(TorchScript, .pt2); {describe(settings.model_dir)}; write a model_fn that builds "
            "the architecture and loads the weights"
        )
    return models.load(settings.model_dir, device)


def _settle(model: Any, handler: Handler, device: str) -> None:
    """Evaluation mode and the device, when it is a module that our own predict_fn calls.

    Raises:
        HandlerError: nothing that can be asked.
    """
    import torch  # noqa: PLC0415 - imported by now

    if model is None:
        raise HandlerError(f"{handler.origin}: model_fn returned None; return the model")
    if handler.predict_fn or handler.transform_fn:
        return
    if not callable(model) and handler.bidirectional_fn is None:
        raise HandlerError(
            f"{handler.origin}: model_fn returned a {type(model).__name__}, which cannot be "
            "called; return a module, or write a predict_fn"
        )
    if isinstance(model, torch.nn.Module):
        if handler.model_fn:
            try:
                model.to(device)
            except (RuntimeError, NotImplementedError) as error:
                log.warning("the model stays where model_fn put it: %s", error)
        # Exported programs have no modes.
        with contextlib.suppress(NotImplementedError):
            model.eval()
