"""What stands beside SageMaker: roles that suffice, and errors that the service's clients read."""

from __future__ import annotations

import shutil

import pytest
from botocore.exceptions import ClientError

from byoc.settings import LOCAL_ROLE


def test_the_usual_role_is_there_and_sagemaker_may_assume_it(endpoint):
    role = endpoint.client("iam").get_role(RoleName="byoc-local")["Role"]
    assert role["Arn"] == LOCAL_ROLE
    (statement,) = role["AssumeRolePolicyDocument"]["Statement"]
    assert statement["Principal"] == {"Service": "sagemaker.amazonaws.com"}


def test_a_role_may_do_whatever_is_asked_about(endpoint):
    answer = endpoint.client("iam").simulate_principal_policy(
        PolicySourceArn=LOCAL_ROLE,
        ActionNames=["s3:PutObject", "ecr:BatchGetImage"],
        ResourceArns=["arn:aws:s3:::one/*", "arn:aws:s3:::two/*"],
    )
    found = [
        (one["EvalActionName"], one["EvalResourceName"], one["EvalDecision"])
        for one in answer["EvaluationResults"]
    ]
    assert found == [
        (action, resource, "allowed")
        for action in ("s3:PutObject", "ecr:BatchGetImage")
        for resource in ("arn:aws:s3:::one/*", "arn:aws:s3:::two/*")
    ]
    assert answer["IsTruncated"] is False


def test_any_role_may_do_what_is_asked_since_jobs_take_any(endpoint):
    answer = endpoint.client("iam").simulate_principal_policy(
        PolicySourceArn=f"{LOCAL_ROLE}-other", ActionNames=["s3:PutObject"]
    )
    assert [one["EvalDecision"] for one in answer["EvaluationResults"]] == ["allowed"]


@pytest.mark.parametrize(
    ("service", "operation", "arguments"),
    [
        ("iam", "simulate_custom_policy", {"PolicyInputList": ["{}"], "ActionNames": ["a:b"]}),
        ("logs", "list_anomalies", {}),
    ],
)
def test_what_is_not_there_is_told_in_the_words_of_the_service_s_protocol(
    endpoint, service, operation, arguments
):
    """As XML to IAM's clients, as JSON to others': else they cannot read it."""
    with pytest.raises(ClientError) as refused:
        getattr(endpoint.client(service), operation)(**arguments)
    error = refused.value.response["Error"]
    assert error["Code"] == "NotImplemented", error
    assert error["Message"].endswith("it does not run locally")
    assert refused.value.response["ResponseMetadata"]["HTTPStatusCode"] == 501


def test_a_fault_of_ours_is_xml_to_s3_s_clients(endpoint):
    s3 = endpoint.client("s3")
    s3.create_bucket(Bucket="lost")
    shutil.rmtree(endpoint.home / "objects" / "lost")
    with pytest.raises(ClientError) as failed:
        s3.put_object(Bucket="lost", Key="a", Body=b"1")
    error = failed.value.response["Error"]
    assert error["Code"] == "InternalError"
    assert error["Message"] == "a cannot be stored: No such file or directory"
