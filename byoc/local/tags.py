"""Tags of any resource, by its ARN."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from byoc.local.faults import invalid
from byoc.local.kinds import KINDS

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from byoc.local.actions import Action, Context
    from byoc.local.store import Document

MOST_TAGS = 50


class Tags:
    """AddTags, ListTags, DeleteTags; the tags themselves are a part of each resource's document."""

    def __init__(self, context: Context) -> None:
        self._store = context.store

    @property
    def actions(self) -> Mapping[str, Action]:
        """By the operation's name."""
        return {"AddTags": self.add, "ListTags": self.list_tags, "DeleteTags": self.delete}

    def add(self, request: dict[str, Any]) -> dict[str, Any]:
        """Add tags, or give them new values."""

        def change(tags: dict[str, str]) -> None:
            tags.update({tag["Key"]: tag["Value"] for tag in request["Tags"]})
            if len(tags) > MOST_TAGS:
                raise invalid(f"A resource can have at most {MOST_TAGS} tags, not {len(tags)}.")

        return {"Tags": self._change(request["ResourceArn"], change)}

    def list_tags(self, request: dict[str, Any]) -> dict[str, Any]:
        """All tags of a resource: they fit into the smallest page, so no token is ever given."""
        _, document = self._find(request["ResourceArn"])
        if "NextToken" in request:
            raise invalid("Invalid pagination token.")
        return {"Tags": document.get("Tags", [])}

    def delete(self, request: dict[str, Any]) -> dict[str, Any]:
        """Take tags away; one that is not there is passed over."""

        def change(tags: dict[str, str]) -> None:
            for key in request["TagKeys"]:
                tags.pop(key, None)

        self._change(request["ResourceArn"], change)
        return {}

    def recover(self) -> None:
        """Nothing runs."""

    def close(self) -> None:
        """Nothing runs."""

    def _change(self, arn: str, change: Callable[[dict[str, str]], None]) -> list[dict[str, str]]:
        (kind, name), _ = self._find(arn)

        def write(document: Document) -> None:
            tags = {tag["Key"]: tag["Value"] for tag in document.get("Tags", [])}
            change(tags)
            document["Tags"] = [{"Key": key, "Value": value} for key, value in tags.items()]

        tags: list[dict[str, str]] = self._store.update(kind, name, write)["Tags"]
        return tags

    def _find(self, arn: str) -> tuple[tuple[str, str], Document]:
        for kind in KINDS:
            if f":{kind.arn}/" in arn:
                for document in self._store.all(kind.store):
                    if document[kind.arn_member] == arn.lower():
                        return (kind.store, document[kind.name]), document
        raise invalid(f"Could not find resource {arn}.")
