"""``byoc push``: repositories, a real registry, and manifests that SageMaker refuses."""

from __future__ import annotations

import base64
import hashlib
import http.server
import io
import json
import shutil
import socket
import ssl
import subprocess
import tarfile
import threading
import time
import uuid
from typing import Any

import pytest

from byoc import image_facts, manifests, pushing, repositories
from byoc.aws import Aws
from byoc.errors import (
    CredentialsError,
    EngineError,
    NotFoundError,
    RegistryError,
    SettingsError,
    UnreachableError,
)
from byoc.manifests import CONFIG, LAYER, LIST, MANIFEST, OCI, Registry, verify

USER, PASSWORD = "AWS", "not-a-secret"
#: PASSWORD in bcrypt, the one form that the registry takes.
HTPASSWD = f"{USER}:$2b$05$abcdefghijklmnopqrstuuVPNOToLP9MHdthRCXkVoiIF0qNKnk2G\n"


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    """A certificate for loopback, signed by itself."""
    if shutil.which("openssl") is None:
        pytest.skip("no openssl on this machine")
    folder = tmp_path_factory.mktemp("tls")
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2",
         "-keyout", folder / "key.pem", "-out", folder / "cert.pem", "-subj", "/CN=127.0.0.1",
         "-addext", "subjectAltName=IP:127.0.0.1"],
        check=True, capture_output=True,
    )  # fmt: skip
    return folder


class FakeRegistry:
    """Says what it is told to, over TLS, to who shows the right token."""

    def __init__(self, certificate) -> None:
        self.documents: dict[str, Any] = {}
        self.tokens: list[str] = []
        self.bearer = True
        fake = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                fake.answer(self)

            def log_message(self, *_: Any) -> None:
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate / "cert.pem", certificate / "key.pem")
        self.server.socket = context.wrap_socket(self.server.socket, server_side=True)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.host = f"127.0.0.1:{self.server.server_address[1]}"
        self.registry = Registry(self.host, USER, PASSWORD, str(certificate / "cert.pem"))

    def answer(self, request):
        path, _, query = request.path.partition("?")
        shown = request.headers.get("Authorization", "")
        basic = "Basic " + base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
        if path == "/token":
            if shown != basic:
                self.send(request, 401, b"{}", {})
                return
            self.tokens.append(query)
            self.send(request, 200, b'{"token": "good"}', {})
        elif shown != ("Bearer good" if self.bearer else basic):
            realm = f'Bearer realm="https://{self.host}/token",service="fake"'
            self.send(request, 401, b"", {"WWW-Authenticate": realm if self.bearer else "Basic"})
        elif path in self.documents:
            body, headers = self.documents[path]
            self.send(request, 200, body, headers)
        else:
            self.send(request, 404, b"{}", {})

    def send(self, request, status, body, headers):
        request.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            request.send_header(name, value)
        request.end_headers()
        request.wfile.write(body)

    def put(self, *, kind=MANIFEST, layer=LAYER, platform=("linux", "amd64"), **more: Any):
        """An image ``a:1``; returns its manifest's digest."""
        labels = {"sagemaker-byoc.cuda.version": "12.8"}
        config = json.dumps(
            {"os": platform[0], "architecture": platform[1], "config": {"Labels": labels}}
        ).encode()
        digest = f"sha256:{hashlib.sha256(config).hexdigest()}"
        manifest = {
            "schemaVersion": 2,
            "mediaType": kind,
            "config": {"mediaType": CONFIG, "digest": digest, "size": len(config)},
            "layers": [{"mediaType": layer, "size": 1000, "digest": "sha256:x"},
                       {"mediaType": layer, "size": 234, "digest": "sha256:y"}],
            **more,
        }  # fmt: skip
        body = json.dumps(manifest).encode()
        whole = f"sha256:{hashlib.sha256(body).hexdigest()}"
        self.documents["/v2/a/manifests/1"] = body, {
            "Content-Type": kind, "Docker-Content-Digest": whole
        }  # fmt: skip
        self.documents[f"/v2/a/blobs/{digest}"] = config, {}
        return whole, digest


@pytest.fixture
def fake(certificate):
    registry = FakeRegistry(certificate)
    yield registry
    registry.server.shutdown()
    registry.server.server_close()


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


@pytest.fixture
def real(certificate, tmp_path):
    """Debian's docker-registry with TLS and basic authentication, as ECR has it."""
    program = shutil.which("docker-registry")
    if program is None:
        pytest.skip("no docker-registry on this machine; apt-get install docker-registry")
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port = one.getsockname()[1]
    (tmp_path / "htpasswd").write_text(HTPASSWD)
    (tmp_path / "config.yml").write_text(
        f"""
version: 0.1
storage: {{filesystem: {{rootdirectory: {tmp_path / "registry"}}}}}
http:
  addr: 127.0.0.1:{port}
  tls: {{certificate: {certificate / "cert.pem"}, key: {certificate / "key.pem"}}}
auth: {{htpasswd: {{realm: test, path: {tmp_path / "htpasswd"}}}}}
"""
    )
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(
            [program, "serve", tmp_path / "config.yml"], stdout=log, stderr=log
        )
    try:
        until = time.monotonic() + 20
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                break
            except OSError:
                assert process.poll() is None, (tmp_path / "log").read_text()
                assert time.monotonic() < until, "the registry did not start"
                time.sleep(0.05)
        yield Registry(f"127.0.0.1:{port}", USER, PASSWORD, str(certificate / "cert.pem"))
    finally:
        process.terminate()
        process.wait(20)


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
