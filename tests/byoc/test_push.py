"""``byoc push``: which images go where, and what is told of it."""

from __future__ import annotations

from typing import Any

import pytest

from byoc import image_facts, pushing
from byoc.aws import Aws
from byoc.errors import (
    CredentialsError,
    EngineError,
    RegistryError,
    SettingsError,
    UnreachableError,
)


class FakeEngine:
    """An engine with one image."""

    def __init__(self, **image: Any) -> None:
        self.image = {"Os": "linux", "Architecture": "amd64", "Id": "sha256:1", **image}
        self.tags: list[tuple[str, ...]] = []
        self.api = self

    def inspect_image(self, name):
        import docker

        if not name.startswith(("mine", "sagemaker-byoc")):
            raise docker.errors.ImageNotFound("no such image")
        return self.image

    def tag(self, *words: str, force):
        self.tags.append(words)

    def close(self):
        pass


def test_against_the_local_endpoint_the_image_gets_its_name_and_nothing_is_uploaded(
    byoc, moto, aws, monkeypatch
):
    engine = FakeEngine()
    monkeypatch.setattr(image_facts, "engine", lambda *_: engine)
    done = byoc("push", "mine:3", "--tag", "a", "--tag", "b")
    assert done.code == 0, done.err
    host = "123456789012.dkr.ecr.eu-central-1.amazonaws.com"
    assert engine.tags == [("mine:3", f"{host}/mine", "a"), ("mine:3", f"{host}/mine", "b")]
    assert "nothing was uploaded" in done.out
    assert f"image_uri {host}/mine:a" in done.out
    assert aws.call("ecr", "DescribeRepositories")["repositories"][0]["repositoryName"] == "mine"


@pytest.mark.parametrize(
    ("image", "repository", "tag"),
    [
        ("localhost:5000/mine:1", "mine", "1"),
        ("localhost:5000/team/mine", "team/mine", "latest"),
        ("123456789012.dkr.ecr.eu-central-1.amazonaws.com/mine:2", "mine", "2"),
        ("team/mine:3", "team/mine", "3"),
        (f"mine:4@sha256:{'0' * 64}", "mine", "4"),
    ],
)
def test_the_repository_of_a_full_name_is_without_host_port_and_tag(
    byoc, monkeypatch, image, repository, tag
):
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    engine = FakeEngine()
    monkeypatch.setattr(engine, "inspect_image", lambda _: engine.image)
    monkeypatch.setattr(image_facts, "engine", lambda *_: engine)
    planned = byoc.planned("push", image)
    assert planned[0]["request"] == {"repositoryNames": [repository]}
    (pushed,) = pushing.push(Aws("eu-central-1", dry_run=True), image)
    assert pushed.image_uri.endswith(f".amazonaws.com/{repository}:{tag}")


def test_an_image_that_a_digest_names_needs_a_tag(byoc):
    done = byoc("push", f"mine@sha256:{'0' * 64}", "--dry-run")
    assert done.code == SettingsError.exit_code
    assert "--tag" in done.err


def test_the_tags_of_an_image_are_those_of_its_own_repository(monkeypatch):
    names = ["localhost:5000/mine:1", "localhost:5000/mine:2", "mine:3", "localhost:5000/other:4"]
    engine = FakeEngine(RepoTags=names)
    monkeypatch.setattr(engine, "inspect_image", lambda _: engine.image)
    monkeypatch.setattr(image_facts, "engine", lambda *_: engine)
    assert pushing.tags_of("localhost:5000/mine:1") == ["2", "1"]


def test_both_images_go_with_all_their_tags_and_latest_stays_back_where_tags_are_immutable(
    byoc, moto, monkeypatch
):
    tags = [f"sagemaker-byoc-{kind}:{tag}" for kind in ("training", "inference")
            for tag in ("abc", "latest")]  # fmt: skip
    monkeypatch.setattr(image_facts, "engine", lambda *_: FakeEngine(RepoTags=tags))
    uris = [one["image_uri"].rpartition("/")[2] for one in byoc("push", "--json").json]
    assert uris == [
        "sagemaker-byoc-training:abc", "sagemaker-byoc-training:latest",
        "sagemaker-byoc-inference:abc", "sagemaker-byoc-inference:latest",
    ]  # fmt: skip
    uris = [
        one["image_uri"].rpartition("/")[2] for one in byoc("push", "--immutable", "--json").json
    ]
    assert uris == ["sagemaker-byoc-training:abc", "sagemaker-byoc-inference:abc"]
    del tags[::2]
    done = byoc("push", "--immutable")
    assert done.code == SettingsError.exit_code
    assert "--tag" in done.err


def test_images_that_cannot_be_pushed_are_refused_before_any_call(byoc, monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    monkeypatch.setattr(image_facts, "engine", lambda *_: None)
    assert byoc("push", "mine").code == EngineError.exit_code
    monkeypatch.setattr(image_facts, "engine", lambda *_: FakeEngine(Architecture="arm64"))
    done = byoc("push", "mine")
    assert done.code == RegistryError.exit_code
    assert "linux/arm64" in done.err
    done = byoc("push", "other")
    assert done.code == EngineError.exit_code
    assert "make build" in done.err
    assert byoc("push", "a", "b", "--repository", "c").code == SettingsError.exit_code


@pytest.mark.parametrize(
    ("said", "kind"),
    [
        ("denied: User is not authorized to perform: ecr:PutImage", CredentialsError),
        ("tag invalid: The image tag '1' already exists and is immutable", RegistryError),
        ("dial tcp: lookup x: no such host", UnreachableError),
        ("blob upload unknown", RegistryError),
    ],
)
def test_what_the_engine_says_of_a_push_is_told_in_a_line(said, kind):
    nobody: Any = None
    layers = pushing._Layers(nobody, "r/a:1")
    with pytest.raises(kind, match="r/a:1"):
        layers.follow({"error": said})
