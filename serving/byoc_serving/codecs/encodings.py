"""What bytes are that are not UTF-8, so far as their beginning tells."""

from __future__ import annotations


def not_utf8(body: bytes, place: int) -> str:
    """What is wrong with a text, and what to do.

    Args:
        body: all of it.
        place: its first byte that is not UTF-8.
    """
    known = compressed(body)
    if known:
        return known
    if body[:2] in {b"\xff\xfe", b"\xfe\xff"}:
        return "not UTF-8: the body begins as UTF-16 does; send it as UTF-8"
    return f"not UTF-8: byte {place} is {body[place]:#04x}; send the text as UTF-8"


def compressed(body: bytes) -> str | None:
    """The complaint about a body in gzip's format, which is never unpacked here."""
    if body[:2] == b"\x1f\x8b":
        return "the body is compressed with gzip; send it uncompressed, without Content-Encoding"
    return None
