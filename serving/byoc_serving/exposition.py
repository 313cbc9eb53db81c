"""``GET /metrics``: the ledger in Prometheus' text format or as OpenMetrics, whichever is accepted.

Metrics that a handler makes with prometheus-client are on the same page, summed over the workers
by that package's own multiprocess mode.
"""

from __future__ import annotations

import contextlib
import os
import platform
import time
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from byoc_serving import meter
from byoc_serving.errors import MethodNotAllowedError, NotFoundError
from byoc_serving.exchange import Response, error_response, no_route, request_id
from byoc_serving.table import State

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from byoc_serving.meter import Distribution, Ledger
    from byoc_serving.table import Table

#: prometheus-client's own name for the directory of its multiprocess mode.
DIRECTORY_VARIABLE = "PROMETHEUS_MULTIPROC_DIR"
#: One unit of /proc/<pid>/statm.
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


def answer(method: str, accept: str, collector: Collector | None, *, several: bool) -> Response:
    """The answer to a request for ``/metrics``.

    Args:
        method: the request's.
        accept: its Accept header; OpenMetrics only where asked for.
        collector: None when metrics are switched off.
        several: whether the server is one of several models.
    """
    if collector is None:
        return error_response(NotFoundError(no_route("/metrics", several=several)), request_id())
    if method not in {"GET", "HEAD"}:
        refused = MethodNotAllowedError(method, "/metrics", "GET, HEAD")
        return error_response(refused, request_id())
    from prometheus_client import CollectorRegistry  # noqa: PLC0415 - 0.15 s that no start needs
    from prometheus_client.exposition import choose_encoder  # noqa: PLC0415

    registry = CollectorRegistry(auto_describe=False)
    registry.register(collector)
    folder = os.environ.get(DIRECTORY_VARIABLE)
    if folder and any(Path(folder).glob("*.db")):
        from prometheus_client.multiprocess import MultiProcessCollector  # noqa: PLC0415

        MultiProcessCollector(registry)  # type: ignore[no-untyped-call] # the package's own
    encode, kind = choose_encoder(accept)
    return Response(200, encode(registry), kind)


class Collector:
    """The server's metrics, read when asked for.

    Args:
        ledger: what was counted.
        table: the processes and their states.
        facts: labels of ``byoc_build_info``.
        more: further families.
    """

    def __init__(
        self,
        ledger: Ledger,
        table: Table,
        facts: Mapping[str, str],
        more: Callable[[], Iterator[Any]] = lambda: iter(()),
    ) -> None:
        self._more = more
        self._ledger = ledger
        self._table = table
        self._facts = {
            "version": _version("sagemaker-byoc"),
            "python": platform.python_version(),
            "torch": _version("torch"),
            **facts,
        }

    def describe(self) -> Iterator[Any]:
        """Nothing: the names are known only when collected."""
        return iter(())

    def collect(self) -> Iterator[Any]:
        """Every metric family, in the order of the documentation."""
        from prometheus_client.core import (  # noqa: PLC0415 - imported when first asked for
            CounterMetricFamily,
            GaugeMetricFamily,
            HistogramMetricFamily,
        )

        numbers = self._ledger.total()
        requests = CounterMetricFamily(
            "byoc_requests", "Answers given, by route and HTTP status.", labels=["route", "status"]
        )
        for route, status, count in meter.responses(numbers):
            requests.add_metric([route, str(status)], count)
        yield requests

        duration = HistogramMetricFamily(
            "byoc_request_duration_seconds",
            "From the request's head to the end of its answer.",
            labels=["route"],
        )
        for route, place in zip(meter.ROUTES, meter.DURATION, strict=True):
            times = place.read(numbers)
            if times.count:
                duration.add_metric([route], times.cumulative(), times.total)
        yield duration

        def histogram(name: str, text: str, values: Distribution) -> Any:
            return HistogramMetricFamily(name, text, values.cumulative(), values.total)

        yield histogram(
            "byoc_queue_wait_seconds",
            "From the end of an invocation's body to its batch.",
            meter.QUEUE_WAIT.read(numbers),
        )
        yield histogram(
            "byoc_predict_duration_seconds",
            "A batch's time in predict_fn or transform_fn.",
            meter.FORWARD.read(numbers),
        )
        yield histogram(
            "byoc_batch_size_requests", "Invocations in a batch.", meter.BATCH.read(numbers)
        )
        yield histogram(
            "byoc_request_body_bytes", "Bodies of invocations.", meter.RECEIVED.read(numbers)
        )
        yield histogram(
            "byoc_response_body_bytes", "Bodies of their answers.", meter.SENT.read(numbers)
        )

        def gauge(name: str, text: str, value: float) -> Any:
            return GaugeMetricFamily(name, text, value)

        yield gauge(
            "byoc_invocations_in_flight",
            "Invocations admitted and not answered yet.",
            numbers[meter.IN_FLIGHT],
        )
        slots = self._table.slots()
        ready = sum(slot.state is State.READY for slot in slots)
        yield gauge("byoc_workers", "Workers that the server was started with.", len(slots))
        yield gauge("byoc_workers_ready", "Workers that take invocations.", ready)
        yield CounterMetricFamily(
            "byoc_worker_restarts",
            "Workers that ended on their own and were replaced.",
            numbers[meter.RESTARTS],
        )
        yield from self._processes()
        yield from self._more()
        age = time.monotonic() - self._table.started
        yield gauge(
            "byoc_start_time_seconds", "When the server started, Unix time.", time.time() - age
        )
        info = GaugeMetricFamily("byoc_build_info", "Always 1.", labels=list(self._facts))
        info.add_metric(list(self._facts.values()), 1)
        yield info

    def _processes(self) -> Iterator[Any]:
        """What each process tells of itself."""
        from prometheus_client.core import GaugeMetricFamily  # noqa: PLC0415 - as above

        def family(name: str, text: str) -> Any:
            return GaugeMetricFamily(name, text, labels=["worker"])

        load = family("byoc_model_load_seconds", "From a worker's start to its model.")
        memory = family("byoc_worker_resident_memory_bytes", "A worker's resident memory.")
        held = family("byoc_gpu_memory_allocated_bytes", "Held by tensors, as torch counts it.")
        kept = family("byoc_gpu_memory_reserved_bytes", "Held by torch's allocator.")
        for number, slot in enumerate(self._table.slots()):
            name = [str(number)]
            if seconds := self._ledger.gauge(number, meter.LOAD_SECONDS):
                load.add_metric(name, seconds)
            if slot.pid and (resident := resident_bytes(slot.pid)):
                memory.add_metric(name, resident)
            if reserved := self._ledger.gauge(number, meter.GPU_RESERVED):
                held.add_metric(name, self._ledger.gauge(number, meter.GPU_ALLOCATED))
                kept.add_metric(name, reserved)
        yield from (family for family in (load, memory, held, kept) if family.samples)


def _version(package: str) -> str:
    """An installed package's version, without importing it; "" where it is not installed."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return ""


def resident_bytes(pid: int) -> int | None:
    """A process's resident memory; None when it is gone."""
    with contextlib.suppress(OSError, IndexError, ValueError):
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * _PAGE_BYTES
    return None


def share_handlers_metrics(workspace: Path) -> None:
    """Let handlers' own metrics be summed over the workers; before any worker starts.

    A directory that was chosen outside is left as it is.
    """
    if not os.environ.get(DIRECTORY_VARIABLE):
        folder = workspace / "prometheus"
        folder.mkdir()
        os.environ[DIRECTORY_VARIABLE] = str(folder)


def forget_handlers_gauges(pid: int) -> None:
    """A worker is gone: its live gauges must not be summed any more."""
    folder = os.environ.get(DIRECTORY_VARIABLE)
    if folder and any(Path(folder).glob(f"gauge_live*_{pid}.db")):
        from prometheus_client.multiprocess import mark_process_dead  # noqa: PLC0415 - rare

        mark_process_dead(pid)  # type: ignore[no-untyped-call] # the package's own
