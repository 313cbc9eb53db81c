"""Repositories of ECR: made once, and asked about their images."""

from __future__ import annotations

import json

import pytest

from byoc import image_facts, repositories
from byoc.errors import SettingsError


def test_a_repository_is_made_once_scanned_with_a_rule(aws):
    for _ in range(2):
        repositories.ensure(aws, "team/mine", immutable=True)
    found = aws.call("ecr", "DescribeRepositories", {"repositoryNames": ["team/mine"]})
    (repository,) = found["repositories"]
    assert repository["imageScanningConfiguration"] == {"scanOnPush": True}
    assert repository["imageTagMutability"] == "IMMUTABLE"
    policy = aws.call("ecr", "GetLifecyclePolicy", {"repositoryName": "team/mine"})
    (rule,) = json.loads(policy["lifecyclePolicyText"])["rules"]
    assert rule["selection"]["tagStatus"] == "untagged", "what an endpoint may run is never removed"
    registry = repositories.sign_in(aws)
    assert registry is not None
    assert registry.user == "AWS"


@pytest.mark.parametrize("name", ["A", "a b", "-a", "a", "a//b", "x" * 300])
def test_what_is_no_repository_is_refused(aws, name):
    with pytest.raises(SettingsError, match="is no repository"):
        repositories.ensure(aws, name)


def test_the_registry_says_digest_size_and_labels(aws, moto, fake):
    repositories.ensure(aws, "mine")
    fake.put()
    body, _ = fake.documents["/v2/a/manifests/1"]
    put = {"repositoryName": "mine", "imageManifest": body.decode(), "imageTag": "1"}
    digest = aws.call("ecr", "PutImage", put)["image"]["imageId"]["imageDigest"]
    uri = aws.image_uri("mine:1")
    facts = image_facts.in_registry(aws, uri)
    assert (facts.source, facts.digest, facts.compressed_bytes) == ("ECR", digest, 1234)
    same = image_facts.in_registry(aws, f"{uri.partition(':')[0]}@{digest}")
    assert same.digest == digest
    assert image_facts.in_registry(aws, aws.image_uri("mine:2")).source == "nothing"
    assert image_facts.in_registry(aws, "elsewhere/mine:1").source == "nothing"
