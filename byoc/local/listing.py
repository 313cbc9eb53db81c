"""Lists as SageMaker answers them: filtered, sorted, a page at a time."""

from __future__ import annotations

import base64
import binascii
import json
from typing import TYPE_CHECKING, Any

from byoc.local.faults import invalid

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from byoc.local.store import Document

#: Items a page where the request names no number; the model's largest is 100.
PAGE = 10


def page(
    documents: Sequence[Document],
    request: Mapping[str, Any],
    *,
    answer: str,
    name: str,
    status: str | None,
    summary: Callable[[Document], dict[str, Any]],
) -> dict[str, Any]:
    """One page.

    Args:
        documents: All of them.
        request: Its ``NameContains``, ``StatusEquals``, ``CreationTimeAfter`` …, ``SortBy``,
            ``SortOrder``, ``MaxResults`` and ``NextToken``.
        answer: The member that the summaries are in.
        name: The member of a document that is its name.
        status: The member that is its status.
        summary: What is shown of a document.

    Raises:
        AwsError: The token is none of ours.
    """
    kept = [one for one in documents if _wanted(one, request, name, status)]
    by = request.get("SortBy", "CreationTime")
    key = {"Name": name, "Status": status}.get(by, by) or name
    descending = request.get("SortOrder", "Descending") == "Descending"
    kept.sort(key=lambda one: (one.get(key, 0), one[name]), reverse=descending)
    places = [(one.get(key, 0), one[name]) for one in kept]
    start = _position(places, request.get("NextToken"), descending=descending)
    size = int(request.get("MaxResults", PAGE))
    chosen = kept[start : start + size]
    result: dict[str, Any] = {answer: [summary(one) for one in chosen]}
    if start + size < len(kept):
        result["NextToken"] = _token(places[start + size - 1])
    return result


def _wanted(document: Document, request: Mapping[str, Any], name: str, status: str | None) -> bool:
    part = request.get("NameContains")
    if part is not None and part.lower() not in document[name].lower():
        return False
    equals = request.get("StatusEquals")
    if equals is not None and status is not None and document.get(status) != equals:
        return False
    for word, member in (
        ("CreationTime", "CreationTime"),
        ("LastModifiedTime", "LastModifiedTime"),
    ):
        after, before = request.get(f"{word}After"), request.get(f"{word}Before")
        if after is not None and document[member] <= after.timestamp():
            return False
        if before is not None and document[member] >= before.timestamp():
            return False
    return True


def _token(last: tuple[Any, str]) -> str:
    return base64.urlsafe_b64encode(json.dumps(last).encode()).decode()


def _position(places: Sequence[tuple[Any, str]], token: str | None, *, descending: bool) -> int:
    """Where the page after the token's item begins, whether that is still there or not."""
    if token is None:
        return 0
    try:
        value, name = json.loads(base64.urlsafe_b64decode(token))
        last = (value, str(name))
        after = (
            n for n, place in enumerate(places) if (place < last if descending else place > last)
        )
        return next(after, len(places))
    except (ValueError, KeyError, TypeError, binascii.Error):
        raise invalid("Invalid pagination token.") from None
