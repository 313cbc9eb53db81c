"""The stateful sessions of a server: opened, found and closed by what a request's headers say.

A client opens a session with the header ``X-Amzn-SageMaker-Session-Id: NEW_SESSION``, or with the
JSON body ``{"requestType": "NEW_SESSION"}``, and names it in the same header afterwards. The body
``{"requestType": "CLOSE"}`` with the header ends it. A body that says nothing but its requestType
is answered here; every other request goes to the handler, which finds ``context.session``.

All workers share the sessions: each is a file with its end and a file with its state. The first is
locked while a request of the session runs, so those of one session run one after the other. Of
several models each has sessions of its own; they outlive its unloading, of which no client knows.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
import secrets
import time
from typing import TYPE_CHECKING, Any

from byoc_serving.errors import RequestError, UnavailableError
from byoc_serving.exchange import Response
from byoc_serving.session import Session

if TYPE_CHECKING:
    from pathlib import Path

    from byoc_serving.exchange import Body, Invocation

NEW = "NEW_SESSION"
CLOSE = "CLOSE"
#: API InvokeEndpointInput: at most 256 characters.
_ID = re.compile(r"[A-Za-z0-9](?:-*[A-Za-z0-9]){0,255}")
_OUR_ID_LENGTH = 32
#: A body longer than this is for the model.
_CONTROL_BYTES = 4096


class BadSessionError(RequestError):
    """The session's id is no id, or is missing."""

    code = "bad_session"


class UnknownSessionError(RequestError):
    """No such session, or no longer."""

    status = 404
    code = "unknown_session"


class SessionBusyError(RequestError):
    """Another request of the session is running."""

    status = 409
    code = "session_busy"


class Sessions:
    """Opens, finds and closes sessions.

    Args:
        directory: of all workers; made when it is needed.
        ttl_s: a session ends so long after its opening; 0 leaves sessions to the handler.
        most: sessions at once.
    """

    def __init__(self, directory: Path, ttl_s: float, most: int) -> None:
        self._directory = directory
        self._ttl_s = ttl_s
        self._most = most
        #: How long a request waits for the session's running one, and how often it looks.
        self.patience_s = 60.0
        self.pause_s = 0.005
        self._locks: dict[int, int] = {}

    def concerns(self, session_id: str, body: Body) -> bool:
        """Whether a request names a session; quick, since it is asked of every request.

        Args:
            session_id: the session header, or "".
            body: the request's.
        """
        if not self._ttl_s:
            return False
        return bool(session_id) or (len(body) <= _CONTROL_BYTES and b'"requestType"' in body)

    def begin(self, invocation: Invocation) -> Response | None:
        """Give a request its session, to be handed back by ``end``.

        Returns:
            The answer, where the request was for the session alone.

        Raises:
            BadSessionError: no id.
            UnknownSessionError: no session of this id, or its time is over.
            SessionBusyError: try again in a moment.
            UnavailableError: there are too many sessions.
        """
        message = _control(invocation)
        wish = message.get("requestType")
        identifier = invocation.session_id.strip()
        if identifier == NEW or (wish == NEW and not identifier):
            session = self._open(invocation.model)
            if wish == NEW and len(message) == 1:
                text = {"sessionId": session.identifier, "expires": session.expires}
                return Response(200, json.dumps(text).encode(), headers=session.headers())
            self._lock(invocation, self._directory / session.identifier)
            invocation.session = session
            return None
        if not identifier and wish != CLOSE:
            return None
        path = self._find(identifier, invocation.model)
        self._lock(invocation, path)
        if wish == CLOSE:
            self._remove(path)
            self._unlock(invocation)
            headers = (("X-Amzn-SageMaker-Closed-Session-Id", identifier),)
            return Response(200, json.dumps({"closed": identifier}).encode(), headers=headers)
        invocation.session = Session(identifier, path.with_suffix(".state"))
        return None

    def end(self, invocation: Invocation, status: int) -> None:
        """A request of a session is over; one that failed to open it has not opened it."""
        session = invocation.session
        if session is not None and session.is_new and status >= 400:
            self._remove(self._directory / session.identifier)
        self._unlock(invocation)

    def _open(self, model: str) -> Session:
        self._directory.mkdir(mode=0o700, exist_ok=True)
        held = [path for path in self._directory.iterdir() if not path.suffix]
        if len(held) >= self._most:
            held = [path for path in held if not self._expired(path)]
        if len(held) >= self._most:
            raise UnavailableError(
                f"{len(held)} sessions are open, as many as there may be; close one, wait until "
                "one expires, or raise BYOC_MAX_SESSIONS",
                "full",
            )
        identifier = secrets.token_hex(_OUR_ID_LENGTH // 2)
        path = self._directory / identifier
        fresh = path.with_suffix(".new")
        fresh.write_text(f"{time.monotonic() + self._ttl_s!r} {_owner(model)}")
        fresh.replace(path)
        expires = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + self._ttl_s))
        return Session(identifier, path.with_suffix(".state"), expires, is_new=True)

    def _find(self, identifier: str, model: str) -> Path:
        if len(identifier) > 256 or not _ID.fullmatch(identifier):
            raise BadSessionError(
                f"{identifier[:64]!r} is no session id; send the X-Amzn-SageMaker-Session-Id that "
                f"opening a session answered, or {NEW} to open one"
            )
        path = self._directory / identifier
        # Longer than any of ours: no name for a file either.
        if len(identifier) > _OUR_ID_LENGTH or self._expired(path, _owner(model)):
            raise UnknownSessionError(
                f"there is no session {identifier[:64]}: it was never opened, was closed, or has "
                f"expired; open one with X-Amzn-SageMaker-Session-Id: {NEW}"
            )
        return path

    def _expired(self, path: Path, owner: str | None = None) -> bool:
        """Whether a session is over, or another model's; its files go when it is over."""
        try:
            end, _, found = path.read_text().partition(" ")
        except FileNotFoundError:
            return True
        if time.monotonic() >= float(end):
            self._remove(path)
            return True
        return owner not in (None, found)

    def _remove(self, path: Path) -> None:
        path.unlink(missing_ok=True)
        path.with_suffix(".state").unlink(missing_ok=True)

    def _lock(self, invocation: Invocation, path: Path) -> None:
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            raise UnknownSessionError("the session has just been closed; open another") from None
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            raise SessionBusyError(
                "another request of this session has been running for too long; send them one "
                "after the other"
            ) from None
        if not os.fstat(descriptor).st_nlink:
            os.close(descriptor)
            raise UnknownSessionError("the session has just been closed; open another")
        self._locks[id(invocation)] = descriptor

    def _unlock(self, invocation: Invocation) -> None:
        descriptor = self._locks.pop(id(invocation), None)
        if descriptor is not None:
            os.close(descriptor)


def _owner(model: str) -> str:
    """Whose a session is: names are opaque, and some are longer than a line should be."""
    return hashlib.sha256(model.encode("utf-8", "surrogateescape")).hexdigest() if model else ""


def _control(invocation: Invocation) -> dict[str, Any]:
    """The body as a message about the session; empty when it is none."""
    body = invocation.body
    if len(body) > _CONTROL_BYTES or b'"requestType"' not in body:
        return {}
    try:
        message = json.loads(bytes(body))
    except (ValueError, RecursionError):
        return {}
    if not isinstance(message, dict) or message.get("requestType") not in (NEW, CLOSE):
        return {}
    return message
