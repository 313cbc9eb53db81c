"""What the service model's expressions accept, in Python's syntax."""

from __future__ import annotations

import boto3
import pytest
from botocore.exceptions import ClientError

from byoc.local.validation import _compiled
from byoc.settings import LOCAL_ROLE

ARN = "arn:aws:sagemaker:us-east-1:123456789012:model/tagged"


@pytest.fixture(scope="module")
def sagemaker(endpoint):
    client = endpoint.client("sagemaker")
    client.create_model(
        ModelName="tagged", ExecutionRoleArn=LOCAL_ROLE, PrimaryContainer={"Image": "serving:1"}
    )
    return client


@pytest.mark.parametrize("text", ["a_b.c:d/e=f+g-h@i", "two words", "Größe", "数", "٣", "a² b"])
def test_a_tag_has_letters_numbers_spaces_and_some_signs(sagemaker, text):
    sagemaker.add_tags(ResourceArn=ARN, Tags=[{"Key": text, "Value": text}])
    assert {"Key": text, "Value": text} in sagemaker.list_tags(ResourceArn=ARN)["Tags"]


@pytest.mark.parametrize("text", ["a#b", "a\\b", "a*", "€", "a\tb"])
def test_a_tag_has_no_other_sign(sagemaker, text):
    with pytest.raises(ClientError, match=r"'tags\.1\.member\.key' failed to satisfy constraint"):
        sagemaker.add_tags(ResourceArn=ARN, Tags=[{"Key": text, "Value": ""}])


def test_the_named_classes_of_the_service_model_s_expressions_are_all_read():
    model = boto3.Session().client("sagemaker", region_name="us-east-1").meta.service_model
    patterns = {model.shape_for(name).metadata.get("pattern") or "" for name in model.shape_names}
    # What repeats an end of line is none of Python's expressions; no request that runs here has it.
    named = {one for one in patterns if r"\p{" in one and "$" not in one}
    assert len(named) > 4
    assert [one for one in named if _compiled(one) is None] == []
