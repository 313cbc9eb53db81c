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
    start = _position(kept, request.get("NextToken"), name)
    size = int(request.get("MaxResults", PAGE))
    chosen = kept[start : start + size]
    result: dict[str, Any] = {answer: [summary(one) for one in chosen]}
    if start + size < len(kept):
        result["NextToken"] = _token(chosen[-1][name])
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


def _token(last: str) -> str:
    return base64.urlsafe_b64encode(json.dumps({"after": last}).encode()).decode()


def _position(documents: Sequence[Document], token: str | None, name: str) -> int:
    """Where the page after the token's item begins."""
    if token is None:
        return 0
    try:
        last = json.loads(base64.urlsafe_b64decode(token))["after"]
    except (ValueError, KeyError, TypeError, binascii.Error):
        raise invalid("Invalid pagination token.") from None
    names = [one[name] for one in documents]
    # An item that has been deleted since cannot be found again.
    return names.index(last) + 1 if last in names else len(names)
