"""Whatever the bytes are: an array or an error of the request, and no more memory than they are.

``FUZZ_EXAMPLES=100000`` runs the same for longer; ``tests/fuzz`` looks for ways through the code.
"""

from __future__ import annotations

import gzip
import json
import os
import struct
import tracemalloc
import zlib

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from byoc_serving import codecs
from byoc_serving.batcher import Admission, FullError
from byoc_serving.codecs import json_text
from byoc_serving.decoding import decode, worth_doing_here
from byoc_serving.errors import NotAcceptableError, RequestError
from byoc_serving.exchange import Invocation
from byoc_serving.negotiation import choose, media_type, preferred
from tests.fuzz.targets import SEEDS, npy, outcome, png

EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "60"))
fuzz = settings(
    max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck), database=None
)


CASES = [(kind, seed) for kind, seeds in SEEDS.items() for seed in seeds]


@fuzz
@given(st.data())
def test_mutated_bodies_are_arrays_or_errors_of_the_request(data):
    kind, seed = data.draw(st.sampled_from(CASES))
    body = bytearray(seed)
    for _ in range(data.draw(st.integers(0, 6))):
        place = data.draw(st.integers(0, len(body)))
        action = data.draw(st.sampled_from(["insert", "delete", "replace", "repeat"]))
        piece = data.draw(st.binary(max_size=4) | st.sampled_from([b"[", b"]", b",", b'"', b"\0"]))
        if action == "insert":
            body[place:place] = piece
        elif action == "delete":
            del body[place : place + len(piece)]
        elif action == "replace":
            body[place : place + len(piece)] = piece
        else:
            body[place:place] = body[: data.draw(st.integers(0, 40))]
    outcome(bytes(body), kind)


header = st.text(st.characters(max_codepoint=255), max_size=60) | st.from_regex(
    r"[a-z*]{1,8}/[a-z*+-]{1,8}( ?; ?q=[0-9.]{1,4})?(,[a-z*/;q=.0-9 ]{0,20}){0,3}", fullmatch=True
)


@fuzz
@given(header)
def test_any_accept_gets_a_type_or_406(text: str):
    assert media_type(text) == media_type(text).lower()
    assert preferred(text, "application/json")
    chosen, said = "application/json", ""
    try:
        chosen = choose(text, codecs.OUTPUT_TYPES, "application/json")
    except NotAcceptableError as error:
        said = str(error)
    assert chosen in codecs.OUTPUT_TYPES
    assert len(said) < 1000


def test_long_accept_headers_are_neither_remembered_nor_read_to_the_end():
    tracemalloc.start()
    try:
        for number in range(40):
            accept = f"a/{number}," * 20_000 + "application/json"
            with pytest.raises(NotAcceptableError):
                choose(accept, codecs.OUTPUT_TYPES, "text/csv")
            assert preferred(accept, "text/csv")
            assert media_type(accept)
        held, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert held < 1_000_000
    assert peak < 5_000_000


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        ("application/json", b'{"instances": ' + b"[" * 300 + b"1" + b"]" * 300 + b', "x": 1}'),
        ("application/jsonlines", b'{"data": ' + b"[" * 300 + b"1" + b"]" * 300 + b"}"),
        ("application/json", b"[" * 100_000),
        ("application/json", b'{"a":' * 100_000),
        ("application/json", b"[-" + b"9" * 400 + b"]"),
        ("application/json", b"[1e400, -1e400]"),
        ("application/json", b'["\xed\xa0\x80"]'),
        ("application/x-npy", npy(np.zeros(1))[:10] + b"(" * 118),
        (
            "application/x-npy",
            b"\x93NUMPY\x02\0"
            + struct.pack("<I", 8000)
            + b"{'descr': '<f4', 'fortran_order': False, 'shape': (0x"
            + (b"f" * 7000 + b",), }").ljust(7947),
        ),
        (
            "image/png",
            png(1, 1, zlib.compress(b"\0a"), (b"zTXt", b"a\0\0" + zlib.compress(bytes(1 << 26)))),
        ),
        (
            "image/png",
            png(1, 1, zlib.compress(b"\0a"), (b"iCCP", b"a\0\0" + zlib.compress(bytes(1 << 26)))),
        ),
        ("image/png", gzip.compress(b"x")),
        ("application/zip", b"PK\x03\x04"),
        ("image/gif", b"GIF89a"),
        ("image/webp", b"RIFF"),
        ("application/x-npz", b"PK\x03\x04"),
        ("application/x-pickle", b"\x80\x04."),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_traps_are_refused_or_harmless_and_take_no_memory(kind: str, body: bytes):
    tracemalloc.start()
    try:
        outcome(body, kind)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 20 * len(body) + 8_000_000


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ([0] * 300_000 + ["x"], "'x' at [300000]"),
        ([0] * 300_000 + [None], "null at [300000]"),
        ([None] * 300_000, "null at [0]"),
        ([[0, 1], [2, {"a": 1}]], "an object at [1][1]"),
        ([[], [[]], [0, [None]]], "null at [2][1][0]"),
    ],
)
def test_complaints_about_long_arrays_take_little_memory(value, words):
    body = json.dumps(value).encode()
    tracemalloc.start()
    try:
        with pytest.raises(RequestError) as caught:
            json_text.decode(body)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert words in str(caught.value)
    assert peak < 40_000_000


def test_npy_headers_that_are_made_up_do_not_shut_out_those_that_come_again():
    for size in range(1, 200):
        outcome(npy(np.zeros((1, size), np.float32)), "application/x-npy")
    from byoc_serving.codecs import npy as codec

    body = npy(np.zeros((7, 7), np.float32))
    outcome(body, "application/x-npy")
    assert body[: len(body) - 7 * 7 * 4] in codec._seen
    assert len(codec._seen) <= codec._SEEN_LIMIT


def test_picture_is_never_decoded_where_pings_are_answered():
    small = Invocation([], content_type="image/png; x=y", body=b"x")
    assert not worth_doing_here(small)
    assert worth_doing_here(Invocation([], content_type="application/json", body=b"x"))
    assert not worth_doing_here(Invocation([], body=b"x" * 70_000))


def test_picture_of_many_pixels_takes_five_times_its_pixels_as_float32_and_no_more():
    side = 3000
    body = png(side, side, zlib.compress((b"\0" + bytes(side)) * side))
    invocation = Invocation([], content_type="image/png", body=body)
    tracemalloc.start()
    try:
        decode(invocation)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert invocation.data.shape == (1, 1, side, side)
    assert peak < 7 * side * side


def test_promised_bytes_are_not_counted_before_they_come():
    admission = Admission(10, 100)
    admission.enter(90, 10)
    admission.enter(80, 10)
    assert admission.bytes == 20
    with pytest.raises(FullError):
        admission.enter(85, 10)
    admission.grow(75)
    with pytest.raises(FullError):
        admission.grow(10)
    admission.leave(85)
    admission.leave(10)
    assert (admission.items, admission.bytes) == (0, 0)
