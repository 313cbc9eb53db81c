"""Pushes to a registry that is no stand-in: Debian's, with TLS and a password as ECR has them."""

from __future__ import annotations

import io
import json
import tarfile
import uuid

import pytest

from byoc import image_facts, manifests, pushing, repositories
from byoc.errors import CredentialsError
from byoc.manifests import MANIFEST, Registry, verify
from tests.byoc.registries import USER, debians


@pytest.fixture
def real(certificate, tmp_path):
    """Debian's docker-registry with TLS and basic authentication."""
    with debians(certificate, tmp_path) as registry:
        yield registry


@pytest.fixture
def engine(docker_cli):
    client = image_facts.engine()
    assert client is not None
    yield client
    client.close()


@pytest.fixture
def small_image(engine):
    """An image of one layer with a megabyte that does not compress."""
    import os

    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w") as tar:
        info = tarfile.TarInfo("noise")
        info.size = 1_000_000
        tar.addfile(info, io.BytesIO(os.urandom(info.size)))
    name = f"byoc-test-{uuid.uuid4().hex[:8]}"
    engine.api.import_image_from_data(
        content.getvalue(), repository=name, tag="1",
        changes=["LABEL sagemaker-byoc.cuda.version=12.8"],
    )  # fmt: skip
    yield f"{name}:1"
    for one in engine.images.list():
        for tag in one.tags:
            if name in tag:
                engine.images.remove(tag, force=True)


@pytest.mark.docker
@pytest.mark.contract(98)
def test_a_push_to_a_real_registry_is_verified_there(
    byoc, real, engine, small_image, moto, far, monkeypatch
):
    monkeypatch.setattr(repositories, "sign_in", lambda _: real)
    done = byoc("push", small_image, "--tag", "one", "--tag", "two", "--json")
    assert done.code == 0, done.err
    name = small_image.partition(":")[0]
    first, second = done.json
    assert first["image_uri"] == f"{real.host}/{name}:one"
    assert first["digest"] == second["digest"]
    assert "MB/s" in done.err or "MB in" in done.err
    assert "layers were there already" in done.err
    body, headers = manifests._get(real, f"/v2/{name}/manifests/{first['digest']}", name)
    assert headers["Content-Type"] == MANIFEST
    assert json.loads(body)["config"]["digest"] == engine.api.inspect_image(small_image)["Id"]
    seen = verify(real, name, "two")
    assert seen.labels == {"sagemaker-byoc.cuda.version": "12.8"}
    assert 1_000_000 < seen.compressed_bytes < 1_100_000


@pytest.mark.docker
def test_what_is_pushed_is_the_image_that_was_looked_at_whatever_has_its_name_now(
    real, engine, small_image
):
    image_id = engine.api.inspect_image(small_image)["Id"]
    name = small_image.partition(":")[0]
    engine.api.import_image_from_data(b"\0" * 1024, repository=name, tag="1")
    assert engine.api.inspect_image(small_image)["Id"] != image_id
    pushed = pushing.push_to(real, engine, small_image, name, "1", image_id=image_id)
    seen = verify(real, name, "1", config_digest=image_id)
    assert pushed.digest == seen.digest


@pytest.mark.docker
def test_a_push_with_a_wrong_password_is_a_credentials_error(real, engine, small_image):
    wrong = Registry(real.host, USER, "wrong", real.ca_bundle)
    with pytest.raises(CredentialsError, match="sign in again"):
        pushing.push_to(wrong, engine, small_image, small_image.partition(":")[0], "1")
