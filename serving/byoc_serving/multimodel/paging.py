"""Pages of a list that changes between them.

A token names the last key that was shown, not a position: whatever comes and goes in between,
a model that is there all the time is shown exactly once.
"""

from __future__ import annotations

import base64
import binascii
from typing import TYPE_CHECKING
from urllib.parse import parse_qs

from byoc_serving.errors import RequestError

if TYPE_CHECKING:
    from collections.abc import Iterable

#: Models on a page when the request does not say; MMS has the same number.
DEFAULT_LIMIT = 100
_PREFIX = "after:"


def page(keys: Iterable[str], query: bytes) -> tuple[list[str], str | None]:
    """The keys of the page that a query string asks for, and the token of the next page.

    Args:
        keys: all keys, in any order.
        query: ``limit`` (1 or more) and ``next_page_token`` (as returned), both optional.

    Raises:
        RequestError: a limit or a token that is none.
    """
    fields = parse_qs(query.decode("latin-1"), keep_blank_values=True)
    limit = _limit(fields["limit"][-1]) if "limit" in fields else DEFAULT_LIMIT
    token = fields.get("next_page_token", [""])[-1]
    after = _after(token) if token else None
    left = sorted(key for key in keys if after is None or key > after)
    shown = left[:limit]
    return shown, _token(shown[-1]) if len(left) > limit else None


def _limit(text: str) -> int:
    # isdigit alone also takes digits that int does not.
    if not (text.isascii() and text.isdigit() and len(text) < 10 and int(text)):
        raise RequestError(f"limit={text[:40]!r}: expected a whole number, 1 or more")
    return int(text)


def _token(key: str) -> str:
    return base64.urlsafe_b64encode(f"{_PREFIX}{key}".encode()).decode().rstrip("=")


def _after(token: str) -> str:
    try:
        padded = token.encode("ascii") + b"=" * (-len(token) % 4)
        data = base64.b64decode(padded, altchars=b"-_", validate=True).decode()
    except (ValueError, binascii.Error):
        data = ""
    if not data.startswith(_PREFIX):
        raise RequestError(
            f"next_page_token={token[:40]!r} is none of ours; use nextPageToken of the page "
            "before, or leave it out"
        )
    return data[len(_PREFIX) :]
