"""An image as a registry has it: read over HTTP, and held to what SageMaker takes.

SageMaker's hosting takes Docker's own manifest (schema 2) with gzip layers and one platform; it
refuses OCI's media types and indexes (contract section 15).
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
import ssl
import urllib.error
import urllib.parse
import urllib.request
from dataclasses import dataclass
from typing import Any

from byoc.errors import CredentialsError, NotFoundError, RegistryError, UnreachableError

MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
LIST = "application/vnd.docker.distribution.manifest.list.v2+json"
CONFIG = "application/vnd.docker.container.image.v1+json"
LAYER = "application/vnd.docker.image.rootfs.diff.tar.gzip"
OCI = ("application/vnd.oci.image.manifest.v1+json", "application/vnd.oci.image.index.v1+json")
#: The largest layer (ECR's quota), and the largest manifest or configuration that is read.
LAYER_BYTES, DOCUMENT_BYTES = 52_000 * 2**20, 4 * 2**20
_SECONDS = 30
_REBUILD = (
    "build it as one plain image: byoc build, or docker buildx build --platform linux/amd64 "
    "--provenance=false --sbom=false --output type=docker,oci-mediatypes=false"
)


@dataclass(frozen=True)
class Registry:
    """A registry and how to sign in.

    Attributes:
        host: With its port, if it has one.
        user: ``AWS`` for ECR.
        password: ECR's token, without the user.
        ca_bundle: Certificates to trust; None: the system's.
    """

    host: str
    user: str = ""
    password: str = ""
    ca_bundle: str | None = None


@dataclass(frozen=True)
class Verified:
    """An image that SageMaker takes.

    Attributes:
        digest: ``sha256:…`` of its manifest.
        architecture: ``amd64``.
        compressed_bytes: Of all layers.
        layers: How many.
        labels: Of its configuration.
        config_digest: ``sha256:…`` of its configuration: the engine's id of the image.
    """

    digest: str
    architecture: str
    compressed_bytes: int
    layers: int
    labels: dict[str, str]
    config_digest: str


def verify(
    registry: Registry, repository: str, reference: str, *, config_digest: str | None = None
) -> Verified:
    """Read an image's manifest and configuration, and raise unless SageMaker takes it.

    Args:
        registry: Where.
        repository: Its name.
        reference: A tag or a digest.
        config_digest: The id of the image that should be there.

    Raises:
        RegistryError: It is in a form that SageMaker refuses, or another image.
        NotFoundError: It is not there.
        CredentialsError: The registry does not let us look.
        UnreachableError: The registry does not answer.
    """
    name = f"{registry.host}/{repository}:{reference}"
    body, headers = _get(registry, f"/v2/{repository}/manifests/{reference}", repository)
    digest = f"sha256:{hashlib.sha256(body).hexdigest()}"
    said = headers.get("Docker-Content-Digest", digest)
    if said != digest:
        raise RegistryError(
            f"{name}: the registry says {said}, the manifest's bytes {digest}; push again"
        )
    manifest = _document(body, name)
    kind = str(manifest.get("mediaType") or headers.get("Content-Type", ""))
    _check(name, kind, manifest)
    layers, config = manifest["layers"], manifest["config"]
    content, _ = _get(registry, f"/v2/{repository}/blobs/{config['digest']}", repository)
    if f"sha256:{hashlib.sha256(content).hexdigest()}" != config["digest"]:
        raise RegistryError(f"{name}: its configuration arrived damaged; push again")
    if config_digest is not None and config["digest"] != config_digest:
        raise RegistryError(
            f"{name} is another image ({config['digest']}); somebody moved the tag: push again"
        )
    configuration = _document(content, name)
    platform = f"{configuration.get('os')}/{configuration.get('architecture')}"
    if platform != "linux/amd64":
        raise RegistryError(f"{name} is for {platform}; SageMaker runs linux/amd64: {_REBUILD}")
    labels = (configuration.get("config") or {}).get("Labels") or {}
    size = sum(int(layer["size"]) for layer in layers)
    return Verified(digest, "amd64", size, len(layers), labels, config["digest"])


def _check(name: str, kind: str, manifest: dict[str, Any]) -> None:
    if kind in (LIST, OCI[1]) or "manifests" in manifest:
        raise RegistryError(
            f"{name} is an index of several platforms ({kind}), which SageMaker refuses; {_REBUILD}"
        )
    if kind != MANIFEST or manifest.get("schemaVersion") != 2:
        raise RegistryError(
            f"{name} has a manifest of type {kind}, which SageMaker refuses; {_REBUILD}"
        )
    layers, config = manifest.get("layers") or [], manifest.get("config") or {}
    if not layers or config.get("mediaType") != CONFIG:
        raise RegistryError(f"{name} has no layers or no image's configuration; push again")
    for layer in layers:
        if layer.get("mediaType") != LAYER:
            raise RegistryError(
                f"{name} has a layer of type {layer.get('mediaType')}; SageMaker takes gzip layers "
                f"alone; {_REBUILD}"
            )
        if int(layer.get("size", 0)) > LAYER_BYTES:
            raise RegistryError(
                f"{name} has a layer of {layer['size']:,} bytes; ECR takes {LAYER_BYTES:,}"
            )


def _get(registry: Registry, path: str, repository: str) -> tuple[bytes, Any]:
    """A document; signs in as the registry asks for it, as Docker's clients do."""
    url = f"https://{registry.host}{path}"
    pair = base64.b64encode(f"{registry.user}:{registry.password}".encode()).decode()
    authorization = f"Basic {pair}" if registry.user else ""
    for attempt in (1, 2):
        try:
            return _fetch(registry, url, authorization)
        except urllib.error.HTTPError as error:  # noqa: PERF203 - two turns
            with error:
                asked = error.headers.get("WWW-Authenticate", "")
            if error.code == 401 and attempt == 1 and asked.lower().startswith("bearer "):
                authorization = _token(registry, asked, repository, authorization)
                continue
            if error.code in (401, 403):
                raise CredentialsError(
                    f"{registry.host} does not let {registry.user or 'nobody'} read {repository} "
                    f"({error.code}); sign in to AWS again, or ask for ecr:BatchGetImage"
                ) from error
            if error.code == 404:
                raise NotFoundError(f"{registry.host}{path} is not there; push again") from error
            raise RegistryError(f"{url} answered {error.code}; try again") from error
        except OSError as error:
            reason = getattr(error, "reason", error)
            raise UnreachableError(
                f"no answer from {registry.host} ({reason}); check the network, and SSL_CERT_FILE "
                "behind a proxy with its own certificate"
            ) from error
    raise AssertionError  # the second attempt returns or raises


def _token(registry: Registry, asked: str, repository: str, basic: str) -> str:
    """A bearer token from the place that the registry names."""
    fields = dict(re.findall(r'(\w+)="([^"]*)"', asked))
    realm = fields.get("realm", "")
    if not realm.startswith("https://"):
        raise RegistryError(
            f"{registry.host} wants a token from {realm!r}, which is no https address"
        )
    words = {"service": fields.get("service", ""), "scope": f"repository:{repository}:pull"}
    try:
        body, _ = _fetch(registry, f"{realm}?{urllib.parse.urlencode(words)}", basic)
    except urllib.error.HTTPError as error:
        error.close()
        raise CredentialsError(f"{realm} gives {registry.user} no token ({error.code})") from error
    answer = _document(body, realm)
    return f"Bearer {answer.get('token') or answer.get('access_token')}"


def _fetch(registry: Registry, url: str, authorization: str) -> tuple[bytes, Any]:
    request = urllib.request.Request(url)  # noqa: S310 - https, see above
    request.add_header("Accept", ", ".join((MANIFEST, LIST, *OCI)))
    if authorization:
        # Not sent on to where a registry redirects to: that link carries its own signature.
        request.add_unredirected_header("Authorization", authorization)
    bundle = registry.ca_bundle or os.environ.get("AWS_CA_BUNDLE") or None
    context = ssl.create_default_context(cafile=bundle)
    with urllib.request.urlopen(request, timeout=_SECONDS, context=context) as response:  # noqa: S310
        return response.read(DOCUMENT_BYTES), response.headers


def _document(body: bytes, name: str) -> dict[str, Any]:
    try:
        found = json.loads(body)
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise RegistryError(
            f"{name}: the registry answered with something that is no JSON; try again"
        )
    return found
