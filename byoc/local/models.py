"""Models: an image and the archive that it serves."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from byoc.local.faults import invalid
from byoc.local.kinds import MODEL
from byoc.local.shelf import Shelf

if TYPE_CHECKING:
    from collections.abc import Mapping

    from byoc.local.actions import Action, Context
    from byoc.local.references import References
    from byoc.local.store import Document

_ROLE = re.compile(r"arn:aws[a-z-]*:iam::\d{12}:role/.+")


class Models:
    """CreateModel, DescribeModel, ListModels, DeleteModel."""

    def __init__(self, context: Context, references: References) -> None:
        self._shelf, self._references = Shelf(context, MODEL), references

    @property
    def actions(self) -> Mapping[str, Action]:
        """By the operation's name."""
        return {
            "CreateModel": self.create,
            "DescribeModel": self.describe,
            "ListModels": self.page,
            "DeleteModel": self.delete,
        }

    def create(self, request: dict[str, Any]) -> dict[str, Any]:
        """Keep it, if it is one that can be hosted."""
        check_role(request.get("ExecutionRoleArn"), "executionRoleArn")
        containers = [*request.get("Containers", ())]
        if primary := request.get("PrimaryContainer"):
            if containers:
                raise invalid("Only one of PrimaryContainer and Containers may be given.")
            containers = [primary]
        if not containers and not request.get("InferenceExecutionConfig"):
            raise invalid("At least one container must be specified.")
        for container in containers:
            if not container.get("Image") and not container.get("ModelPackageName"):
                raise invalid("A container needs an Image or a ModelPackageName.")
        self._shelf.check_free(request["ModelName"])
        self._references.check_containers(containers)
        document = self._shelf.create(request)
        return {"ModelArn": document["ModelArn"]}

    def describe(self, request: dict[str, Any]) -> dict[str, Any]:
        """Everything about one."""
        return self._shelf.get(request["ModelName"])

    def page(self, request: dict[str, Any]) -> dict[str, Any]:
        """A page of all."""
        return self._shelf.page(request, "Models", None, _summary)

    def delete(self, request: dict[str, Any]) -> dict[str, Any]:
        """Forget one; endpoints that run it go on."""
        self._shelf.delete(request["ModelName"])
        return {}

    def recover(self) -> None:
        """Nothing runs."""

    def close(self) -> None:
        """Nothing runs."""


def check_role(role: str | None, member: str) -> None:
    """Refuse what is no role's ARN.

    Raises:
        AwsError: It is none.
    """
    if role is not None and not _ROLE.fullmatch(role):
        raise invalid(
            f"1 validation error detected: Value '{role}' at '{member}' failed to satisfy "
            "constraint: Member must satisfy regular expression pattern: "
            r"arn:aws[a-z\-]*:iam::\d{12}:role/?[a-zA-Z_0-9+=,.@\-_/]+"
        )


def _summary(document: Document) -> dict[str, Any]:
    return {key: document[key] for key in ("ModelName", "ModelArn", "CreationTime")}
