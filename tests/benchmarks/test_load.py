"""The load generator counts what really happened."""

from __future__ import annotations

import asyncio
import math
from typing import TYPE_CHECKING

import pytest

from benchmarks.load import Load, Tally, Target, quantile, render

if TYPE_CHECKING:
    from collections.abc import Callable

REQUEST = render("/invocations", b"ask", {"Content-Type": "text/plain"})


def answer(status: int, body: bytes) -> bytes:
    return b"HTTP/1.1 %d X\r\nContent-Length: %d\r\n\r\n%s" % (status, len(body), body)


def run(reply: Callable[[int], bytes | None], play: Callable[[Load], object]) -> Tally:
    """Play a load against a server whose n-th reply is given; None cuts the connection."""

    async def main() -> Tally:
        count = 0

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            nonlocal count
            try:
                while True:
                    await reader.readexactly(len(REQUEST))
                    count += 1
                    data = reply(count)
                    if data is None:
                        break
                    # In two parts, as a network may deliver it.
                    writer.write(data[:20])
                    await writer.drain()
                    writer.write(data[20:])
            except (asyncio.IncompleteReadError, ConnectionError):
                pass
            finally:
                writer.close()

        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        target = Target(port, [REQUEST], lambda _, body: body == b"good")
        try:
            tally = await play(Load(target, 4))  # type: ignore[misc] # each play is a coroutine
        finally:
            server.close()
        assert isinstance(tally, Tally)
        return tally

    return asyncio.run(main())


def test_an_open_loop_sends_on_schedule_and_counts_good_answers() -> None:
    tally = run(lambda _: answer(200, b"good"), lambda load: load.open_loop(100, 0.3))
    assert list(tally.outcome) == [200] * 30
    assert sorted(tally.due) == pytest.approx([number / 100 for number in range(30)])
    assert tally.between(0, 0.3)["goodput_per_s"] == 100


def test_wrong_refused_and_broken_answers_are_told_apart() -> None:
    replies = {
        1: answer(200, b"good"),
        2: answer(200, b"other"),
        3: answer(503, b"full"),
        4: None,
    }
    tally = run(lambda n: replies[n], lambda load: load.open_loop(100, 0.04))
    assert tally.between(0, math.inf)["outcomes"] == {"200": 1, "wrong": 1, "503": 1, "broken": 1}
    assert tally.failed() == 3
    assert tally.failed(503) == 2


def test_a_server_that_is_not_there_refuses() -> None:
    async def main() -> Tally:
        server = await asyncio.start_server(lambda _r, _w: None, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        server.close()
        await server.wait_closed()
        return await Load(Target(port, [REQUEST], lambda *_: True), 4).open_loop(100, 0.02)

    assert asyncio.run(main()).between(0, 1)["outcomes"] == {"refused": 2}


def test_a_closed_loop_asks_again_after_a_broken_connection() -> None:
    tally = run(
        lambda n: None if n == 3 else answer(200, b"good"),
        lambda load: load.closed_loop(2, 0.3),
    )
    assert tally.failed() == 1
    assert len(tally.outcome) > 10


def test_latency_counts_from_when_a_request_was_due() -> None:
    def play(load: Load) -> object:
        # Far more than four connections are due at once: the later ones wait here.
        return load.open_loop(2000, 0.1)

    tally = run(lambda _: answer(200, b"good"), play)
    assert len(tally.outcome) == 200
    assert min(tally.latency_s) > 0


def test_quantiles_are_values_that_occurred() -> None:
    assert quantile([1, 2, 3, 4], 0.5) == 2
    assert quantile([1, 2, 3, 4], 0.99) == 4
    assert math.isnan(quantile([], 0.5))
