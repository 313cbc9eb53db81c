"""The operations of SageMaker and SageMaker Runtime as botocore describes them."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from botocore.model import OperationModel

SAGEMAKER, RUNTIME = "sagemaker", "sagemaker-runtime"


@functools.cache
def service(name: str) -> Any:
    """The service model; reading SageMaker's takes most of a second, once."""
    import botocore.session  # noqa: PLC0415 - heavy

    return botocore.session.Session().get_service_model(name)


@functools.cache
def operation(service_name: str, name: str) -> OperationModel | None:
    """An operation, or None when the service has no such one."""
    model = service(service_name)
    found: OperationModel | None = (
        model.operation_model(name) if name in model.operation_names else None
    )
    return found
