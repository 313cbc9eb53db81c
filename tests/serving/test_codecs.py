"""Codecs: what goes in comes out; what is broken is refused; nothing hostile is believed."""

from __future__ import annotations

import io
import json
import math

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from byoc_serving import decode, encode
from byoc_serving.codecs import INPUT_TYPES
from byoc_serving.errors import BadBodyError, NotAcceptableError, RequestError

FLOATS = hnp.arrays(
    np.float32,
    hnp.array_shapes(min_dims=1, max_dims=4, max_side=5),
    elements=st.floats(width=32, allow_nan=False, allow_infinity=False),
)


@settings(deadline=None)
@given(FLOATS)
def test_json_returns_the_same_float32(array):
    assert np.array_equal(decode(encode(array), "application/json"), array)


@settings(deadline=None)
@given(FLOATS)
def test_npy_returns_the_same_array_and_numpy_reads_ours(array):
    body = encode(array, "application/x-npy")
    assert np.array_equal(decode(body, "application/x-npy"), array)
    assert np.array_equal(np.load(io.BytesIO(body), allow_pickle=False), array)


@settings(deadline=None)
@given(
    hnp.arrays(
        st.sampled_from(["<f2", ">f4", "<f4", ">i8", "<i4", "|u1", "|b1", ">u2"]),
        hnp.array_shapes(max_dims=4, max_side=5),
    ),
    st.booleans(),
)
def test_npy_of_numpy_is_read_in_any_byte_order_and_layout(array, fortran):
    buffer = io.BytesIO()
    np.save(buffer, np.asfortranarray(array) if fortran else array)
    decoded = decode(buffer.getvalue(), "application/x-npy")
    assert np.array_equal(decoded, array, equal_nan=array.dtype.kind == "f")
    assert decoded.dtype.isnative
    assert decoded.flags.c_contiguous
    assert decoded.flags.writeable


@settings(deadline=None)
@given(
    hnp.arrays(
        np.float32, st.tuples(st.integers(1, 5), st.integers(1, 5)), elements=st.floats(width=32)
    )
)
def test_csv_returns_the_same_rows(array):
    assert np.array_equal(decode(encode(array, "text/csv"), "text/csv"), array, equal_nan=True)


@settings(deadline=None)
@given(FLOATS)
def test_json_lines_return_the_same_rows(array):
    rows = array.reshape(len(array), -1)
    body = encode(rows, "application/jsonlines")
    assert np.array_equal(decode(body, "application/jsonlines"), rows)


@settings(deadline=None, max_examples=400, suppress_health_check=[HealthCheck.too_slow])
@given(st.sampled_from(INPUT_TYPES), st.binary(max_size=200))
def test_random_bytes_are_an_array_or_a_request_error(content_type, body):
    status = 400
    try:
        assert decode(body, content_type).size > 0
    except RequestError as error:
        status = error.status
    assert 400 <= status < 500


@settings(deadline=None, max_examples=200)
@given(st.data())
def test_damaged_npy_is_an_array_or_a_request_error(data):
    buffer = io.BytesIO()
    np.save(buffer, np.arange(6, dtype=np.float32).reshape(2, 3))
    body = bytearray(buffer.getvalue())
    for _ in range(data.draw(st.integers(1, 4))):
        body[data.draw(st.integers(0, len(body) - 1))] = data.draw(st.integers(0, 255))
    body = body[: data.draw(st.integers(0, len(body)))]
    status = 400
    try:
        decode(bytes(body), "application/x-npy")
    except RequestError as error:
        status = error.status
    assert status == 400


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner, max_size=3)
    ),
)


@settings(deadline=None)
@given(JSON)
def test_any_json_is_numbers_or_a_bad_body(value):
    try:
        array = decode(json.dumps(value).encode(), "application/json")
    except BadBodyError:
        return
    assert np.array_equal(array, np.array(value, dtype=np.float32))


def test_string_among_many_numbers_takes_no_memory_of_its_length_times_the_numbers():
    body = b"[" + b"1," * 100_000 + b'"' + b"x" * 1_000_000 + b'"]'
    with pytest.raises(BadBodyError, match="100000"):
        decode(body, "application/json")


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b'{"instances": [[1]], "inputs": [[1]]}', "members"),
        (b'{"instances": ["1"]}', "'1'"),
        (b'{"instances": {"a": 1}}', "object"),
        (b'{"instances": [{"a": 1}]}', "object at [0]"),
        (b"[" * 70 + b"1" + b"]" * 70, "70 dimensions"),
        (b"[[1,2],[3]]", "(2,)"),
    ],
)
def test_json_of_another_form_is_explained(body, words):
    with pytest.raises(BadBodyError) as caught:
        decode(body, "application/json")
    assert words in str(caught.value)


def test_object_may_have_further_members_beside_the_array():
    body = b'{"signature_name": "x", "instances": [[1, 2]]}'
    assert decode(body, "application/json").tolist() == [[1, 2]]


def test_str_bodies_are_decoded_like_bytes():
    assert decode("1,2\n", "text/csv").tolist() == [[1, 2]]


def test_float32_is_written_in_its_shortest_form():
    assert encode(np.array([0.1, 1e-8], dtype=np.float32)) == b"[0.1,1e-8]"
    assert encode(np.array([0.1], dtype=np.float32), "text/csv") == b"0.1\n"


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize(
    "form", [lambda x: x, lambda x: [x], lambda x: {"a": [np.float32(x)]}, np.array]
)
def test_what_json_cannot_carry_is_never_null(value, form):
    with pytest.raises(NotAcceptableError, match="x-npy"):
        encode(form(value))


def test_containers_of_tensors_and_scalars_are_encoded():
    import torch

    value = {"a": torch.ones(2, dtype=torch.bfloat16), "b": (np.int64(3), "x", None, True)}
    assert json.loads(encode(value)) == {"a": [1.0, 1.0], "b": [3, "x", None, True]}
    assert encode(torch.tensor(2.5)) == b"2.5"
    with pytest.raises(NotAcceptableError):
        encode(value, "application/x-npy")
    with pytest.raises(NotAcceptableError):
        encode({"a": 1}, "text/csv")
    with pytest.raises(TypeError, match="output_fn"):
        encode(object())


def test_views_and_foreign_byte_orders_are_encoded():
    array = np.arange(6, dtype=">f4").reshape(2, 3)
    assert json.loads(encode(array.T)) == [[0, 3], [1, 4], [2, 5]]
    assert np.array_equal(
        decode(encode(array.T, "application/x-npy"), "application/x-npy"), array.T
    )


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "P", "1", "CMYK"])
@pytest.mark.parametrize("kind", ["png", "jpeg"])
def test_images_of_any_mode_are_planes_of_uint8(mode, kind):
    from PIL import Image

    if (mode, kind) in {("RGBA", "jpeg"), ("P", "jpeg"), ("CMYK", "png")}:
        pytest.skip("this format has no such mode")
    buffer = io.BytesIO()
    Image.new(mode, (3, 2)).save(buffer, kind.upper())
    array = decode(buffer.getvalue(), f"image/{kind}")
    assert array.shape == ((2, 3) if mode in {"L", "1"} else (2, 3, 3))
    assert array.dtype == np.uint8


def test_image_with_too_many_pixels_is_refused_before_it_is_unpacked():
    import struct
    import zlib

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    header = struct.pack(">IIBBBBB", 50_000, 50_000, 8, 2, 0, 0, 0)
    body = (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(b"0" * 9))
        + chunk(b"IEND", b"")
    )
    with pytest.raises(RequestError) as caught:
        decode(body, "image/png")
    assert caught.value.status == 413


def test_truncated_image_is_a_bad_body():
    from PIL import Image

    buffer = io.BytesIO()
    Image.effect_noise((64, 64), 50).save(buffer, "JPEG")
    with pytest.raises(BadBodyError, match="broken image"):
        decode(buffer.getvalue()[:-200], "image/jpeg")
