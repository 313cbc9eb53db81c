"""Frames of ``application/vnd.amazon.eventstream``: headers and payload between checksums."""

from __future__ import annotations

import binascii
import json
import struct

CONTENT_TYPE = "application/vnd.amazon.eventstream"
#: Of a header's value: text with a length of two bytes.
_STRING = 7


def part(content: bytes) -> bytes:
    """A PayloadPart."""
    return frame(
        {
            ":message-type": "event",
            ":event-type": "PayloadPart",
            ":content-type": "application/octet-stream",
        },
        content,
    )


def failure(kind: str, **members: str) -> bytes:
    """What ends a stream early: ``ModelStreamError`` or ``InternalStreamFailure``."""
    return frame(
        {
            ":message-type": "exception",
            ":exception-type": kind,
            ":content-type": "application/json",
        },
        json.dumps(members).encode(),
    )


def frame(headers: dict[str, str], payload: bytes) -> bytes:
    """One frame.

    Four bytes each: its length, the length of its headers, a CRC32 of these two; then headers and
    payload, and a CRC32 of everything before.
    """
    head = bytearray()
    for name, value in headers.items():
        encoded = value.encode()
        head += struct.pack(f"!B{len(name)}sBH", len(name), name.encode(), _STRING, len(encoded))
        head += encoded
    prelude = struct.pack("!II", 16 + len(head) + len(payload), len(head))
    whole = prelude + struct.pack("!I", binascii.crc32(prelude)) + bytes(head) + payload
    return whole + struct.pack("!I", binascii.crc32(whole))
