"""Messages between a front and a model process: many in one frame, numbers and bytes only.

A frame is four bytes of length (little-endian) and a marshalled list of tuples. marshal is the
quickest codec for such tuples that the interpreter has and executes nothing; both ends are forks of
one master, so they always agree on its version, and no client's bytes are ever unmarshalled: a
body travels as a bytes object inside, or in the arena.

::

    front → model process
        (HELLO, seat)
        (RUN, id, alone, array, offset, size, payload, envelope)
        (FREE, offset, size)              an answer's block has been read
        (CANCEL, id)                      nobody waits for this answer, or reads this stream
        (PAUSE, id) (RESUME, id)          of a stream whose client is slow
        (TALK, id, envelope)              a bidirectional stream begins; its answer is a stream
        (SAY, id, message) (HUSH, id)     what its client says, and that it has closed
    model process → front
        (HELLO, incarnation, decodes, plain, origin, device, paths)
        (DONE, id, status, content_type, headers, array, offset, size, payload)
        (STREAM, id)                      in place of DONE; then, when they are there:
        (HEAD, id, status, content_type, headers, body, whole)
        (CHUNKS, id, chunks)
        (END, id, broken)
        (TAKEN, id, messages, size)       the handler has taken so much of what was said

``decodes``: no function of the user's wants bodies, so the front decodes them; ``plain``: none sees
requests at all, so ``headers`` may be left out; ``paths``: where WebSockets are taken.
``envelope`` is ``carriage.envelope``'s.
``array`` is ``(dtype, shape)`` when the bytes are an array's, else None. ``payload`` holds the
bytes themselves when ``offset`` is -1.
"""

from __future__ import annotations

import marshal
import struct
from typing import Any

HELLO, RUN, FREE, CANCEL, PAUSE, RESUME, DONE, STREAM, HEAD, CHUNKS, END = range(11)
TALK, SAY, HUSH, TAKEN = range(11, 15)
#: Answers up to this size travel inside the message.
INLINE_BYTES = 16 * 1024

Message = tuple[Any, ...]
_LENGTH = struct.Struct("<I")
#: marshal's format without references between objects: quicker to write, as nothing is shared.
_VERSION = 2


def frame(messages: list[Message]) -> bytes:
    """Messages as one frame."""
    data = marshal.dumps(messages, _VERSION)
    return _LENGTH.pack(len(data)) + data


class Reader:
    """Turns what a socket gives into messages."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> list[Message]:
        """The messages that are complete with these bytes."""
        buffer = self._buffer
        buffer += data
        messages: list[Message] = []
        start, end = 0, len(buffer)
        with memoryview(buffer) as view:
            while end - start >= _LENGTH.size:
                (length,) = _LENGTH.unpack_from(view, start)
                after = start + _LENGTH.size + length
                if after > end:
                    break
                messages += marshal.loads(view[start + _LENGTH.size : after])  # noqa: S302 - ours
                start = after
        if start:
            del buffer[:start]
        return messages
