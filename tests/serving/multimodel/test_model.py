"""One model's life, with a nursery that makes no processes."""

from __future__ import annotations

import asyncio
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from byoc_serving.errors import UnavailableError
from byoc_serving.multimodel.channel import Channel
from byoc_serving.multimodel.location import LoadRequest
from byoc_serving.multimodel.model import Model
from byoc_serving.multimodel.state import State
from byoc_serving.multimodel.wire import Frame, Kind
from byoc_serving.running import Running


class Nursery:
    """Hands out channels; their processes end when they are told to."""

    def __init__(self) -> None:
        self.channels: list[Channel] = []
        self.forked = asyncio.Event()

    async def fork(self, spec: Any, on_answers: Any) -> Channel:
        _ = spec
        channel = Channel(asyncio.get_running_loop(), on_answers, Running(1))
        self.channels.append(channel)
        self.forked.set()
        return channel

    async def stop(self, channel: Channel) -> None:
        channel.gone(-15)


@pytest.mark.contract(82)
def test_unload_that_comes_while_the_load_succeeds_is_not_lost():
    settings: Any = SimpleNamespace(
        queue_requests=4, queue_bytes=1024, stream_timeout_s=60.0, load_timeout_s=60.0,
        unload_grace_s=60.0, forward_timeout_s=60.0,
    )  # fmt: skip

    async def story() -> None:
        nursery: Any = Nursery()
        request = LoadRequest("a", "/opt/ml/models/a/model")
        model = Model(request, Path("a"), {}, nursery, settings, lambda _: None)
        load = asyncio.ensure_future(model.load())
        await nursery.forked.wait()
        # The process says that it has loaded; before the load has heard of it, the unload comes.
        nursery.channels[0].loaded.set_result(Frame(Kind.LOADED, 0, b"{}", b""))
        unload = asyncio.ensure_future(model.unload())
        with pytest.raises(UnavailableError, match="unloaded while it loaded"):
            await asyncio.wait_for(load, 60)
        await asyncio.wait_for(unload, 60)
        assert model.state is State.UNLOADING
        assert len(nursery.channels) == 1

    asyncio.run(story())
