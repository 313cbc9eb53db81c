"""Errors that AWS gives, as the local endpoint gives them."""

from __future__ import annotations

from typing import Any


class AwsError(Exception):
    """An error that the client sees.

    Attributes:
        code: The exception's name in the service model, or a common one.
        message: For people.
        status: Of HTTP.
        members: Further members of the error's shape.
    """

    def __init__(self, code: str, message: str, status: int = 400, **members: Any) -> None:
        super().__init__(message)
        self.code, self.message, self.status, self.members = code, message, status, members


def invalid(message: str) -> AwsError:
    """What SageMaker says of nearly everything that is wrong with a request."""
    return AwsError("ValidationException", message)


def in_use(message: str) -> AwsError:
    """A name that is taken, or a resource that is busy."""
    return AwsError("ResourceInUse", message)


def limit_exceeded(message: str) -> AwsError:
    """More than this machine, or the account, has."""
    return AwsError("ResourceLimitExceeded", message)
