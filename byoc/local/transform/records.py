"""From an object to the bodies of requests, and back to an object."""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator


class RecordError(Exception):
    """An object that cannot be sent as it was asked for: one line."""


def payloads(
    chunks: Iterable[bytes], *, split: str, several: bool, most: int | None
) -> Iterator[bytes]:
    """The bodies.

    Args:
        chunks: The object, in parts of any length.
        split: ``None``: the object as a whole; ``Line``: its lines, each with its line end.
        several: As many whole records in a body as fit.
        most: Bytes of a body; None: no limit.

    Raises:
        RecordError: A record is longer than ``most``.
    """
    if split == "None":
        yield _whole(chunks, most)
        return
    body = bytearray()
    for line in _lines(chunks, most):
        if body and (not several or (most is not None and len(body) + len(line) > most)):
            yield bytes(body)
            body.clear()
        body += line
    if body:
        yield bytes(body)


def unzipped(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """The content of a gzip object, of one member or several.

    Raises:
        RecordError: It is none, or not complete.
    """
    reader = zlib.decompressobj(wbits=31)
    try:
        for given in chunks:
            chunk = given
            while chunk:
                content = reader.decompress(chunk)
                if content:
                    yield content
                chunk = b""
                if reader.eof and reader.unused_data:
                    chunk, reader = reader.unused_data, zlib.decompressobj(wbits=31)
    except zlib.error as error:
        raise RecordError(f"it is no gzip object: {error}") from error
    if not reader.eof:
        raise RecordError("it is no complete gzip object")


def assembled(answers: Iterable[bytes], *, lines: bool) -> Iterator[bytes]:
    """The output's parts.

    Args:
        answers: In the order of the records.
        lines: Each ends with a line end, also where the container sent none.
    """
    for answer in answers:
        yield answer
        if lines and not answer.endswith(b"\n"):
            yield b"\n"


def _whole(chunks: Iterable[bytes], most: int | None) -> bytes:
    body = bytearray()
    for chunk in chunks:
        body += chunk
        if most is not None and len(body) > most:
            raise RecordError(
                f"it is longer than MaxPayloadInMB, {most // 2**20}; split it (SplitType), "
                "or raise the limit"
            )
    return bytes(body)


def _lines(chunks: Iterable[bytes], most: int | None) -> Iterator[bytes]:
    rest = b""
    for chunk in chunks:
        *whole, rest = (rest + chunk).split(b"\n")
        for line in whole:
            yield _fitting(line + b"\n", most)
        _fitting(rest, most)
    if rest:
        yield rest


def _fitting(line: bytes, most: int | None) -> bytes:
    if most is not None and len(line) > most:
        raise RecordError(f"a record is longer than MaxPayloadInMB, {most // 2**20}")
    return line
