"""Manifests as a registry has them: what SageMaker takes, and what it refuses."""

from __future__ import annotations

import pytest

from byoc.errors import CredentialsError, NotFoundError, RegistryError, UnreachableError
from byoc.manifests import LIST, OCI, Registry, verify
from tests.byoc.registries import PASSWORD, USER


@pytest.mark.contract(98)
def test_an_image_as_sagemaker_takes_it_is_verified(fake):
    digest, config = fake.put()
    seen = verify(fake.registry, "a", "1", config_digest=config)
    assert (seen.digest, seen.architecture, seen.layers) == (digest, "amd64", 2)
    assert seen.compressed_bytes == 1234
    assert seen.labels == {"sagemaker-byoc.cuda.version": "12.8"}
    assert "scope=repository%3Aa%3Apull" in fake.tokens[0]
    fake.bearer = False  # as ECR does it
    assert verify(fake.registry, "a", "1").digest == digest


@pytest.mark.contract(98)
@pytest.mark.parametrize(
    ("how", "said"),
    [
        ({"kind": OCI[0]}, "which SageMaker refuses"),
        ({"kind": OCI[1], "manifests": []}, "an index of several platforms"),
        ({"kind": LIST, "manifests": []}, "an index of several platforms"),
        ({"layer": "application/vnd.oci.image.layer.v1.tar+zstd"}, "gzip layers"),
        ({"layer": "application/vnd.docker.image.rootfs.diff.tar"}, "gzip layers"),
        ({"platform": ("linux", "arm64")}, "is for linux/arm64"),
        ({"platform": ("windows", "amd64")}, "is for windows/amd64"),
        ({"layers": []}, "no layers"),
        ({"schemaVersion": 1}, "which SageMaker refuses"),
    ],
)
def test_what_sagemaker_refuses_is_refused(fake, how, said):
    fake.put(**how)
    with pytest.raises(RegistryError, match=said):
        verify(fake.registry, "a", "1")


def test_another_image_and_damaged_documents_are_noticed(fake):
    _, config = fake.put()
    with pytest.raises(RegistryError, match="another image"):
        verify(fake.registry, "a", "1", config_digest="sha256:other")
    fake.documents[f"/v2/a/blobs/{config}"] = b"{}", {}
    with pytest.raises(RegistryError, match="damaged"):
        verify(fake.registry, "a", "1")
    body, headers = fake.documents["/v2/a/manifests/1"]
    fake.documents["/v2/a/manifests/1"] = body + b" ", headers
    with pytest.raises(RegistryError, match="the manifest's bytes"):
        verify(fake.registry, "a", "1")
    fake.documents["/v2/a/manifests/1"] = b"<html>", {}
    with pytest.raises(RegistryError, match="no JSON"):
        verify(fake.registry, "a", "1")


def test_a_registry_that_says_no_or_nothing(fake, certificate):
    with pytest.raises(NotFoundError, match="is not there"):
        verify(fake.registry, "a", "1")
    ca = str(certificate / "cert.pem")
    for bearer in (True, False):
        fake.bearer = bearer
        with pytest.raises(CredentialsError):
            verify(Registry(fake.host, USER, "wrong", ca), "a", "1")
    with pytest.raises(UnreachableError, match="CERTIFICATE"):
        verify(Registry(fake.host, USER, PASSWORD), "a", "1")
    with pytest.raises(UnreachableError, match="no answer"):
        verify(Registry("127.0.0.1:1", USER, PASSWORD, ca), "a", "1")
