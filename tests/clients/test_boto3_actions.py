"""boto3 and botocore's own lists of SageMaker's actions, waiters, pages and errors, all of each.

What an action does is tested in tests/local. Here botocore's models say what there is to ask for,
so that an action, a waiter, a paginator or an error that nobody has thought of fails a test.
"""

import json

import pytest

from byoc.local import runtime, service_model
from tests.clients.inside import (
    INVOCATIONS,
)
from tests.local.hosted import ACTIONS


def test_the_endpoint_has_exactly_the_actions_that_are_listed(inside):
    """All others of botocore's are told apart from what is no action at all."""
    import urllib.error
    import urllib.request

    def answers(action: str) -> str:
        target = {"X-Amz-Target": f"SageMaker.{action}"}
        request = urllib.request.Request(inside.server.url, b"[]", target)
        with pytest.raises(urllib.error.HTTPError) as raised:
            urllib.request.urlopen(request)
        with raised.value as answer:
            return str(json.loads(answer.read())["__type"])

    names = service_model.service(service_model.SAGEMAKER).operation_names
    told = {name: answers(name) for name in names}
    assert set(told.values()) == {"UnknownOperationException", "SerializationException"}
    here = {name for name, code in told.items() if code == "SerializationException"}
    assert here == set(ACTIONS)
    assert len(ACTIONS) == len(set(ACTIONS)) == 31
    assert answers("CreateNothing") == "UnknownOperationException"
    runtime_names = service_model.service(service_model.RUNTIME).operation_names
    assert set(INVOCATIONS) <= set(runtime_names)
    assert len(INVOCATIONS) == len(runtime._OPERATIONS)
    assert set(runtime._OPERATIONS.values()) == set(INVOCATIONS)
