"""One stateful session: what a handler has put aside for the next request of the same client.

The state lives in a file, so that it is found by whichever worker, or model process, gets the next
request. It is read when the handler first looks and written back when the request has succeeded;
a request that fails leaves it as it was.
"""

from __future__ import annotations

import pickle
from collections.abc import Iterator, MutableMapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(eq=False)
class Session(MutableMapping[str, Any]):
    """A session's state as a dict; values are anything that pickle takes, tensors included.

    Attributes:
        identifier: the id that the client sends.
        path: the file of the state; it need not exist yet.
        expires: when it ends, as the client was told.
        is_new: opened by this request.
    """

    identifier: str
    path: Path
    expires: str = ""
    is_new: bool = False
    _state: dict[str, Any] | None = field(default=None, repr=False)

    @property
    def _loaded(self) -> dict[str, Any]:
        if self._state is None:
            try:
                content = self.path.read_bytes()
            except FileNotFoundError:
                self._state = {}
            else:
                self._state = pickle.loads(content)  # noqa: S301 - this server wrote it, in a directory of its own
                assert self._state is not None  # noqa: S101 - it was saved as a dict
        return self._state

    def __getitem__(self, name: str) -> Any:
        """A value that an earlier request, or this one, has set."""
        return self._loaded[name]

    def __setitem__(self, name: str, value: Any) -> None:
        """Keep a value for the session's next request."""
        self._loaded[name] = value

    def __delitem__(self, name: str) -> None:
        """Forget a value."""
        del self._loaded[name]

    def __iter__(self) -> Iterator[str]:
        """The names."""
        return iter(self._loaded)

    def __len__(self) -> int:
        """How many values there are."""
        return len(self._loaded)

    def save(self) -> None:
        """Write the state back, where the handler has looked at it.

        Raises:
            OSError: it cannot be written.
            pickle.PicklingError, TypeError, AttributeError: a value cannot be kept.
        """
        if self._state is None:
            return
        content = pickle.dumps(self._state, protocol=pickle.HIGHEST_PROTOCOL)
        fresh = self.path.with_suffix(".new")
        fresh.write_bytes(content)
        fresh.replace(self.path)

    def headers(self) -> tuple[tuple[str, str], ...]:
        """What tells the client of a session that this request has opened.

        The guide names the first header, the hosting container toolkit the second: both go out.
        """
        if not self.is_new:
            return ()
        value = f"{self.identifier}; Expires={self.expires}"
        return (
            ("X-Amzn-SageMaker-Session-Id", value),
            ("X-Amzn-SageMaker-New-Session-Id", value),
        )
