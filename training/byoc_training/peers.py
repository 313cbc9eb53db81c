"""The other hosts of a distributed job, from the first word to the last.

torchrun, started with fixed ranks, knows nothing of another host's end: the survivors hang in a
collective operation until a time-out that is counted in minutes. So the `train` commands of a job
keep a connection each to the one on the first of the sorted hosts, on the port after torchrun's,
and tell each other by it (`board`) that they are ready, that they have failed and why, that they
were told to stop, that they are done:

* no program is started before all hosts are there, however late they and their names come;
* when one fails, or its container ends without a word, the others end within seconds;
* a stop signal to one of them is one to all;
* none ends with success before all have succeeded.
"""

from __future__ import annotations

import contextlib
import select
import socket
import time
from typing import TYPE_CHECKING, Any

from byoc_training.board import Board, Failure
from byoc_training.errors import PeerError, UnavailableError
from byoc_training.wire import Link

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from byoc_training.console import Console

#: How often a host says that it lives, and how long its silence is borne.
ALIVE_SECONDS = 5.0
SILENCE_SECONDS = 30.0
#: How long a host that fails before the others have come waits to tell them.
LAST_WORD_SECONDS = 15.0
#: How long a failure that may be another one's consequence waits for its cause.
CAUSE_SECONDS = 10.0
#: How long the others may take to read the last word.
_FAREWELL_SECONDS = 1.0
_CONNECT_SECONDS = 3.0
_PAUSE_SECONDS = 0.5
_PROGRESS_SECONDS = 30.0


class Peers:
    """This host's part.

    Args:
        hosts: All that train together, in the order of their ranks.
        current: This one.
        job: What tells this job from another one in the same network.
        port: Where the first host listens.
        console: Takes a line for each decision.
        clock: Seconds of a monotonic clock.
    """

    def __init__(
        self,
        hosts: tuple[str, ...],
        current: str,
        job: str,
        port: int,
        console: Console,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.board = Board(hosts)
        self.current = current
        self._job = job
        self._port = port
        self._console = console
        self._clock = clock
        self._links: list[Link] = []
        self._listener: socket.socket | None = None
        self._said_alive = clock()

    @property
    def leads(self) -> bool:
        """Whether this is the host that the others connect to."""
        return self.current == self.board.hosts[0]

    @property
    def failure(self) -> Failure | None:
        """The failure of another host that matters, if there is one."""
        return self.board.failure(self.current)

    def gather(self, seconds: float) -> None:
        """Wait until every host is ready to begin.

        Args:
            seconds: How long to wait for the last one.

        Raises:
            UnavailableError: Some did not come.
            PeerError: One has failed meanwhile.
        """
        began = self._clock()
        self.tell("here")
        for waited in self._meeting(began, seconds):
            if self.board.complete:
                break
            if self.failure is not None:
                raise blamed(self.failure)
            if waited >= seconds:
                raise UnavailableError(self._absence(seconds))
        if self.failure is not None:
            raise blamed(self.failure)
        self._stop_listening()
        self._console.info(
            f"all {len(self.board.hosts)} hosts are there after {self._clock() - began:.1f} s"
        )

    def _absence(self, seconds: float) -> str:
        what = ", ".join(self.board.missing) or "no other host"
        if not self.leads and not self._links:
            what = f"{self.board.hosts[0]} (port {self._port})"
        return (
            f"{what} could not be reached within {seconds:g} s "
            f"(BYOC_HOSTS_TIMEOUT_SECONDS); this job has the hosts {', '.join(self.board.hosts)}: "
            "see the logs of the missing ones, and in a VPC let the security group's members "
            "reach each other"
        )

    def _meeting(self, began: float, seconds: float) -> Iterator[float]:
        """Turns until the caller has seen enough, each with the seconds since the beginning."""
        progress = _PROGRESS_SECONDS
        while True:
            if self.leads:
                self._listen()
            elif not self._links:
                self._connect()
            self._wait(_PAUSE_SECONDS)
            self.turn()
            waited = self._clock() - began
            yield waited
            if waited >= progress:
                progress += _PROGRESS_SECONDS
                names = ", ".join(self.board.missing) if self._links or self.leads else ""
                self._console.info(
                    f"waiting for {names or self.board.hosts[0]} ({waited:.0f} of {seconds:.0f} s)"
                )

    def _listen(self) -> None:
        if self._listener is not None:
            return
        try:
            self._listener = socket.create_server(
                ("", self._port), backlog=2 * len(self.board.hosts)
            )
        except OSError as error:
            raise UnavailableError(
                f"cannot listen for the other hosts on port {self._port}: {error.strerror}"
            ) from error
        self._listener.settimeout(0.0)

    def _stop_listening(self) -> None:
        if self._listener is not None:
            self._listener.close()
            self._listener = None

    def _connect(self) -> None:
        """One attempt: the name may not be known yet, nobody may be listening yet."""
        try:
            connection = socket.create_connection(
                (self.board.hosts[0], self._port), timeout=_CONNECT_SECONDS
            )
        except OSError as error:
            self._console.debug(f"{self.board.hosts[0]} port {self._port}: {error}")
            return
        link = Link(connection, self._clock())
        link.host = self.board.hosts[0]
        link.send({"hello": self.current, "job": self._job, "hosts": self.board.hosts})
        for event in self.board.events:
            link.send(event)
        self._links.append(link)

    def tell(self, kind: str, **fields: Any) -> None:
        """Pin up an event of this host."""
        self._pin({"event": kind, "host": self.current, **fields}, None)

    def _pin(self, event: dict[str, Any], source: Link | None) -> None:
        if not self.board.pin(event):
            return
        for link in self._links:
            if link is not source and link.host:
                link.send(event)

    def descriptors(self) -> Iterator[tuple[int, int]]:
        """What to poll, and for what, so that `turn` comes in time."""
        if self._listener is not None:
            yield self._listener.fileno(), select.POLLIN
        for link in self._links:
            yield link.fileno(), select.POLLIN | (select.POLLOUT if link.has_more_to_send else 0)

    def turn(self) -> None:
        """Do what there is to do; never blocks."""
        now = self._clock()
        self._accept(now)
        if now >= self._said_alive + ALIVE_SECONDS:
            self._said_alive = now
            for link in self._links:
                link.send({"event": "alive"})
        for link in list(self._links):
            link.flush()
            for message in link.receive(now):
                self._take(link, message)
            if not link.closed and link.host and now > link.heard + SILENCE_SECONDS:
                link.closed = f"nothing heard of it for {SILENCE_SECONDS:g} s"
            if link.closed:
                self._lose(link)

    def _accept(self, now: float) -> None:
        while self._listener is not None:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self._links.append(Link(connection, now))

    def _take(self, link: Link, message: dict[str, Any]) -> None:
        if "hello" in message:
            self._welcome(link, message)
        elif not self.leads:
            if "refused" in message:
                text = str(message["refused"])
                self.board.pin({"event": "failed", "host": link.host, "text": text})
            self._pin(message, link)
        elif link.host and message.get("host") == link.host:
            self._pin(message, link)

    def _welcome(self, link: Link, message: dict[str, Any]) -> None:
        host, hosts = message["hello"], message.get("hosts")
        problem = ""
        if message.get("job") != self._job or hosts != list(self.board.hosts):
            problem = f"it belongs to another job, with the hosts {hosts}"
        elif host == self.current or host not in self.board.hosts:
            problem = f"it says that it is {host}"
        elif any(other.host == host for other in self._links):
            problem = f"there is another {host} already"
        if problem:
            self._console.warning(f"a connection is refused: {problem}")
            link.send({"refused": f"{self.current} refuses this host: {problem}"[:500]})
            link.closed = problem
            return
        link.host = str(host)
        for event in self.board.events:
            link.send(event)

    def _lose(self, link: Link) -> None:
        self._links.remove(link)
        link.close()
        host = link.host
        if not host or self.board.all_done:
            return
        if host not in self.board.done or not self.leads:
            # A member that is done may go; without the first host nobody knows of the others.
            text = f"{host} ended without a word ({link.closed})"
            self._pin({"event": "failed", "host": host, "text": text}, None)

    def finish(self, stopped: Callable[[], bool], wakeup: int) -> None:
        """This host's program has succeeded: wait until all have.

        Args:
            stopped: Whether the job has been told to stop, which ends the waiting.
            wakeup: Readable when that may have changed.

        Raises:
            PeerError: Another host failed.
        """
        self.tell("done")
        began = said = self._clock()
        while not self.board.all_done and not stopped():
            if self.failure is not None:
                raise blamed(self.failure)
            self._wait(_PAUSE_SECONDS, wakeup)
            self.turn()
            if self._clock() - said >= _PROGRESS_SECONDS:
                said = self._clock()
                names = ", ".join(self.board.unfinished)
                self._console.info(f"done; waiting for {names} ({said - began:.0f} s)")

    def explain(self, seconds: float = CAUSE_SECONDS) -> Failure | None:
        """Another host's failure that this one's may be a consequence of, waiting for it."""
        until = self._clock() + seconds
        while self._clock() < until and self._links:
            found = self.failure
            if found is not None and not found.secondary:
                return found
            self._wait(_PAUSE_SECONDS / 5)
            self.turn()
        return self.failure

    def fail(self, text: str, *, secondary: bool = False, waited: bool = False) -> None:
        """Tell the others that this host has failed, those too that have not come yet.

        Args:
            text: Why.
            secondary: It may be another host's fault.
            waited: Its ranks waited in vain for some of another host.
        """
        self.tell("failed", text=text, secondary=secondary, waited=waited)
        began = self._clock()
        if not self.board.complete and self.failure is None:
            with contextlib.suppress(UnavailableError):
                for spent in self._meeting(began, LAST_WORD_SECONDS):
                    told = {link.host for link in self._links if link.host}
                    enough = len(self.board.hosts) - 1 if self.leads else 1
                    if len(told) >= enough or spent >= LAST_WORD_SECONDS:
                        break

    def close(self) -> None:
        """Send what is left to send, see that it has been read, and go."""
        until = self._clock() + _FAREWELL_SECONDS
        self._stop_listening()
        for link in self._links:
            link.flush()
        finished: set[Link] = set()
        while self._links and self._clock() < until:
            for link in list(self._links):
                link.flush()
                if not link.has_more_to_send and link not in finished:
                    finished.add(link)
                    link.finish()
                link.receive(self._clock())
                if link.closed:
                    self._links.remove(link)
                    link.close()
            if self._links:
                self._wait(_PAUSE_SECONDS / 5)
        for link in self._links:
            link.close()
        self._links.clear()

    def _wait(self, seconds: float, *more: int) -> None:
        poll = select.poll()
        for descriptor, events in self.descriptors():
            poll.register(descriptor, events)
        for descriptor in more:
            poll.register(descriptor, select.POLLIN)
        poll.poll(seconds * 1000)


def blamed(failure: Failure) -> PeerError:
    """The end of a host that has itself done nothing wrong."""
    return PeerError(f"stopped because {failure.host} failed: {failure.text}")
