"""application/json and application/jsonlines."""

from __future__ import annotations

import math
import struct
from functools import lru_cache
from itertools import chain
from typing import TYPE_CHECKING, Any

import numpy as np
import orjson

from byoc_serving.codecs.encodings import not_utf8
from byoc_serving.errors import BadBodyError, NotAcceptableError

if TYPE_CHECKING:
    from numpy.typing import NDArray

#: Members that hold the array when the body is an object (TensorFlow Serving's and KServe's).
WRAPPERS = ("instances", "inputs")
_OPTIONS = orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_NON_STR_KEYS
#: numpy's own limit on dimensions.
_MAX_DEPTH = 64


def decode(body: bytes) -> NDArray[np.float32]:
    """A JSON array, or an object with ``instances`` or ``inputs``, as float32.

    Booleans count as 0 and 1.

    Raises:
        BadBodyError: not JSON, not rectangular, empty, or not numbers that float32 can hold.
    """
    value = _parse(body, "")
    array = _quick(value)
    if array is not None:
        return array
    strings_allowed = 0
    if isinstance(value, dict):
        names = [name for name in WRAPPERS if name in value]
        if len(names) != 1:
            raise BadBodyError(
                f"the JSON object has the members {_names(value)}; expected an array, or an "
                'object with one of "instances" and "inputs"'
            )
        if len(value) != 1:
            # Other members may hold strings; the array's own bytes are checked instead.
            body = _text(value[names[0]], "")
        else:
            strings_allowed = 2
        value = value[names[0]]
    return _array(value, body, strings_allowed, "")


def decode_lines(body: bytes) -> NDArray[np.float32]:
    """One JSON record a line, stacked to float32 ``[N, ...]``; blank lines are skipped.

    Raises:
        BadBodyError: with the number of the first bad line, counted from 1.
    """
    rows: list[NDArray[np.float32]] = []
    for number, line in enumerate(body.splitlines(), 1):
        if not line.strip():
            continue
        where = f"line {number}: "
        value = _parse(line, where)
        if isinstance(value, dict):
            members = [value[name] for name in (*WRAPPERS, "features", "data") if name in value]
            if len(members) != 1:
                raise BadBodyError(
                    f"{where}the object has the members {_names(value)}; expected an array, or "
                    'an object with one of "instances", "inputs", "features", "data"'
                )
            value = members[0]
            line = _text(value, where)  # noqa: PLW2901 - the record without its wrapper
        row = _array(value, line, 0, where)
        if rows and row.shape != rows[0].shape:
            raise BadBodyError(
                f"{where}the record's shape is {row.shape}, the first record's is {rows[0].shape}"
            )
        if row.ndim == _MAX_DEPTH:
            raise BadBodyError(
                f"{where}the record has {row.ndim} dimensions, one more is the batch"
            )
        rows.append(row)
    if not rows:
        raise BadBodyError("the body has no records, only blank lines")
    return np.stack(rows)


def encode(prediction: Any) -> bytes:
    """Arrays and plain containers as JSON; float32 in its shortest form.

    Raises:
        NotAcceptableError: NaN or infinity inside, which JSON cannot carry.
        TypeError: something inside is no JSON value.
    """
    return orjson.dumps(_checked(prediction), option=_OPTIONS)


def sound(array: NDArray[Any]) -> bool:
    """Whether any run of this array's rows is fit for ``encode_sound``."""
    kind = array.dtype.kind
    if kind not in "fiub" or array.dtype.itemsize > 8:
        return False
    finite = kind != "f" or bool(np.isfinite(array).all())
    return finite and array.dtype.isnative and array.flags.c_contiguous


def encode_sound(array: NDArray[Any]) -> bytes:
    """What ``encode`` would write of rows that ``sound`` has seen."""
    return orjson.dumps(array, option=_OPTIONS)


def encode_lines(prediction: Any) -> bytes:
    """One line a row, each with its line end.

    Raises:
        NotAcceptableError: as for ``encode``.
    """
    rows = prediction if isinstance(prediction, (list, np.ndarray)) else [prediction]
    if isinstance(rows, np.ndarray) and rows.ndim == 0:
        rows = rows.reshape(1)
    checked = _checked(rows)
    return b"".join(orjson.dumps(row, option=_OPTIONS) + b"\n" for row in checked)


def _parse(text: bytes, where: str) -> Any:
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise BadBodyError(f"{where}{_unparsed(text, error)}") from None


def _unparsed(text: bytes, error: orjson.JSONDecodeError) -> str:
    try:
        text.decode()
    except UnicodeDecodeError as bad:
        return not_utf8(text, bad.start)
    if text.startswith((b"NaN", b"Infinity"), error.pos):
        return f"not JSON, which has no NaN and no infinity: {error}; expected finite numbers"
    return f"not JSON: {error}; expected an array of numbers"


def _text(value: Any, where: str) -> bytes:
    """A parsed value as JSON again; orjson reads deeper values than it writes."""
    try:
        return orjson.dumps(value)
    except orjson.JSONEncodeError as error:
        raise BadBodyError(f"{where}expected an array of numbers: {error}") from None


def _names(value: dict[str, Any]) -> str:
    names = [repr(name[:40]) for name in list(value)[:5]]
    return ", ".join(names) + (", …" if len(value) > 5 else "") if names else "(none)"


def _quick(value: Any) -> NDArray[np.float32] | None:
    """A sound array in half of numpy's time; None: look closer, there may be something wrong."""
    shape: list[int] = []
    inner = value
    try:
        while type(inner) is list:
            shape.append(len(inner))
            inner = inner[0]
        level = value
        for length in shape[1:]:
            if list(map(len, level)).count(length) != len(level):
                return None
            level = list(chain.from_iterable(level))
        # pack takes numbers alone; a bytearray, because torch wants memory that may be written.
        packed = bytearray(_floats(len(level)).pack(*level))
        array = np.frombuffer(packed, np.float32).reshape(shape)
    except (TypeError, IndexError, ValueError, OverflowError, struct.error):
        return None
    return array if shape and np.isfinite(array).all() else None


@lru_cache(maxsize=64)
def _floats(count: int) -> struct.Struct:
    return struct.Struct(f"={count}f")


def _array(value: Any, text: bytes, strings_allowed: int, where: str) -> NDArray[np.float32]:
    if not isinstance(value, list):
        raise BadBodyError(f"{where}expected an array of numbers, got {_kind(value)}")
    # numpy would read "1" as a number; each string has two quotes, and so has a member's name.
    if text.count(b'"') > strings_allowed:
        stranger = _stranger(value)
        if stranger is None:
            # The parser keeps the last member of a name; the strings are in one that is gone.
            raise BadBodyError(f"{where}the object has a member twice; send each once")
        raise BadBodyError(f"{where}expected only numbers, got {stranger}")
    try:
        with np.errstate(over="ignore"):  # found below, with its place
            array: NDArray[np.float32] = np.array(value, dtype=np.float32)
    except (ValueError, TypeError, OverflowError) as error:
        raise BadBodyError(f"{where}{_complaint(value, error)}") from None
    if array.size == 0:
        raise BadBodyError(f"{where}the array is empty, its shape is {array.shape}")
    if not np.isfinite(array).all():
        first = int(np.argmin(np.isfinite(array)))
        position = [int(i) for i in np.unravel_index(first, array.shape)]
        cause = "null" if _at(value, position) is None else "a number that float32 cannot hold"
        raise BadBodyError(f"{where}expected numbers, got {cause} at {_path(position)}")
    return array


def _complaint(value: list[Any], error: Exception) -> str:
    stranger = _stranger(value)
    if stranger:
        return f"expected only numbers, got {stranger}"
    depth, inner = 0, value
    while isinstance(inner, list) and inner:
        depth, inner = depth + 1, inner[0]
    if depth > _MAX_DEPTH:
        return f"the array has {depth} dimensions, the limit is {_MAX_DEPTH}"
    if "inhomogeneous" in str(error):
        detected = str(error).split("The detected shape was ")[-1].split(" + ")[0]
        return f"the array is ragged: beyond the shape {detected} its rows differ in length"
    return "the value is no rectangular array of numbers"


def _stranger(value: Any) -> str | None:
    """The first thing inside that is no number and no list, with its place."""
    if not isinstance(value, list):
        return None if isinstance(value, (int, float)) else f"{_kind(value)} at the top"
    # One iterator a level: the body may have tens of millions of numbers.
    place, levels = [-1], [iter(value)]
    while levels:
        for item in levels[-1]:
            place[-1] += 1
            if isinstance(item, list):
                levels.append(iter(item))
                place.append(-1)
                break
            if item is None or isinstance(item, (str, dict)):
                return f"{_kind(item)} at {_path(place)}"
        else:
            levels.pop()
            place.pop()
    return None


def _kind(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, str):
        return f"the string {value[:30]!r}"
    names = {bool: "a boolean", int: "a number", float: "a number", dict: "an object"}
    return names.get(type(value), "an array")


def _path(position: list[int]) -> str:
    return "".join(f"[{i}]" for i in position) or "the top"


def _at(value: Any, position: list[int]) -> Any:
    for index in position:
        value = value[index]
    return value


def _checked(value: Any) -> Any:
    """The value as orjson takes it: contiguous arrays, nothing that would turn into null."""
    if isinstance(value, np.ndarray):
        return _checked_array(value)
    if isinstance(value, float) and not math.isfinite(value):
        raise NotAcceptableError(_NOT_FINITE)
    if isinstance(value, list):
        return [_checked(item) for item in value]
    if isinstance(value, dict):
        return {name: _checked(item) for name, item in value.items()}
    return value


def _checked_array(array: NDArray[Any]) -> Any:
    kind = array.dtype.kind
    if kind == "c":
        raise NotAcceptableError("JSON has no complex numbers; accept application/x-npy")
    if kind not in "fiub":
        return _checked(array.tolist())
    if kind == "f" and not np.isfinite(array).all():
        raise NotAcceptableError(_NOT_FINITE)
    target = np.dtype(np.float64) if array.dtype.itemsize > 8 else array.dtype.newbyteorder("=")
    native = array.astype(target, copy=False)
    # orjson writes only contiguous arrays with at least one dimension.
    return np.ascontiguousarray(native) if native.ndim else native.item()


_NOT_FINITE = (
    "the answer has NaN or infinity in it, which JSON cannot carry; accept application/x-npy "
    "or text/csv"
)
