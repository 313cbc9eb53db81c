"""gunicorn's threaded worker, with threads only for requests whose head has arrived.

As it comes, the threaded worker gives a thread to every new connection for five seconds, reads
heads and bodies for as long as the client likes, and lingers over closing connections in the
thread that accepts new ones. A few hundred slow clients stop it. Here a connection waits in the
poller until its head is complete, and a thread that reads has a deadline.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import selectors
import socket
import time
from functools import partial
from typing import Any

from gunicorn.http.errors import (
    ConfigurationProblem,
    ExpectationFailed,
    InvalidResponseHeader,
    InvalidResponseHeaderName,
    LimitRequestHeaders,
    LimitRequestLine,
    NoMoreData,
    ParseException,
    UnsupportedTransferCoding,
)
from gunicorn.util import close_graceful
from gunicorn.workers import gthread

from byoc_serving.errors import RequestTimeoutError, protocol_error
from byoc_serving.gunicorn_conf import KEEPALIVE_S
from byoc_serving.patience import LINGER_S, MAX_HEAD_BYTES, Patience
from byoc_serving.rendering import wire

log = logging.getLogger("byoc_serving")

_FULL = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)
#: EINVAL: another worker of a stopping server has ended listening for all.
_NOBODY = (errno.EAGAIN, errno.EWOULDBLOCK, errno.ECONNABORTED, errno.EINVAL)
_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
_STATUSES = (
    (LimitRequestLine, 414),
    (LimitRequestHeaders, 431),
    (ExpectationFailed, 417),
    (UnsupportedTransferCoding, 501),
    ((ConfigurationProblem, InvalidResponseHeader, InvalidResponseHeaderName), 500),
    (ParseException, 400),
)


class PatientSocket(socket.socket):
    """A connection whose reads end by a deadline.

    Attributes:
        head_since: when the first byte of the request came; None: between requests.
        expects_continue: the client sends its body once it is asked to.
        late: a read has come to its deadline.
    """

    def __init__(self, accepted: socket.socket, patience: Patience) -> None:
        super().__init__(accepted.family, accepted.type, accepted.proto, accepted.detach())
        self._patience = patience
        self._peeked = 0
        self.begin_request()

    def begin_request(self) -> None:
        """Between requests."""
        self.head_since: float | None = None
        self.body_since: float | None = None
        self._last = 0.0
        self._received = 0
        self._at_most = float("inf")
        self.expects_continue = False
        self.late = False

    def begin_body(self) -> None:
        """The head is read; what comes now is the body."""
        self.body_since = self._last = time.monotonic()
        self._received = 0

    def finish_within(self, seconds: float) -> None:
        """The answer is sent: what is left of the request may take this long."""
        self._at_most = time.monotonic() + seconds

    def head_until(self, now: float) -> float:
        """When the head must be here."""
        return (self.head_since or now) + self._patience.head_s

    def head_is_here(self) -> bool:
        """Whether a thread would find a whole head, or an end.

        What has come is looked at, not taken; the poller is told to wake us only for more.
        """
        try:
            seen = super().recv(MAX_HEAD_BYTES, socket.MSG_PEEK | socket.MSG_DONTWAIT)
        except BlockingIOError:
            return False
        if self.head_since is None:
            self.head_since = time.monotonic()
        length = len(seen)
        # No more than the last time, and yet awake: the client sends nothing more.
        ended = length in {0, self._peeked}
        here = ended or length == MAX_HEAD_BYTES or b"\r\n\r\n" in seen or b"\n\n" in seen
        if here and self._peeked:
            self.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, 1)
        elif not here:
            self.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, length + 1)
        self._peeked = 0 if here else length
        return here

    def say_at_once(self, data: bytes) -> None:
        """Send what fits now, for a client whose connection ends."""
        with contextlib.suppress(OSError):
            # Unread bytes would turn the close into a reset, and the answer would be lost.
            self.settimeout(0)
            super().recv(MAX_HEAD_BYTES, socket.MSG_DONTWAIT)
        with contextlib.suppress(OSError):
            self.send(data, socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)

    def recv(self, bufsize: int, flags: int = 0, /) -> bytes:
        """Receive, for as long as there is time.

        Raises:
            TimeoutError: the client takes too long.
        """
        if self.expects_continue:
            self.expects_continue = False
            self.settimeout(self._patience.body_s)
            super().sendall(_CONTINUE)
        now = time.monotonic()
        until = self.head_until(now)
        if self.body_since is not None:
            until = self._patience.body_until(self.body_since, self._last, self._received)
        left = min(until, self._at_most) - now
        if left > 0:
            self.settimeout(left)
            with contextlib.suppress(socket.timeout):
                data = super().recv(bufsize, flags)
                self._last = time.monotonic()
                self._received += len(data)
                return data
        self.late = True
        raise TimeoutError("the client takes too long")

    def sendall(self, data: Any, flags: int = 0, /) -> None:
        """Send an answer; the kernel's clock ends it when the client does not read."""
        self.expects_continue = False
        self.settimeout(None)
        super().sendall(data, flags)


def announce_close(app: Any) -> Any:
    """The WSGI application, whose answers say so when the connection cannot be used again.

    What follows a body that came too late or malformed is not known to be a request.
    """

    def call(environ: dict[str, Any], start_response: Any) -> Any:
        def start(status: str, headers: Any, exc_info: Any = None) -> Any:
            body, connected = environ["wsgi.input"], environ["gunicorn.socket"]
            if getattr(body, "failed", False) or getattr(connected, "late", False):
                # gunicorn's Response, whose bound method start_response is.
                start_response.__self__.force_close()
            return start_response(status, headers, exc_info)

        return app(environ, start)

    return call


class PatientThreadWorker(gthread.ThreadWorker):  # type: ignore[misc] # gunicorn is untyped
    """Threads for complete heads, deadlines for reads, errors in our form."""

    alive: bool
    nr_conns: int

    def init_process(self) -> None:
        """In the worker's process, before anything is accepted."""
        self._patience = Patience.of(self.app.settings, KEEPALIVE_S)
        self._swept = 0.0
        # A set: connections come and go by the thousand.
        self.pending_conns: set[Any] = set()
        super().init_process()

    def accept(self, listener: Any) -> None:
        """Accept a connection; a thread comes with its first request."""
        try:
            accepted, address = listener.accept()
        except OSError as error:
            if error.errno in _FULL:
                log.warning("no connection can be accepted: %s", error.strerror)
                time.sleep(0.02)
            elif error.errno not in _NOBODY:
                raise
            return
        self.nr_conns += 1
        connected = PatientSocket(accepted, self._patience)
        self._wait(gthread.TConn(self.cfg, connected, address, listener.getsockname()))

    def _wait(self, conn: Any) -> None:
        """In the poller, until a head is here or time is over."""
        now = time.monotonic()
        begun = conn.sock.head_since is not None
        conn.timeout = conn.sock.head_until(now) if begun else now + self._patience.idle_s
        conn.sock.settimeout(0)
        self.pending_conns.add(conn)
        readable = partial(self.on_pending_socket_readable, conn)
        self.poller.register(conn.sock, selectors.EVENT_READ, readable)

    def murder_pending(self) -> None:
        """Close connections whose head does not come; at most twice a second, for all at once."""
        now = time.monotonic()
        if self.alive and now < self._swept + 0.5:
            return
        self._swept = now
        for conn in [conn for conn in self.pending_conns if conn.timeout <= now]:
            self.pending_conns.discard(conn)
            self.poller.unregister(conn.sock)
            self.nr_conns -= 1
            if conn.sock.head_since is not None:
                self._refuse_late_head(conn.sock)
            conn.sock.close()

    def _refuse_late_head(self, sock: PatientSocket) -> bool:
        error = RequestTimeoutError(
            f"the request's headers did not arrive within {self._patience.head_s:g} s"
        )
        sock.say_at_once(wire(error))
        return False

    def _cap_keepalive(self, deadline: float) -> None:
        super()._cap_keepalive(deadline)
        for conn in self.pending_conns:
            if conn.sock.head_since is None:
                conn.timeout = min(conn.timeout, deadline)

    def wait_for_and_dispatch_events(self, timeout: float) -> None:
        """Wait for events; while stopping, not for long."""
        super().wait_for_and_dispatch_events(timeout if self.alive else min(timeout, 0.1))

    def handle(self, conn: Any) -> Any:
        """In a thread: serve one request if its head is here; whether to go on."""
        sock: PatientSocket = conn.sock
        buffered = conn.parser is not None and conn.parser.unreader.buf.getvalue()
        try:
            here = bool(buffered) or sock.head_is_here()
        except OSError:
            sock.close()
            return False
        if not here and time.monotonic() < sock.head_until(time.monotonic()):
            return gthread._DEFER  # noqa: SLF001 - what finish_request looks for
        goes_on = self._request(conn, sock) if here else self._refuse_late_head(sock)
        if goes_on:
            sock.begin_request()
        else:
            # Here and not in the thread that accepts: it may take two seconds.
            sock.finish_within(LINGER_S)
            close_graceful(sock, LINGER_S, max_drain=1 << 30)
        return goes_on

    def _request(self, conn: Any, sock: PatientSocket) -> bool:
        request = None
        try:
            conn.init()
            request = next(conn.parser)
            if not request:
                return False
            sock.begin_body()
            # Sent when the body is first read, which is after admission.
            sock.expects_continue = request._expected_100_continue  # noqa: SLF001 - gunicorn's own
            request._expected_100_continue = False  # noqa: SLF001 - gunicorn's own
            goes_on = self.handle_request(request, conn) and not sock.late
            sock.finish_within(LINGER_S)
            return bool(goes_on and conn.parser.finish_body(time.monotonic() + LINGER_S))
        except (StopIteration, NoMoreData):
            return False
        except TimeoutError:
            if sock.body_since is None:
                self._refuse_late_head(sock)
        except OSError as error:
            log.debug("a client left: %s", error)
        except Exception as error:  # noqa: BLE001 - whatever it is, the client gets an answer
            self.handle_error(request, sock, conn.client, error)
        return False

    def handle_error(self, req: Any, client: Any, addr: Any, exc: Exception) -> None:
        """What gunicorn has to say of a malformed request, in our form."""
        _ = req, addr
        status = next((status for kind, status in _STATUSES if isinstance(exc, kind)), 500)
        if status == 500:
            log.error("request failed in the front", exc_info=exc)
        with contextlib.suppress(OSError):
            client.sendall(wire(protocol_error(status, str(exc))))

    def finish_request(self, conn: Any, fs: Any) -> None:
        """In the thread that accepts: what becomes of a connection after ``handle``."""
        failed = fs.cancelled() or fs.exception() is not None
        result = False if failed else fs.result()
        try:
            if result is gthread._DEFER:  # noqa: SLF001 - what handle returns
                self._wait(conn)
            elif result and conn.parser.unreader.buf.getvalue():
                # The next request has come already and makes nothing readable any more.
                self.enqueue_req(conn)
            elif result:
                conn.sock.settimeout(0)
                conn.set_timeout()
                if not self.alive:
                    conn.timeout = min(conn.timeout, time.monotonic() + LINGER_S)
                self.keepalived_conns.append(conn)
                readable = partial(self.on_client_socket_readable, conn)
                self.poller.register(conn.sock, selectors.EVENT_READ, readable)
            else:
                self.nr_conns -= 1
                conn.sock.close()
        except (OSError, ValueError, KeyError):
            self.nr_conns -= 1
            conn.sock.close()
