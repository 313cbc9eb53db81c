"""Frames as botocore, whose reader we did not write, reads them."""

from __future__ import annotations

from typing import Any

from botocore.eventstream import EventStreamBuffer

from byoc.local import event_stream


def test_botocore_reads_our_frames():
    buffer: Any = EventStreamBuffer()
    buffer.add_data(event_stream.part(b"\x00\xffone") + event_stream.part(b""))
    buffer.add_data(event_stream.failure("ModelStreamError", Message="m", ErrorCode="c"))
    frames: list[Any] = [*buffer]
    first, second, third = frames
    assert first.payload == b"\x00\xffone"
    assert first.headers == {
        ":message-type": "event",
        ":event-type": "PayloadPart",
        ":content-type": "application/octet-stream",
    }
    assert second.payload == b""
    assert third.headers[":exception-type"] == "ModelStreamError"
    assert third.payload == b'{"Message": "m", "ErrorCode": "c"}'
