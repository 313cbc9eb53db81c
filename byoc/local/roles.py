"""Roles: here one may do whatever a client asks about, and the usual one is there.

moto has no SimulatePrincipalPolicy, with which SageMaker's SDK asks before each job and model
whether the role suffices. No permission is looked at on this machine, so the answer is yes.
"""

from __future__ import annotations

import json
from typing import Any

from byoc.local.arns import ACCOUNT, partition
from byoc.settings import LOCAL_ROLE

_TRUST = {
    "Version": "2012-10-17",
    "Statement": [
        {
            "Effect": "Allow",
            "Principal": {"Service": "sagemaker.amazonaws.com"},
            "Action": "sts:AssumeRole",
        }
    ],
}


def prepare(region: str) -> None:
    """Add to moto's IAM what it lacks, and the role that jobs get when none is named."""
    from moto.iam.models import iam_backends  # noqa: PLC0415 - heavy
    from moto.iam.responses import IamResponse  # noqa: PLC0415 - heavy

    kind: Any = IamResponse
    kind.simulate_principal_policy = _simulate_principal_policy
    iam_backends[ACCOUNT][partition(region)].create_role(
        role_name=LOCAL_ROLE.rpartition("/")[2],
        assume_role_policy_document=json.dumps(_TRUST),
        path="/",
        permissions_boundary=None,
        description="The execution role of the local endpoint",
        tags=[],
        max_session_duration="3600",
    )


def _simulate_principal_policy(response: Any) -> Any:
    """SimulatePrincipalPolicy, a method of moto's IAM."""
    from moto.core.responses import ActionResult  # noqa: PLC0415 - heavy

    # Any role: CreateTrainingJob takes any as well, so that users' own scripts work as they are.
    actions = response._get_param("ActionNames", [])  # noqa: SLF001 - moto's way to read a request
    resources = response._get_param("ResourceArns", None) or ["*"]  # noqa: SLF001 - as above
    results = [
        {"EvalActionName": action, "EvalResourceName": resource, "EvalDecision": "allowed"}
        for action in actions
        for resource in resources
    ]
    return ActionResult({"EvaluationResults": results, "IsTruncated": False})
