"""What is fuzzed: a function of bytes a target, which raises when a promise is broken.

No more memory and time than the fuzzer allows, no error but the request's own.
"""

from __future__ import annotations

import io
import struct
import zlib
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from gunicorn.asgi.parser import CallbackRequest, PythonProtocol

from byoc_serving import codecs
from byoc_serving.errors import NotAcceptableError, RequestError
from byoc_serving.negotiation import choose, media_type
from byoc_serving.straight import BEGIN, parse

if TYPE_CHECKING:
    from collections.abc import Callable

#: The longest message that the platform hands on to a client.
LONGEST_MESSAGE = 2048


def npy(array: Any) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


def png(width: int, height: int, data: bytes, *extra: tuple[bytes, bytes]) -> bytes:
    def chunk(kind: bytes, content: bytes) -> bytes:
        body = kind + content
        return struct.pack(">I", len(content)) + body + struct.pack(">I", zlib.crc32(body))

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    middle = b"".join(chunk(kind, content) for kind, content in extra)
    return b"\x89PNG\r\n\x1a\n" + head + middle + chunk(b"IDAT", data) + chunk(b"IEND", b"")


SEEDS = {
    "application/json": [
        b"[[1,2],[3,4]]",
        b'{"instances": [[1.5, -2e3]], "x": "y"}',
        b'{"inputs": [true, 1e400]}',
        b"[NaN, Infinity]",
        b"\xff\xfe[\x001\x00]\x00",
        b'{"a": 1, "a": [2]}',
        b'["\\ud800"]',
        b"[" + b"9" * 5000 + b"]",
        b"[" * 33 + b"9" + b"]" * 33,
        b"[" * 64 + b"9" + b"]" * 64,
    ],
    "application/jsonlines": [
        b"[1,2]\n\n[3,4]\r\n",
        b'{"features": [1]}\n{"data": [2]}',
        b"[" * 64 + b"9" + b"]" * 64,
    ],
    "text/csv": [b"1,2\n3,4\n", b'"1","2"\n', b"nan,inf\n", b"\xef\xbb\xbf1\n", b'"\n",1'],
    "application/x-npy": [
        npy(np.zeros((2, 3), np.float32)),
        npy(np.asfortranarray(np.ones((2, 3), ">i4"))),
        npy(np.zeros(2, [("a", "<f4"), ("b", "<i8")])),
    ],
    "image/png": [png(2, 2, zlib.compress(b"\0ab\0cd")), b"GIF89a\x01\0\x01\0", b"RIFF\0\0WEBP"],
}
HEADS = [
    BEGIN + b"Host: a\r\nContent-Length: 4\r\n\r\nabcd",
    BEGIN
    + b"host:a\r\ncontent-type: text/csv\r\nAccept: */*;q=0.1\r\nContent-Length: 04\r\n\r\n1,2\n",
    BEGIN + b"Host: a\r\nHost:\r\nContent-Length: 0\r\n\r\n",
    BEGIN + b"Host: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    BEGIN + b"Host: a\r\nConnection: keep-alive\r\nX-1: \xff\t\r\nContent-Length: 0\r\n\r\n",
]


def outcome(body: bytes, content_type: str) -> np.ndarray[Any, Any] | None:
    """The array, or None for an error whose status is the client's."""
    refusal: RequestError | None = None
    try:
        array = codecs.decode(body, content_type)
    except RequestError as error:
        refusal = error
    if refusal is not None:
        assert 400 <= refusal.status < 500
        message = str(refusal)
        assert message.strip()
        assert len(message) < LONGEST_MESSAGE
        assert "\n" not in message
        return None
    assert isinstance(array, np.ndarray)
    assert array.dtype.kind in "fiub"
    assert array.size > 0
    return array


def body(content_type: str, data: bytes) -> None:
    """A body: an array whose answer can be written, or a refusal of one clear line."""
    array = outcome(data, content_type)
    if array is None:
        return
    for kind in codecs.OUTPUT_TYPES:
        try:
            encoded = codecs.encode(array, kind)
        except NotAcceptableError:
            continue
        if kind == "application/x-npy":
            again = codecs.decode(encoded, kind)
            assert again.shape == array.shape
            assert np.array_equal(
                again, array.astype(again.dtype), equal_nan=again.dtype.kind == "f"
            )


def understood(data: bytes) -> tuple[Any, ...]:
    """What gunicorn's parser makes of a whole request."""
    received = bytearray()
    parser = PythonProtocol(on_body=received.extend)
    parser.feed(data)
    assert parser.is_complete
    assert parser.remaining() == b""
    request = CallbackRequest.from_parser(parser)
    return (request.method, request.path, request.version, request.headers_bytes, bytes(received))


def head(data: bytes) -> None:
    """Whatever the short way takes, gunicorn's parser would have read in the same way."""
    parsed = parse(data)
    if parsed is not None:
        assert understood(data) == ("POST", "/invocations", (1, 1), *parsed)


def accept(data: bytes) -> None:
    """Any Accept header names a type of ours or is refused."""
    text = data.decode("latin-1")
    media_type(text)
    refusal = ""
    chosen = "application/json"
    try:
        chosen = choose(text, codecs.OUTPUT_TYPES, "application/json")
    except NotAcceptableError as error:
        refusal = str(error)
    assert chosen in codecs.OUTPUT_TYPES
    assert len(refusal) < LONGEST_MESSAGE


#: Name, function, seeds.
TARGETS: dict[str, tuple[Callable[[bytes], None], list[bytes]]] = {
    "json": (partial(body, "application/json"), SEEDS["application/json"]),
    "jsonlines": (partial(body, "application/jsonlines"), SEEDS["application/jsonlines"]),
    "csv": (partial(body, "text/csv"), SEEDS["text/csv"]),
    "npy": (partial(body, "application/x-npy"), SEEDS["application/x-npy"]),
    "image": (partial(body, "image/png"), SEEDS["image/png"]),
    "head": (head, HEADS),
    "accept": (
        accept,
        [b"text/csv;q=0.5, application/json", b"*/*", b"a/b;q=x,,;", b"a/b;q=\x1d0"],
    ),
}
