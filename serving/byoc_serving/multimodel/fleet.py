"""All models of a multi-model endpoint as one ``Backend``, and the management API behind it."""

from __future__ import annotations

import asyncio
import logging
import threading
from typing import TYPE_CHECKING, Any

from byoc_serving.backend import settle
from byoc_serving.batcher import FullError
from byoc_serving.errors import NotFoundError, RequestError, UnavailableError, UnknownModelError
from byoc_serving.exchange import Response
from byoc_serving.multimodel.location import LoadRequest
from byoc_serving.multimodel.nursery import Nursery
from byoc_serving.multimodel.paging import page
from byoc_serving.multimodel.registry import Registry
from byoc_serving.multimodel.routes import Action, Route

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from byoc_serving.backend import Delivery
    from byoc_serving.conversation import Messages
    from byoc_serving.exchange import Invocation
    from byoc_serving.machine import Machine
    from byoc_serving.multimodel.model import Model
    from byoc_serving.observer import Observer
    from byoc_serving.settings import Settings
    from byoc_serving.streaming import Stream

log = logging.getLogger("byoc_serving")

#: How often models are looked at, and a waiting load looks whether the server stops.
_LOOK_S = 0.25
#: Longer than the zygote gives its children.
_CLOSE_S = 4.0


class Fleet:
    """A ``Backend`` whose invocations each name their model.

    Runs on the event loop that ``start`` is called on (the ASGI front's), or on one of its own
    in a thread (the WSGI front).

    Args:
        settings: the server's.
        machine: what it runs on.
        workspace: a writable directory that outlives a crash of this process.
        stopping: whether the server has begun to stop.
        observer: counts for the whole server; None: nobody does.
    """

    def __init__(
        self,
        settings: Settings,
        machine: Machine,
        workspace: Path,
        stopping: Callable[[], bool],
        observer: Observer | None = None,
    ) -> None:
        self._observer = observer
        self._settings = settings
        self._machine = machine
        self._workspace = workspace
        self._stopping = stopping
        self.settled = threading.Event()
        self.failure: str | None = None
        self._deliver: Callable[[Delivery], None] = settle
        self._loop: asyncio.AbstractEventLoop | None = None
        self._loop_thread = 0
        self._thread: threading.Thread | None = None
        self._nursery: Nursery | None = None
        self._registry: Registry | None = None
        self._starting: asyncio.Task[None] | None = None
        self._looking: asyncio.Task[None] | None = None

    @property
    def ready(self) -> bool:
        """Whether models can be loaded and asked."""
        return self.settled.is_set() and self.failure is None

    @property
    def origin(self) -> str:
        """For the log."""
        return "of each model"

    @property
    def device(self) -> str:
        """Where the models are."""
        return "cuda" if self._machine.gpus else "cpu"

    def start(
        self,
        deliver: Callable[[Delivery], None],
        on_settled: Callable[[], None] | None = None,
        loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        """Start the zygote; returns at once."""
        self._deliver = deliver
        self._loop = loop
        if self._loop is None:
            self._loop = asyncio.new_event_loop()
            self._thread = threading.Thread(target=self._run_loop, name="models", daemon=True)
            self._thread.start()
            asyncio.run_coroutine_threadsafe(self._begin(on_settled), self._loop)
        else:
            self._loop_thread = threading.get_ident()
            self._starting = self._loop.create_task(self._begin(on_settled))

    def _run_loop(self) -> None:
        assert self._loop is not None  # noqa: S101 - set before the thread starts
        self._loop_thread = threading.get_ident()
        asyncio.set_event_loop(self._loop)
        self._loop.run_forever()

    async def _begin(self, on_settled: Callable[[], None] | None) -> None:
        assert self._loop is not None  # noqa: S101 - set by start
        self._nursery = Nursery(self._loop)
        try:
            facts = await self._nursery.start()
            log.debug("zygote ready: %s", facts)
            self._registry = Registry(
                self._settings,
                self._workspace,
                self._machine.gpus,
                self._nursery,
                self._delivered,
                self._observer,
            )
            self._looking = self._loop.create_task(self._look_after(self._registry))
            again = self._registry.revive()
            if again:
                log.warning("the front has been replaced; loading %d models again", again)
        except RequestError as error:
            self.failure = str(error)
        except Exception as error:
            log.exception("the multi-model front cannot start")
            self.failure = f"the multi-model front cannot start: {error}"
        self.settled.set()
        if on_settled is not None:
            on_settled()

    async def _look_after(self, registry: Registry) -> None:
        """What no message tells: hanging processes, clients that have left, memory of the GPUs."""
        while True:
            await asyncio.sleep(_LOOK_S)
            models = registry.all()
            for model in models:
                model.look()
            if self._observer is not None and self._machine.gpus:
                held = [model.tally.gpu for model in models]
                self._observer.gpu(sum(a for a, _ in held), sum(r for _, r in held))

    def metrics(self) -> Iterator[Any]:
        """What ``/metrics`` shows of the models; safe in any thread."""
        from byoc_serving.multimodel.exposition import families  # noqa: PLC0415 - when asked for

        if self._registry is not None:
            yield from families(self._registry, self._settings.metrics_models)

    @property
    def registry(self) -> Registry:
        """The models; there once ``settled``."""
        assert self._registry is not None  # noqa: S101 - the front listens once settled
        return self._registry

    def _delivered(self, pairs: Delivery) -> None:
        self._deliver(pairs)

    def submit(self, invocation: Invocation) -> None:
        """Hand a request to its model; safe in any thread.

        Raises:
            NotFoundError: it names no model, or one that is not loaded.
            UnavailableError: the model has too many requests, or restarts.
        """
        if not invocation.model:
            raise NotFoundError(
                "this server holds several models (SAGEMAKER_MULTI_MODEL=true): load one with "
                "POST /models and send requests to POST /models/<name>/invoke"
            )
        model = self.registry.find(invocation.model)
        model.check()
        try:
            model.calls.admission.enter(invocation.size_bytes)
        except FullError as error:
            model.tally.refused()
            raise UnavailableError(f"the model is full: {error}; try again", "full") from None
        if threading.get_ident() == self._loop_thread:
            model.invoke(invocation)
        else:
            assert self._loop is not None  # noqa: S101 - set by start
            self._loop.call_soon_threadsafe(model.invoke, invocation)

    @property
    def bidirectional_paths(self) -> tuple[str, ...]:
        """None: the multi-model API has no WebSockets."""
        return ()

    def converse(self, invocation: Invocation, messages: Messages) -> Stream[Response]:
        """Refuse a bidirectional stream.

        Raises:
            NotFoundError: always.
        """
        _ = invocation, messages
        raise NotFoundError("a multi-model server has no WebSockets")

    def defunct(self) -> str | None:
        """None: what may have to be replaced are the models' own processes."""

    async def manage(self, route: Route, query: bytes, body: bytes) -> Response:
        """Answer a request of the management API.

        Args:
            route: any but an invocation.
            query: the query string.
            body: complete.

        Raises:
            RequestError: by the contract's table (section 10): 400, 404, 409, 507, others.
        """
        registry = self.registry
        if route.action is Action.LIST:
            models = registry.loaded()
            names, token = page(models, query)
            content: dict[str, Any] = {"models": [_item(models[name]) for name in names]}
            if token is not None:
                content["nextPageToken"] = token
            return _json(content)
        if route.action is Action.DESCRIBE:
            model = registry.loaded().get(route.name)
            if model is None:
                raise UnknownModelError(route.name)
            return _json(_item(model))
        if route.action is Action.LOAD:
            return _json(_item(await self._load(LoadRequest.parse(body))))
        # A client that gives up changes nothing: the memory is wanted back.
        unload = asyncio.ensure_future(registry.unload(route.name))
        return _json(_item(await asyncio.shield(unload)))

    async def _load(self, request: LoadRequest) -> Model:
        """Load to the end, whether or not the client waits, unless the server stops."""
        load = asyncio.ensure_future(self.registry.load(request))
        while not load.done():
            await asyncio.wait([load], timeout=_LOOK_S)
            if self._stopping() and not load.done():
                load.add_done_callback(_seen)
                raise UnavailableError("stopping: the server was told to end", "stopping")
        return load.result()

    def run(self, route: Route, query: bytes, body: bytes) -> Response:
        """``manage`` for a thread that is not the loop's.

        Raises:
            RequestError: as ``manage`` does.
        """
        assert self._loop is not None  # noqa: S101 - set by start
        return asyncio.run_coroutine_threadsafe(
            self.manage(route, query, body), self._loop
        ).result()

    def close(self, timeout_s: float) -> bool:
        """End all models; True when they are gone. The front has answered its requests."""
        if self._thread is not None and self._loop is not None:
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join(1.0)
        if self._nursery is None:
            return True
        return self._nursery.close(_CLOSE_S if timeout_s > 0 else 0.0)


def _seen(task: asyncio.Task[Model]) -> None:
    """The server stops: how a load ends interests nobody any more."""
    if not task.cancelled():
        task.exception()


def _item(model: Model) -> dict[str, str]:
    return {"modelName": model.name, "modelUrl": model.url}


def _json(content: dict[str, Any]) -> Response:
    import orjson  # noqa: PLC0415 - checked by main before anything else loads

    return Response(200, orjson.dumps(content))
