"""Frames between the front and a model's process: a fixed head, JSON meta data, a raw body."""

from __future__ import annotations

import enum
import struct
from typing import NamedTuple

_HEAD = struct.Struct("<BxxxIQQ")  # kind, bytes of meta data, number, bytes of the body


class Kind(enum.IntEnum):
    """What a frame is about."""

    # To the model: {"headers": [[name, value], …], "id", "deadline", "session", "file"} and
    # the body, unless that is in the file.
    INVOKE = 1
    # From it: {"status", "type", "headers", "batch", "gpu"} and the response's body.
    ANSWER = 2
    PHASE = 3  # from it: {"phase"}, while it loads
    LOADED = 4  # from it: {"handler", "device", "private_bytes", "pss_bytes"}
    FAILED = 5  # from it: {"cause", "memory"}; it ends
    STREAM = 6  # from it: {"batch", "gpu"}; the answer comes in parts: OPEN or ANSWER, CHUNK …, END
    OPEN = 7  # from it: what ANSWER has, without a body
    CHUNK = 8  # from it: the body's next bytes
    END = 9  # from it: {"broken"}
    CANCEL = 10  # to it: nobody waits for this answer, or reads this stream, any more
    PAUSE = 11  # to it: keep what this stream makes until RESUME
    RESUME = 12  # to it


class Frame(NamedTuple):
    """One message; ``number`` ties an answer to its request."""

    kind: int
    number: int
    meta: bytes
    body: bytes


def head(kind: Kind, number: int, meta: bytes, body_bytes: int = 0) -> bytes:
    """All of a frame but its body, which is not copied."""
    return _HEAD.pack(kind, len(meta), number, body_bytes) + meta


class Parser:
    """Cuts a stream into frames."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._wanted = _HEAD.size

    def feed(self, data: bytes) -> list[Frame]:
        """The frames that are complete with these bytes."""
        buffer = self._buffer
        buffer += data
        frames: list[Frame] = []
        while len(buffer) >= self._wanted:
            kind, meta_bytes, number, body_bytes = _HEAD.unpack_from(buffer)
            body_at = _HEAD.size + meta_bytes
            end = body_at + body_bytes
            if len(buffer) < end:
                self._wanted = end
                break
            with memoryview(buffer) as view:
                meta, body = bytes(view[_HEAD.size : body_at]), bytes(view[body_at:end])
            frames.append(Frame(kind, number, meta, body))
            del buffer[:end]
            self._wanted = _HEAD.size
        return frames
