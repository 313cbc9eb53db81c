"""The paths of the multi-model API, as data.

Names are opaque: whatever stands between ``/models/`` and the path's end (or ``/invoke``),
percent-decoded once. A slash in a name may be encoded or not.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from urllib.parse import quote, unquote_to_bytes

from byoc_serving.errors import MethodNotAllowedError

PREFIX = "/models"
_INVOKE = b"/invoke"


class Action(enum.Enum):
    """What a request asks for."""

    LIST = "list"
    LOAD = "load"
    DESCRIBE = "describe"
    UNLOAD = "unload"
    INVOKE = "invoke"


@dataclass(frozen=True)
class Route:
    """A request's meaning; ``name`` is empty where no single model is meant."""

    action: Action
    name: str = ""


def is_ours(path: str) -> bool:
    """Whether a decoded path belongs to the multi-model API."""
    return path == PREFIX or path.startswith(PREFIX + "/")


def path_of(raw: bytes, decoded: str) -> bytes:
    """The path of a request of ours as it was sent, which alone tells slashes in names from others.

    Args:
        raw: the request's target: a path, or a whole URL as proxies send it.
        decoded: its path, decoded; it stands in where the target spells ``/models`` in another way.
    """
    path = raw.split(b"?", 1)[0]
    if path[:1] != b"/" and b"://" in path:
        path = b"/" + path.partition(b"://")[2].partition(b"/")[2]
    if path == PREFIX.encode() or path.startswith(PREFIX.encode() + b"/"):
        return path
    return quote(decoded, errors="surrogateescape").encode()


def route(method: str, raw_path: bytes) -> Route:
    """The route of a request.

    Args:
        method: the HTTP method.
        raw_path: the path as sent, without the query string.

    Raises:
        MethodNotAllowedError: the path does not take the method.
    """
    rest = raw_path[len(PREFIX) :]
    if rest in {b"", b"/"}:
        return _pick(method, PREFIX, {"GET": Route(Action.LIST), "POST": Route(Action.LOAD)})
    rest = rest[1:]
    if rest.endswith(_INVOKE):
        name = decoded(rest[: -len(_INVOKE)])
        return _pick(method, "/models/<name>/invoke", {"POST": Route(Action.INVOKE, name)})
    name = decoded(rest)
    routes = {"GET": Route(Action.DESCRIBE, name), "DELETE": Route(Action.UNLOAD, name)}
    return _pick(method, "/models/<name>", routes)


def decoded(part: bytes) -> str:
    """A percent-encoded name as text; bytes that are no UTF-8 match no name that was loaded."""
    return unquote_to_bytes(part).decode("utf-8", "surrogateescape")


def _pick(method: str, path: str, routes: dict[str, Route]) -> Route:
    try:
        return routes[method]
    except KeyError:
        raise MethodNotAllowedError(method, path, ", ".join(routes)) from None
