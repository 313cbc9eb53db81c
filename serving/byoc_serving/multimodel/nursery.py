"""The front's side of the zygote: starts it, has it fork, learns who has ended."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from byoc_serving.errors import UnavailableError
from byoc_serving.multimodel.channel import Channel
from byoc_serving.multimodel.zygote import STOP_GRACE_S
from byoc_serving.running import Running, running_bytes

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from byoc_serving.multimodel.wire import Frame

log = logging.getLogger("byoc_serving")

_PACKET_BYTES = 64 * 1024
_POLL_S = 0.02
#: Zygotes that a fork is asked of before its load fails.
_TRIES = 3
#: Pauses before a zygote that has died is started anew.
_RESPAWN_S = (0.0, 1.0, 5.0, 15.0)


class ZygoteLostError(UnavailableError):
    """The zygote ended before it did what it was asked for; its successor can be asked."""


class Nursery:
    """Keeps one zygote and hands out model processes; all on one event loop.

    Args:
        loop: that loop.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._control: socket.socket | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._ready: asyncio.Future[dict[str, Any]] = loop.create_future()
        self._forks: dict[int, asyncio.Future[int]] = {}
        self._channels: dict[int, Channel] = {}
        self._orphans: set[int] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._numbers = 0
        self._failures = 0
        self._closing = False

    async def start(self) -> dict[str, Any]:
        """Start the zygote; what it says when it is ready.

        Raises:
            UnavailableError: it cannot be: the message is the cause.
        """
        self._spawn()
        return await asyncio.shield(self._ready)

    def _spawn(self) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.settimeout(0)
        with theirs:
            # A fresh interpreter: a fork of this process would have its threads and sockets.
            self._process = subprocess.Popen(
                [sys.executable, "-m", "byoc_serving.multimodel.zygote", str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
            )
        self._control = ours
        self._loop.add_reader(ours.fileno(), self._told, ours)

    def _told(self, control: socket.socket) -> None:
        """A message of the zygote's, or its end."""
        try:
            data = control.recv(_PACKET_BYTES)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            data = b""
        if not data:
            self._lost(control)
            return
        message = json.loads(data)
        kind = message.pop("is")
        if kind == "ready":
            self._failures = 0
            self._settle_ready(message)
        elif kind == "failed":
            self._fail_ready(message["cause"])
        elif kind == "forked":
            self._forks.pop(message["id"]).set_result(message["pid"])
        elif kind == "unforked":
            error = UnavailableError(f"no process for the model: {message['cause']}")
            self._forks.pop(message["id"]).set_exception(error)
        elif kind == "exited" and message["pid"] in self._channels:
            self._channels.pop(message["pid"]).gone(message["code"])

    def _settle_ready(self, facts: dict[str, Any]) -> None:
        if not self._ready.done():
            self._ready.set_result(facts)

    def _fail_ready(self, cause: str) -> None:
        if not self._ready.done():
            self._ready.set_exception(UnavailableError(cause))
            # Nobody may be waiting; then this is no surprise either.
            self._ready.exception()

    def _lost(self, control: socket.socket) -> None:
        """The zygote is gone; its children go on, and a new one starts."""
        self._loop.remove_reader(control.fileno())
        control.close()
        self._control = None
        code = self._process.wait() if self._process else None
        if self._closing:
            return
        self._failures += 1
        self._fail_ready(f"the zygote ended with code {code}")
        for fork in self._forks.values():
            fork.set_exception(ZygoteLostError("the zygote ended; try again"))
        self._forks.clear()
        for pid in self._channels:
            if pid not in self._orphans:
                self._orphans.add(pid)
                self._watch(pid)
        log.error("the zygote ended with code %s; a new one starts, models go on", code)
        self._ready = self._loop.create_future()
        self._task(self._respawn())

    async def _respawn(self) -> None:
        await asyncio.sleep(_RESPAWN_S[min(self._failures - 1, len(_RESPAWN_S) - 1)])
        if not self._closing:
            self._spawn()

    def _watch(self, pid: int) -> None:
        """Notice the end of a process whose parent is gone."""
        if _alive(pid):
            self._loop.call_later(_POLL_S, self._watch, pid)
            return
        self._orphans.discard(pid)
        channel = self._channels.pop(pid, None)
        if channel is not None:
            channel.gone(None)

    async def fork(
        self, spec: Mapping[str, Any], on_answers: Callable[[list[Frame]], None]
    ) -> Channel:
        """A new process for a model, which begins to load.

        Raises:
            UnavailableError: there is no zygote, or the system gives no process.
        """
        for _ in range(_TRIES - 1):
            with contextlib.suppress(ZygoteLostError):
                return await self._fork(spec, on_answers)
        return await self._fork(spec, on_answers)

    async def _fork(
        self, spec: Mapping[str, Any], on_answers: Callable[[list[Frame]], None]
    ) -> Channel:
        await asyncio.shield(self._ready)
        # Without a name: gone with the last of the two processes that have it.
        memory = os.memfd_create("byoc-running")
        try:
            os.truncate(memory, running_bytes(1))
            channel = Channel(self._loop, on_answers, Running(1, memory))
            return await self._forked(spec, channel, memory)
        finally:
            os.close(memory)

    async def _forked(self, spec: Mapping[str, Any], channel: Channel, memory: int) -> Channel:
        ours, theirs = socket.socketpair()
        self._numbers += 1
        number = self._numbers
        forked = self._forks[number] = self._loop.create_future()
        with theirs:
            ours.settimeout(0)
            try:
                await self._say({"do": "fork", "id": number, **spec}, [theirs.fileno(), memory])
            except BaseException:
                ours.close()
                self._forks.pop(number, None)
                raise
        try:
            channel.pid = await asyncio.shield(forked)
        except BaseException:
            ours.close()
            raise
        self._channels[channel.pid] = channel
        await self._loop.create_unix_connection(lambda: channel, sock=ours)
        return channel

    async def _say(self, message: dict[str, Any], fds: list[int]) -> None:
        data = json.dumps(message).encode()
        while self._control is not None:
            try:
                socket.send_fds(self._control, [data], fds)
                return  # noqa: TRY300 - the loop goes on only when the socket is full
            except (BlockingIOError, InterruptedError):  # noqa: PERF203 - seldom more than once
                await asyncio.sleep(_POLL_S)
            except OSError:
                break
        raise ZygoteLostError("the zygote is gone; try again")

    async def stop(self, channel: Channel) -> None:
        """End a process and wait until it is gone, its memory with it."""
        if channel.exited.done():
            return
        if channel.pid not in self._orphans:
            with contextlib.suppress(UnavailableError):
                await self._say({"do": "stop", "pid": channel.pid}, [])
        number = signal.SIGTERM
        while not channel.exited.done():
            if channel.pid in self._orphans:
                _signal_group(channel.pid, number)
                number = signal.SIGKILL
            await asyncio.wait([channel.exited], timeout=STOP_GRACE_S)

    async def kill(self, channel: Channel) -> None:
        """End a process that no longer listens; ``channel.exited`` tells when it is gone."""
        if channel.pid in self._orphans:
            _signal_group(channel.pid, signal.SIGKILL)
        elif not channel.exited.done():
            # By its parent, who knows that the number is still its own.
            with contextlib.suppress(UnavailableError):
                await self._say({"do": "kill", "pid": channel.pid}, [])

    def _task(self, work: Any) -> None:
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def close(self, timeout_s: float) -> bool:
        """End the zygote and all models; True when they are gone. Needs no running loop."""
        self._closing = True
        if self._control is not None:
            # The zygote sees the end although the loop may still hold the descriptor.
            with contextlib.suppress(OSError):
                self._control.shutdown(socket.SHUT_RDWR)
        for pid in self._orphans:
            _signal_group(pid, signal.SIGKILL)
        if self._process is None:
            return True
        try:
            self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            return False
        return True


def _alive(pid: int) -> bool:
    """Whether a process runs; one that only waits to be reaped does not."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (OSError, IndexError):
        return False
    return state not in "ZX"


def _signal_group(pid: int, number: int) -> None:
    with contextlib.suppress(OSError):
        os.killpg(pid, number)
