"""One kind of resource in the store, with AWS's errors for what is missing or taken."""

from __future__ import annotations

import sqlite3
from typing import TYPE_CHECKING, Any

from byoc.local import arns, kinds, listing
from byoc.local.faults import AwsError, in_use, invalid
from byoc.local.store import ExistsError, MissingError

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable, Mapping

    from byoc.local.actions import Context
    from byoc.local.kinds import Kind
    from byoc.local.store import Document

#: Between two tries to keep the end of something on a full disk.
ROOM_SECONDS = 1.0


class Shelf:
    """Resources of one kind."""

    def __init__(self, context: Context, kind: Kind) -> None:
        self._store, self._region, self._kind = context.store, context.region, kind

    def arn(self, name: str) -> str:
        """Of a resource of this name."""
        return arns.arn(self._region, self._kind.arn, name)

    def create(self, request: Mapping[str, Any], **more: Any) -> Document:
        """Keep a request and what more is known, with its ARN.

        Raises:
            AwsError: The name is taken.
        """
        name = request[self._kind.name]
        arn = self.arn(name)
        document = {**request, **more, self._kind.arn_member: arn}
        try:
            return self._store.create(self._kind.store, name, document)
        except ExistsError:
            raise self._taken(arn) from None

    def check_free(self, name: str) -> None:
        """Refuse a name before anything else is looked at that takes time.

        Raises:
            AwsError: It is taken.
        """
        if self.find(name) is not None:
            raise self._taken(self.arn(name))

    def get(self, name: str) -> Document:
        """The document.

        Raises:
            AwsError: There is none.
        """
        document = self._store.get(self._kind.store, name)
        if document is None:
            raise self._missing(name)
        return document

    def find(self, name: str) -> Document | None:
        """The document, or None."""
        return self._store.get(self._kind.store, name)

    def update(self, name: str, change: Callable[[Document], None]) -> Document:
        """Change a document.

        Raises:
            AwsError: There is none.
        """
        try:
            return self._store.update(self._kind.store, name, change)
        except MissingError:
            raise self._missing(name) from None

    def set(self, name: str, **members: Any) -> Document:
        """Give a document's members new values.

        Raises:
            AwsError: There is none.
        """
        return self.update(name, lambda document: document.update(members))

    def settle(
        self, name: str, closed: threading.Event, log: Callable[[str], None], **members: Any
    ) -> None:
        """Like `set`, as soon as a full disk has room again, or never once ``closed`` is set."""
        while True:
            try:
                self.set(name, **members)
            except AwsError as error:  # it has been deleted meanwhile
                log(f"{name}: {error.message}")
            except sqlite3.Error as error:
                log(f"the end of {name} cannot be kept yet: {error}")
                if not closed.wait(ROOM_SECONDS):
                    continue
            return

    def delete(self, name: str) -> None:
        """Forget a document.

        Raises:
            AwsError: There is none.
        """
        if not self._store.delete(self._kind.store, name):
            raise self._missing(name)

    def all(self) -> list[Document]:
        """Every document, the oldest first."""
        return self._store.all(self._kind.store)

    def page(
        self,
        request: Mapping[str, Any],
        answer: str,
        status: str | None,
        summary: Callable[[Document], dict[str, Any]],
    ) -> dict[str, Any]:
        """One page of a list, see `listing.page`."""
        return listing.page(
            self.all(),
            request,
            answer=answer,
            name=self._kind.name,
            status=status,
            summary=summary,
        )

    def _missing(self, name: str) -> AwsError:
        if self._kind in kinds.JOBS:
            return invalid("Requested resource not found.")
        return invalid(f'Could not find {self._kind.words} "{self.arn(name)}".')

    def _taken(self, arn: str) -> AwsError:
        if self._kind in kinds.JOBS:
            # As AWS says it: of training jobs otherwise than of the rest.
            what = "Training job names" if self._kind is kinds.TRAINING_JOB else "Job name"
            return in_use(
                f"{what} must be unique within an AWS account and region, and a "
                f"{self._kind.words} with this name already exists ({arn})"
            )
        return invalid(f'Cannot create already existing {self._kind.words} "{arn}".')
