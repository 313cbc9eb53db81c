"""The models that are loaded, by name; loads and unloads of different ones do not wait."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import logging
import shutil
from collections import Counter
from typing import TYPE_CHECKING, Any

from byoc_serving.errors import (
    InsufficientMemoryError,
    ModelExistsError,
    RequestError,
    UnknownModelError,
)
from byoc_serving.exposition import forget_handlers_gauges
from byoc_serving.machine import tree_bytes
from byoc_serving.multimodel.location import LoadRequest, folder_of
from byoc_serving.multimodel.memory import Budget, mib
from byoc_serving.multimodel.model import Model
from byoc_serving.multimodel.state import State

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from byoc_serving.backend import Delivery
    from byoc_serving.multimodel.nursery import Nursery
    from byoc_serving.observer import Observer
    from byoc_serving.settings import Settings

log = logging.getLogger("byoc_serving")


#: How loads end.
LOADED, INSUFFICIENT_MEMORY, FAILED = "loaded", "insufficient_memory", "failed"


class Registry:
    """Loads, finds and unloads models; all on one event loop but for ``find``.

    Args:
        settings: the server's.
        workspace: a writable directory that outlives a crash of the front.
        gpus: CUDA ordinals or UUIDs; each new model goes where the fewest are.
        nursery: makes processes.
        deliver: gets answered requests.
        observer: counts for the whole server; None: nobody does.
    """

    def __init__(
        self,
        settings: Settings,
        workspace: Path,
        gpus: tuple[str, ...],
        nursery: Nursery,
        deliver: Callable[[Delivery], None],
        observer: Observer | None = None,
    ) -> None:
        self._observer = observer
        #: Loads by their results, and unloads.
        self.loads: Counter[str] = Counter()
        self.unloads = 0
        self._settings = settings
        self._workspace = workspace / "models"
        self._journal = workspace / "models.json"
        self._gpus = gpus
        self._nursery = nursery
        self._deliver = deliver
        self._budget = Budget(settings.models_memory_bytes, settings.max_models)
        self._models: dict[str, Model] = {}

    def find(self, name: str) -> Model:
        """A model that is there or on its way.

        Raises:
            UnknownModelError: it is not.
        """
        model = self._models.get(name)
        if model is None or model.state is State.UNLOADING:
            raise UnknownModelError(name)
        return model

    def all(self) -> list[Model]:
        """Every model, in whatever state, the oldest first; safe in any thread."""
        return list(self._models.values())

    def loaded(self) -> dict[str, Model]:
        """The models whose load has been answered with 200, and no unload asked for."""
        shown = {State.READY, State.RESTARTING}
        return {name: model for name, model in self._models.items() if model.state in shown}

    async def load(self, request: LoadRequest) -> Model:
        """Load a model; when this returns, it takes requests.

        Raises:
            ModelExistsError: the name is taken.
            RequestError: the url is refused, memory is short, or the load fails.
        """
        name = request.name
        while (present := self._models.get(name)) is not None:
            if present.state is not State.UNLOADING:
                raise ModelExistsError(name, loading=present.state is State.LOADING)
            await present.gone.wait()
        model = self._make(request)
        self._models[name] = model
        try:
            model_bytes = await asyncio.to_thread(tree_bytes, model.folder)
            self._budget.reserve(name, model_bytes)
            facts = await model.load()
        except BaseException as error:
            await self._forget(model)
            memory = isinstance(error, InsufficientMemoryError)
            self.loads[INSUFFICIENT_MEMORY if memory else FAILED] += 1
            if isinstance(error, RequestError):
                log.warning("model %s not loaded: %s", model.label, error)
            raise
        self.loads[LOADED] += 1
        self._budget.settle(name, facts["private_bytes"])
        self._write_journal()
        log.info(
            "model %s loaded in %.2f s: handler %s, device %s, %d MiB of its own",
            model.label,
            facts["seconds"],
            facts["handler"],
            facts["device"],
            mib(facts["private_bytes"]),
        )
        return model

    def _make(self, request: LoadRequest) -> Model:
        folder = folder_of(request.url, self._settings.root)
        digest = hashlib.sha256(request.name.encode()).hexdigest()[:24]
        spec: dict[str, Any] = {
            "folder": str(folder),
            "workspace": str(self._workspace / digest),
            "gpu": self._emptiest_gpu(),
        }
        return Model(
            *(request, folder, spec, self._nursery, self._settings, self._deliver, self._observer)
        )

    def _emptiest_gpu(self) -> str | None:
        used = Counter(model.spec["gpu"] for model in self._models.values())
        return min(self._gpus, key=lambda gpu: used[gpu], default=None)

    async def unload(self, name: str) -> Model:
        """Unload a model; when this returns, its process is gone and its memory free.

        Raises:
            UnknownModelError: there is none, or it is being unloaded already.
        """
        model = self.find(name)
        loading = model.state is State.LOADING
        await model.unload()
        if loading:
            # Its load fails now, and cleans up.
            await model.gone.wait()
        else:
            await self._forget(model)
        self.unloads += 1
        log.info("model %s unloaded", model.label)
        return model

    async def _forget(self, model: Model) -> None:
        model.state = State.UNLOADING
        self._budget.free(model.name)
        with contextlib.suppress(OSError):
            await asyncio.to_thread(shutil.rmtree, model.spec["workspace"], ignore_errors=True)
        forget_handlers_gauges(model.pid)
        del self._models[model.name]
        self._write_journal()
        model.gone.set()

    def _write_journal(self) -> None:
        """Note what is loaded, for the front that replaces this one if it crashes."""
        entries = [[name, model.url] for name, model in self.loaded().items()]
        part = self._journal.with_suffix(".part")
        try:
            part.write_text(json.dumps(entries))
            part.replace(self._journal)
        except OSError as error:
            log.warning("the list of models cannot be written: %s", error)

    def revive(self) -> int:
        """Load again, in the background, what a crashed front had loaded; how many."""
        try:
            entries = json.loads(self._journal.read_text())
        except (OSError, ValueError):
            return 0
        for name, url in entries:
            try:
                model = self._make(LoadRequest(name, url))
            except RequestError as error:
                log.warning("model %s is not loaded again: %s", name, error)
                continue
            self._models[name] = model
            self._budget.settle(name, 0)
            model.revive()
        return len(self._models)
