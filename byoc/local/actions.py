"""What an action of the API is, and what all of them are given."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from byoc.local.home import Home
    from byoc.local.store import Store

#: From a parsed request to an answer, both as the service model's shapes.
Action = Callable[[dict[str, Any]], dict[str, Any]]


@dataclass(frozen=True)
class Context:
    """What every resource works with.

    Attributes:
        home: Folders.
        store: Documents.
        region: Of all ARNs.
        url: Of this endpoint; containers' S3 is fetched and stored through it.
    """

    home: Home
    store: Store
    region: str
    url: str


class Resource(Protocol):
    """A kind of resource: its actions, and what becomes of it when the endpoint starts or ends."""

    @property
    def actions(self) -> Mapping[str, Action]:
        """By the operation's name."""

    def recover(self) -> None:
        """Take care of what an earlier process left behind."""

    def close(self) -> None:
        """End what runs."""
