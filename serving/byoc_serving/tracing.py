"""OpenTelemetry spans of invocations, through the official SDK when it is installed.

The SDK reads its own variables: ``OTEL_EXPORTER_OTLP_ENDPOINT``, ``OTEL_SERVICE_NAME``,
``OTEL_RESOURCE_ATTRIBUTES``, ``OTEL_TRACES_SAMPLER`` and the rest. Names of attributes follow its
semantic conventions for HTTP servers; ``byoc.*`` are ours.
"""

from __future__ import annotations

import contextlib
import logging
import os
import threading
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

    from byoc_serving.exchange import Exchange

log = logging.getLogger(__name__)

SERVICE_NAME = "sagemaker-byoc"
#: A collector that does not answer must not hold up the end of a worker.
FLUSH_S = 2.0


class Trace:
    """An invocation's span (``exchange.Span``)."""

    __slots__ = ("span",)

    def __init__(self, span: Any) -> None:
        self.span = span

    @contextlib.contextmanager
    def current(self) -> Iterator[None]:
        """Spans that a handler makes inside become its children."""
        from opentelemetry import trace  # noqa: PLC0415 - optional

        with trace.use_span(
            self.span, end_on_exit=False, record_exception=False, set_status_on_exception=False
        ):
            yield


class Tracer:
    """Makes the spans of one process.

    Args:
        provider: the SDK's.
    """

    def __init__(self, provider: Any) -> None:
        self._provider = provider
        self._tracer = provider.get_tracer("byoc_serving")

    def begin(self, exchange: Exchange) -> Trace:
        """The span of a request, as a child of the caller's (W3C ``traceparent``)."""
        from opentelemetry.trace import SpanKind  # noqa: PLC0415 - optional
        from opentelemetry.trace.propagation.tracecontext import (  # noqa: PLC0415 - optional
            TraceContextTextMapPropagator,
        )

        carrier = {
            name.decode("latin-1"): value.decode("latin-1")
            for name, value in exchange.headers
            if name in {b"traceparent", b"tracestate"}
        }
        span = self._tracer.start_span(
            f"{exchange.method} {exchange.path}",
            context=TraceContextTextMapPropagator().extract(carrier),
            kind=SpanKind.SERVER,
            start_time=_unix_ns(exchange.began),
            attributes={
                "http.request.method": exchange.method,
                "http.route": exchange.path,
                "url.path": exchange.path,
                "url.scheme": "http",
            },
        )
        return Trace(span)

    def end(self, exchange: Exchange, trace: Trace) -> None:
        """The answer has left."""
        from opentelemetry.trace import (  # noqa: PLC0415 - optional
            Status,
            StatusCode,
            set_span_in_context,
        )

        span, now = trace.span, time.monotonic()
        span.set_attribute("http.response.status_code", exchange.status)
        span.set_attribute("http.response.body.size", exchange.sent_bytes)
        if exchange.status >= 500:
            span.set_status(Status(StatusCode.ERROR))
        invocation = exchange.invocation
        if invocation is not None:
            span.set_attribute("http.request.body.size", invocation.size_bytes)
            span.set_attribute("byoc.request_id", invocation.request_id)
        if invocation is not None and (batch := invocation.batch) is not None:
            span.set_attribute("byoc.batch.requests", batch.requests)
            span.set_attribute("byoc.predict.duration_s", batch.forward_s)
            parts = (
                ("queue", invocation.queued_at, batch.began),
                ("model", batch.began, batch.ended),
            )
            for name, began, ended in parts:
                part = self._tracer.start_span(
                    name, context=set_span_in_context(span), start_time=_unix_ns(began)
                )
                part.end(_unix_ns(ended))
        span.end(_unix_ns(now))

    def close(self) -> None:
        """Send what is left, within ``FLUSH_S``."""
        # The SDK's own flush may wait for a time-out of the exporter's.
        flushing = threading.Thread(target=self._provider.force_flush, daemon=True)
        flushing.start()
        flushing.join(FLUSH_S)


def make() -> Tracer | None:
    """The tracer of this process; None, and one line in the log, without the SDK."""
    try:
        from opentelemetry import trace  # noqa: PLC0415 - optional
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import (  # noqa: PLC0415
            OTLPSpanExporter,
        )
        from opentelemetry.sdk.resources import Resource  # noqa: PLC0415 - optional
        from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415 - optional
        from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: PLC0415 - optional
    except ImportError as error:
        log.warning(
            "no spans: %s is not installed; install sagemaker-byoc[otel] (or name "
            "opentelemetry-sdk and opentelemetry-exporter-otlp-proto-http in "
            "code/requirements.txt), or set BYOC_OTEL=0",
            error.name or error,
        )
        return None
    resource = Resource.create(
        {"service.name": SERVICE_NAME} if "OTEL_SERVICE_NAME" not in os.environ else {}
    )
    provider = TracerProvider(resource=resource, shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    # A handler that has chosen a provider keeps it; ours serves its spans otherwise.
    if isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider):
        trace.set_tracer_provider(provider)
    return Tracer(provider)


def _unix_ns(moment: float) -> int:
    """A moment of the monotonic clock as nanoseconds of Unix time."""
    return time.time_ns() - int((time.monotonic() - moment) * 1e9)
