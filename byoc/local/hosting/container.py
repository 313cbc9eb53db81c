"""One container that serves: started, watched, started again when it ends, and stopped."""

from __future__ import annotations

import threading
import time
from collections import deque
from typing import TYPE_CHECKING

from byoc.local.hosting.connections import Connections
from byoc.local.hosting.launch import LaunchError, launch
from byoc.local.hosting.wire import ExchangeError
from byoc.local.runners.base import SERVING_STOP_SECONDS

if TYPE_CHECKING:
    from byoc.local.hosting.launch import Launched, Program
    from byoc.local.journal import Journal

#: Contract section 7.1: for ``/ping`` to answer.
PING_SECONDS = 2.0
#: Between two looks at a container that serves; and failed ones until it is replaced.
PING_EVERY_SECONDS, PING_FAILURES = 5.0, 3
#: Before a container that has ended is started again: doubled each time, up to the second.
RESTART_SECONDS, MOST_RESTART_SECONDS = 0.5, 30.0
LAST_LINES = 12


class StartError(Exception):
    """The container does not serve: words for ``FailureReason``."""


class Container:
    """A container.

    Args:
        program: What it runs.
        journal: Takes each line of its output, and ours about it; closed by `stop`.
    """

    def __init__(self, program: Program, journal: Journal) -> None:
        self._program, self._journal = program, journal
        self._last: deque[str] = deque(maxlen=LAST_LINES)
        self._launched: Launched | None = None
        self._lock = threading.RLock()
        self._stopped = False
        self._since = self._pinged = self._again_at = 0.0
        self._failures = self._restarts = 0
        #: Whether requests may be sent to it.
        self.ready = False
        #: Changes with each start.
        self.starts = 0
        #: Of the image that was started last; empty for a process.
        self.digest = ""
        self.connections = Connections(("127.0.0.1", 0))

    @property
    def in_flight(self) -> int:
        """Requests that it has not answered completely."""
        return self.connections.in_flight

    def tell(self, line: str) -> None:
        """Say something about it in its log."""
        self._journal.line(line)

    def start(self) -> None:
        """Start it; `check` says when it serves.

        Raises:
            StartError: There is no such image, or the engine refuses.
        """
        with self._lock:
            if self._stopped:
                raise StartError("It is being stopped.")
            try:
                self._launched = launch(self._program, self._said)
            except LaunchError as error:
                raise StartError(str(error)) from error
            self.connections = Connections(self._launched.running.address)
            self.digest = self._launched.digest
            self.starts += 1
            self._since = time.monotonic()
            self._failures = 0

    def ping(self) -> bool:
        """Whether ``/ping`` answers 200 in time."""
        self._pinged = time.monotonic()
        try:
            reply = self.connections.ask("GET", "/ping", {}, b"", PING_SECONDS)
        except ExchangeError:
            return False
        return reply.status == 200

    def check_start(self) -> None:
        """While it starts for the first time: see whether it serves.

        Raises:
            StartError: It has ended, or was not ready in time; with its last lines.
        """
        code = self._ended()
        if code is not None:
            raise StartError(f"The container ended with exit code {code}. {self.last_lines()}")
        if self.ping():
            self.ready = True
        elif time.monotonic() - self._since > self._program.start_seconds:
            raise StartError(
                "The container did not pass the ping health check within "
                f"{self._program.start_seconds:.0f} seconds. {self.last_lines()}"
            )

    def check(self) -> None:
        """While it should serve: start it again when it has ended or does not answer."""
        with self._lock:
            now = time.monotonic()
            if self._stopped:
                return
            if self._launched is None:
                if now >= self._again_at:
                    self._restart()
                return
            code = self._ended()
            if code is not None:
                self._gone(f"the container ended with exit code {code}")
            elif not self.ready:
                if self.ping():
                    self.ready = True
                    self.tell("the container serves again")
                elif now - self._since > self._program.start_seconds:
                    self._gone("the container did not pass the ping health check in time")
            elif now - self._pinged > PING_EVERY_SECONDS:
                self._check_ping(now)

    def failed(self) -> None:
        """A connection was refused: send nothing more until a ping has answered."""
        self.ready = False
        self._since = time.monotonic()

    def last_lines(self) -> str:
        """What it has said last."""
        lines = [line for line in self._last if line.strip()]
        return f"Its last lines: {' | '.join(lines)}" if lines else "It has said nothing."

    def stop(self, seconds: float = SERVING_STOP_SECONDS) -> None:
        """Stop it for good: SIGTERM, then SIGKILL."""
        self.ready = False
        self._stopped = True
        with self._lock:
            self.connections.close()
            self._end(seconds)
        self._journal.close()

    def _said(self, line: str) -> None:
        self._last.append(line)
        self.tell(line)

    def _check_ping(self, now: float) -> None:
        if self.ping():
            self._failures = 0
            # After some time of service, the next fault is a new one.
            if now - self._since > 60:
                self._restarts = 0
            return
        self._failures += 1
        if self._failures >= PING_FAILURES:
            self._gone(f"{PING_FAILURES} pings in a row had no answer of status 200")

    def _restart(self) -> None:
        try:
            self.start()
        except StartError as error:
            self._gone(str(error))

    def _gone(self, words: str) -> None:
        self.ready = False
        self.connections.close()
        self._end(0.0)
        wait = min(RESTART_SECONDS * 2**self._restarts, MOST_RESTART_SECONDS)
        self._restarts = min(self._restarts + 1, 16)
        self._again_at = time.monotonic() + wait
        self.tell(f"{words}; it is started again in {wait:g} s")

    def _end(self, seconds: float) -> None:
        launched, self._launched = self._launched, None
        if launched is not None:
            try:
                launched.end(seconds)
            except Exception as error:  # noqa: BLE001 - an engine's: it has been removed by hand
                self.tell(f"stopping the container: {error}")

    def _ended(self) -> int | None:
        if self._launched is None:
            return None
        try:
            code = self._launched.running.poll()
            return None if code is None else self._launched.running.wait()
        except Exception as error:  # noqa: BLE001 - an engine's: it has been removed by hand
            self.tell(f"looking at the container: {error}")
            return 137
