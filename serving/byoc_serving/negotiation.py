"""Media types: reading Content-Type, choosing among Accept's (RFC 9110 sections 8.3 and 12.5.1)."""

from __future__ import annotations

import functools
import re
from typing import TYPE_CHECKING, ParamSpec, TypeVar

from byoc_serving.errors import NotAcceptableError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

#: RFC 9110 section 12.4.2; clients also write ``.5``.
_QVALUE = re.compile(r"[01](\.\d*)?|\.\d+")
ALIASES = {
    "application/x-jsonlines": "application/jsonlines",
    "application/x-ndjson": "application/jsonlines",
    "application/jsonl": "application/jsonlines",
    "text/json": "application/json",
    "text/x-json": "application/json",
    "application/csv": "text/csv",
    "application/x-numpy": "application/x-npy",
    "image/jpg": "image/jpeg",
}


#: Ranges that count, and characters of a header that is worth remembering: a client may send
#: hundreds of kilobytes, each time others.
_MAX_RANGES = 64
_MAX_CACHED = 256

_P = ParamSpec("_P")
_R = TypeVar("_R")


def _remembered(function: Callable[_P, _R]) -> Callable[_P, _R]:
    """A cache of 256 results for arguments whose first is short."""
    cached = functools.lru_cache(maxsize=256)(function)

    @functools.wraps(function)
    def call(*args: _P.args, **kwargs: _P.kwargs) -> _R:
        short = len(args[0]) <= _MAX_CACHED  # type: ignore[arg-type] # headers, all of them
        return cached(*args, **kwargs) if short else function(*args, **kwargs)  # type: ignore[arg-type] # hashable

    return call


@_remembered
def media_type(header: str) -> str:
    """``Text/CSV; charset=utf-8`` -> ``text/csv``; known aliases become the usual name."""
    essence = header.split(";", 1)[0].strip().lower()
    return ALIASES.get(essence, essence)


@_remembered
def _ranges(accept: str) -> tuple[tuple[str, float], ...]:
    """Each range of an Accept header with its weight; a malformed weight counts as 1."""
    ranges: list[tuple[str, float]] = []
    for part in accept.split(",", _MAX_RANGES)[:_MAX_RANGES]:
        kind, *parameters = (piece.strip() for piece in part.split(";"))
        if not kind:
            continue
        weight = 1.0
        for parameter in parameters:
            name, _, value = parameter.partition("=")
            if name.strip().lower() == "q":
                value = value.strip()  # float knows fewer spaces than strip
                weight = min(1.0, float(value)) if _QVALUE.fullmatch(value) else 1.0
        name = kind.lower()
        ranges.append((ALIASES.get(name, name), weight))
    return tuple(ranges)


def _specificity(kind: str, media: str) -> int:
    """How closely a range names a type: 3 exactly, 2 ``type/*``, 1 ``*/*``, 0 not at all."""
    if kind == media:
        return 3
    if kind == media.split("/", 1)[0] + "/*":
        return 2
    return 1 if kind in {"*/*", "*"} else 0


@_remembered
def choose(accept: str, supported: tuple[str, ...], default: str) -> str:
    """The supported type that an Accept header likes best.

    The closest range decides a type's weight; equal weights go by closeness, then by the
    header's order, then the default first. No header, or ``*/*`` alone, means the default.

    Raises:
        NotAcceptableError: none is acceptable.
    """
    ranges = _ranges(accept)
    if not ranges:
        return default
    ordered = (default, *(name for name in supported if name != default))
    best: tuple[float, int, int] | None = None
    chosen = ""
    for media in ordered:
        matches = [
            (_specificity(kind, media), -position, weight)
            for position, (kind, weight) in enumerate(ranges)
            if _specificity(kind, media)
        ]
        if not matches:
            continue
        closeness, position, weight = max(matches)
        rank = (weight, closeness, position)
        if weight > 0 and (best is None or rank > best):
            best, chosen = rank, media
    if not chosen:
        raise NotAcceptableError(
            f"cannot answer as {accept[:200]!r}; the answer can be {', '.join(supported)}"
        )
    return chosen


@_remembered
def preferred(accept: str, default: str) -> str:
    """The type to hand to an output_fn of the user's: the best-liked range that names one."""
    best, chosen = 0.0, default
    wildcard = 0.0
    for kind, weight in _ranges(accept):
        if "*" in kind:
            wildcard = max(wildcard, weight)
        elif weight > best:
            best, chosen = weight, kind
    return default if wildcard > best else chosen


def listed(types: Sequence[str]) -> str:
    """Types as a phrase for a message."""
    return ", ".join(types)
