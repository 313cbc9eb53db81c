"""Which digest stands for an image that the engine has, so that deployments can be verified."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from byoc.endpoint_status import verify
from byoc.local import images

HERE = "sha256:" + "0" * 64
ONE, TWO = "sha256:" + "1" * 64, "sha256:" + "2" * 64
ECR = "123456789012.dkr.ecr.us-east-1.amazonaws.com/mine"


def chosen(monkeypatch: pytest.MonkeyPatch, name: str, *digests: str) -> images.Chosen:
    """What is chosen when the engine has the image under ECR's name, with these RepoDigests."""
    attributes = {"Id": HERE, "RepoDigests": [*digests]}
    engine: Any = SimpleNamespace(
        images=SimpleNamespace(get=lambda _: SimpleNamespace(attrs=attributes)),
        close=lambda: None,
    )
    monkeypatch.setattr(images, "_engine", lambda: engine)
    return images.choose(name, "docker")


@pytest.mark.parametrize(
    ("name", "digests", "expected"),
    [
        (f"{ECR}:1", [], HERE),
        (f"{ECR}:1", [f"{ECR}@{ONE}"], ONE),
        (f"{ECR}:1", [f"elsewhere:5000/mine@{ONE}"], ONE),
        (f"{ECR}:1", [f"elsewhere:5000/mine@{ONE}", f"{ECR}@{TWO}"], TWO),
        (f"{ECR}@{TWO}", [f"{ECR}@{ONE}", f"{ECR}@{TWO}"], TWO),
        ("elsewhere:5000/mine:1", [f"{ECR}@{ONE}", f"elsewhere:5000/mine@{TWO}"], TWO),
    ],
)
def test_the_digest_is_that_of_the_repository_that_was_asked_for(
    monkeypatch, name, digests, expected
):
    found = chosen(monkeypatch, name, *digests)
    assert found.digest == expected
    repository = name.partition("@")[0].removesuffix(":1")
    assert images.resolved(name, found.digest) == f"{repository}@{expected}"


def test_a_deployment_is_verified_by_what_is_resolved(monkeypatch):
    digest = chosen(monkeypatch, f"{ECR}:1", f"{ECR}@{ONE}").digest
    deployed = [{"ResolvedImage": images.resolved(f"{ECR}:1", digest)}]
    described = {"ProductionVariants": [{"VariantName": "a", "DeployedImages": deployed}]}
    assert verify({"a": ONE}, described) == [f"image of a verified: {ONE}"]


def test_what_a_process_stands_for_has_no_digest():
    found = images.choose(f"{ECR}:1", "process")
    assert images.resolved(f"{ECR}:1", found.digest) == f"{ECR}:1"
