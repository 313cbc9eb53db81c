"""Bodies that mean no good, on both fronts: one clear line, the same workers, the same memory."""

from __future__ import annotations

import gzip
import io
import json
import struct
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.serving.conftest import Server

HANDLER = """
    import torch
    def model_fn(model_dir):
        return torch.nn.Linear(4, 4).requires_grad_(False)
"""
JSON, LINES, CSV, NPY = "application/json", "application/jsonlines", "text/csv", "application/x-npy"
PNG, JPEG = "image/png", "image/jpeg"
ROW = np.array([[1, 2, 3, 6]], np.float32)
TEXT = "[[1,2,3,6]]"
#: Megabytes that a worker may grow by while it answers all of them once more.
GROWTH_MB = 32


def npy(array: Any) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


def header(descr: str, shape: str, data: bytes = b"") -> bytes:
    text = f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}, }}\n".encode()
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text + data


def png(width: int, height: int, data: bytes) -> bytes:
    def chunk(kind: bytes, content: bytes) -> bytes:
        body = kind + content
        return struct.pack(">I", len(content)) + body + struct.pack(">I", zlib.crc32(body))

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def jpeg(side: int) -> bytes:
    """A frame header that promises a square; nothing follows."""
    frame = struct.pack(">BHHB", 8, side, side, 1) + b"\x01\x11\x00"
    return b"\xff\xd8\xff\xc0" + struct.pack(">H", len(frame) + 2) + frame + b"\xff\xd9"


GZIP = {"Content-Encoding": "gzip"}
UTF16 = "; charset=utf-16"
#: Content-Type, body, status, words of the message, further headers.
REFUSED: dict[str, tuple[Any, ...]] = {
    "png bomb": (PNG, png(60_000, 60_000, zlib.compress(bytes(1 << 22))), 413, "64000000 pixels"),
    "png 9000 x 9000": (PNG, png(9000, 9000, zlib.compress(b"")), 413, "9000 x 9000 pixels"),
    "png cut off": (PNG, png(7000, 7000, zlib.compress(bytes(99))), 400, "truncated"),
    "jpeg bomb": (JPEG, jpeg(65_000), 413, "64000000 pixels"),
    "png in gzip": (PNG, gzip.compress(png(1, 1, b"")), 400, "compressed with gzip", GZIP),
    "json in gzip": (JSON, gzip.compress(TEXT.encode()), 400, "compressed with gzip", GZIP),
    "gzip bomb": (JSON, gzip.compress(bytes(1 << 26)), 400, "compressed with gzip", GZIP),
    "csv in gzip": (CSV, gzip.compress(b"1,2,3,6\n"), 400, "compressed with gzip", GZIP),
    "npy in gzip": (NPY, gzip.compress(npy(ROW)), 400, "compressed with gzip", GZIP),
    "npy of 10^9": (NPY, header("'<f4'", "(1000000000,)"), 400, "4000000000 bytes; 0 bytes follow"),
    "npy of 10^30": (NPY, header("'<f4'", f"({10**30},)"), 400, "sizes of 0 or more"),
    "npy negative": (NPY, header("'<f4'", "(-1, 4)", bytes(16)), 400, "sizes of 0 or more"),
    "npy cut off": (NPY, npy(ROW)[:-1], 400, "16 bytes; 15 bytes follow"),
    "npy trailing": (NPY, npy(ROW) + b"x", 400, "16 bytes; 17 bytes follow"),
    "npy head cut off": (NPY, npy(ROW)[:20], 400, "cut off within the header"),
    "npy no elements": (NPY, npy(ROW[:0]), 400, "empty, its shape is (0, 4)"),
    "npy objects": (NPY, npy(np.array([None])), 400, "never loaded"),
    "npy records": (NPY, npy(np.zeros(2, [("a", "<f4")])), 400, "expected booleans, integers or"),
    "npy complex": (NPY, npy(ROW.astype("c8")), 400, "'<c8'"),
    "npy text": (NPY, npy(np.array(["a"])), 400, "'<U1'"),
    "npy dates": (NPY, npy(np.array(["2020"], "M8[s]")), 400, "'<M8[s]'"),
    "npy integers": (NPY, npy(ROW.astype("i8")), 422, "the same dtype"),
    "npy NaN": (NPY, npy(ROW * np.float32("nan")), 406, "NaN or infinity"),
    "npy infinity": (NPY, npy(ROW * np.float32("inf")), 406, "NaN or infinity"),
    "pickle as npy": (NPY, b"\x80\x04.", 400, "does not begin with \\x93NUMPY"),
    "pickle": ("application/x-pickle", b"\x80\x04.", 415, "send one of application/json"),
    "json NaN": (JSON, b"[[NaN,1,2,3]]", 400, "no NaN and no infinity"),
    "json -infinity": (JSON, b"[[-Infinity,1,2,3]]", 400, "no NaN and no infinity"),
    "csv NaN": (CSV, b"nan,1,2,3\n", 406, "NaN or infinity"),
    "csv infinity": (CSV, b"1e400,1,2,3\n", 406, "NaN or infinity"),
    "json deep": (JSON, b"[" * 100_000, 400, "depth limit"),
    "json deep objects": (JSON, b'{"a":' * 100_000, 400, "depth limit"),
    "json 70 dimensions": (JSON, b"[" * 70 + b"1" + b"]" * 70, 400, "70 dimensions"),
    "json huge integer": (JSON, b"[[" + b"9" * 5000 + b"]]", 400, "infinity"),
    "json latin-1": (JSON, b'["\xe9"]', 400, "byte 2 is 0xe9; send the text as UTF-8"),
    "lines latin-1": (LINES, b"[1]\n\xe9\n", 400, "line 2: not UTF-8"),
    "csv latin-1": (CSV, b"1,\xe9\n", 400, "byte 2 is 0xe9; send the text as UTF-8"),
    "json utf-16": (JSON + UTF16, TEXT.encode("utf-16"), 400, "begins as UTF-16 does"),
    "csv utf-16": (CSV + UTF16, "1,2\n".encode("utf-16"), 400, "begins as UTF-16 does"),
    "csv commas": (CSV, b"," * 1_000_000, 400, "row 1, column 1: expected a number"),
    "csv quotation mark": (CSV, b'"1,2,3,6\n', 400, "a quotation mark has no other"),
    "json twice": (JSON, b'{"instances":[[1]],"instances":[[2]]}', 400, "a member twice"),
    "json both": (JSON, b'{"instances":[[1]],"inputs":[[1]]}', 400, "one of"),
    "json string": (JSON, b'"a"', 400, "the string 'a'"),
    "json narrow": (JSON, b"[[1]]", 422, "the model refuses"),
    "no type": ("json", TEXT.encode(), 415, "send one of application/json"),
    "long type": ("a/" + "b" * 5000, b"x", 415, "send one of application/json"),
    **{
        f"empty {kind}": (kind, b"", 400, "empty (0 bytes)")
        for kind in (JSON, LINES, CSV, NPY, PNG)
    },
}
#: Content-Type, body, further headers.
TAKEN: dict[str, tuple[Any, ...]] = {
    "npy in Fortran's order": (NPY, npy(np.asfortranarray(np.vstack([ROW, ROW])))),
    "npy big-endian": (NPY, npy(ROW.astype(">f4"))),
    "json 20 digits": (JSON, b"[[18446744073709551617,1,2,3]]"),
    "identity": (JSON, TEXT.encode(), {"Content-Encoding": "identity"}),
    "parameters that are none": (JSON + '; =;;"', TEXT.encode()),
    "weight after a control character": (JSON, TEXT.encode(), {"Accept": "a/b;q=\x1d0, */*"}),
}


@pytest.fixture(scope="module")
def server(front: str, module_server: Callable[..., Server]) -> Server:
    return module_server(HANDLER, BYOC_FRONT=front)


def send(server: Server, kind: str, body: bytes, headers: dict[str, str] | None = None) -> Any:
    return server.invoke(body, kind, headers=headers)


@pytest.mark.contract(64)
@pytest.mark.parametrize("name", REFUSED)
def test_a_hostile_body_gets_one_clear_line(server: Server, name: str):
    kind, body, status, words, *headers = REFUSED[name]
    answer = send(server, kind, body, *headers)
    assert answer.status == status, answer.body
    assert words in answer.error
    assert "\n" not in answer.error
    assert len(answer.body) < 2048


@pytest.mark.parametrize("name", TAKEN)
def test_an_unusual_body_is_answered_or_refused_as_the_clients(server: Server, name: str):
    answer = send(server, *TAKEN[name])
    # A control character in a header may be refused before it is read.
    allowed = {200, 400} if "control" in name else {200}
    assert answer.status in allowed, answer.body
    if answer.status == 200:
        assert np.array(json.loads(answer.body)).shape[1] == 4


def test_hostile_bodies_leave_workers_and_memory_as_they_are(server: Server):
    def all_of_them() -> None:
        for kind, body, status, _, *headers in REFUSED.values():
            assert send(server, kind, body, *headers).status == status

    # What the first of a kind loads, such as Pillow, stays.
    all_of_them()
    before = {pid: resident_mb(pid) for pid in server.workers()}
    for _ in range(3):
        all_of_them()
    after = {pid: resident_mb(pid) for pid in server.workers()}
    assert after.keys() == before.keys()
    assert all(after[pid] - before[pid] < GROWTH_MB for pid in after)
    assert "Traceback" not in server.log


def resident_mb(pid: int) -> int:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS")) // 1024
