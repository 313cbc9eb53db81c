"""A WSGI application whose answers are observed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from byoc_serving.exchange import Exchange

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from byoc_serving.observer import Observer

#: Where the application finds the exchange that its request belongs to.
EXCHANGE_KEY = "byoc.exchange"


class Watched:
    """The application around which this is.

    Args:
        app: a WSGI application.
        observer: told of every answer once it has been handed on.
    """

    def __init__(self, app: Callable[..., Iterable[bytes]], observer: Observer) -> None:
        self._app = app
        self._observer = observer

    def __call__(
        self, environ: dict[str, Any], start_response: Callable[..., Any]
    ) -> Iterable[bytes]:
        """Answer one request (PEP 3333)."""
        path = environ["PATH_INFO"].encode("latin-1").decode("utf-8", "replace")
        exchange = environ[EXCHANGE_KEY] = Exchange(environ["REQUEST_METHOD"], path)

        def starting(status: str, *arguments: Any) -> Any:
            exchange.status = int(status.split(" ", 1)[0])
            return start_response(status, *arguments)

        return _Chunks(self._app(environ, starting), exchange, self._observer)


class _Chunks:
    """An answer's chunks, counted as they pass."""

    def __init__(self, chunks: Iterable[bytes], exchange: Exchange, observer: Observer) -> None:
        self._source = chunks
        self._chunks = iter(chunks)
        self._exchange = exchange
        self._observer = observer

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        chunk = next(self._chunks)
        self._exchange.sent_bytes += len(chunk)
        return chunk

    def close(self) -> None:
        """The server is done with the answer, in whatever way."""
        try:
            close = getattr(self._source, "close", None)
            if close is not None:
                close()
        finally:
            self._observer.response(self._exchange)
