"""What `byoc doctor` looks at, and what it finds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from byoc.deployments import INSTANCE_TYPE as ENDPOINT_TYPE
from byoc.jobs import INSTANCE_TYPE as TRAINING_TYPE

if TYPE_CHECKING:
    from byoc.aws import Aws

OK, NOTE, WRONG = "ok", "note", "wrong"


@dataclass(frozen=True)
class Finding:
    """What a check found.

    Attributes:
        subject: What was looked at.
        state: ``ok``, ``note`` (nothing to mend, or nothing that could be looked at) or ``wrong``.
        words: What was seen.
        fix: What to do; empty when nothing.
    """

    subject: str
    state: str
    words: str
    fix: str = ""


@dataclass(frozen=True)
class Patient:
    """What is examined.

    Attributes:
        aws: The account; None when there is no way to it.
        why: Why there is none.
        role: As given by the user.
        bucket: As given by the user.
        training_type: The instance type whose quota for training is looked at.
        endpoint_type: And for endpoints.
    """

    aws: Aws | None
    why: str = ""
    role: str | None = None
    bucket: str | None = None
    training_type: str = TRAINING_TYPE
    endpoint_type: str = ENDPOINT_TYPE
