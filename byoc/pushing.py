"""Images to ECR: repository, login, layers, and a look at what has arrived."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from byoc import image_facts, repositories
from byoc.errors import (
    CredentialsError,
    EngineError,
    RegistryError,
    SettingsError,
    UnreachableError,
)
from byoc.manifests import Registry, verify
from byoc.partitions import image_name
from byoc.partitions import registry as registry_of
from byoc.report import SILENT

if TYPE_CHECKING:
    from collections.abc import Sequence

    from byoc.aws import Aws
    from byoc.manifests import Verified
    from byoc.report import Report, Transfer

#: A push of some gigabytes over a slow line.
ENGINE_SECONDS = 3600
_NO_ENGINE = "no Docker engine answers; start it: systemctl start docker"


@dataclass(frozen=True)
class Pushed:
    """An image in the registry.

    Attributes:
        image_uri: ``ACCOUNT.dkr.ecr.REGION.SUFFIX/REPOSITORY:TAG``.
        digest: ``sha256:…`` of the manifest; None where nothing was uploaded.
        verified: What was seen there; None where nothing was uploaded.
    """

    image_uri: str
    digest: str | None = None
    verified: Verified | None = None


def push(
    aws: Aws,
    image: str,
    *,
    repository: str | None = None,
    tags: Sequence[str] = (),
    immutable: bool = False,
    report: Report = SILENT,
) -> list[Pushed]:
    """Push an image of this machine's engine to the account's registry.

    Against the local endpoint nothing is uploaded: the image gets its ECR name in the engine, and
    the repository is made.

    Args:
        aws: Where.
        image: Its name in the engine.
        repository: Its name in ECR; default: that of the image, without a registry's host.
        tags: Default: that of the image.
        immutable: Whether a repository that is made lets a tag be given once only.
        report: Is told, and shows each layer.

    Returns:
        One for each tag.

    Raises:
        EngineError: No engine answers, or it has no such image.
        SettingsError: The image has a digest for a name, and there are no tags.
        RegistryError: The image is for another platform, the push failed, or what arrived is in
            a form that SageMaker refuses.
        ByocError: AWS refuses.
    """
    name = image_name(image)
    if name.digest and not (tags or name.tag):
        raise SettingsError(f"{image} is named by its digest; say the tag that it gets: --tag TAG")
    repository, tags = repository or name.repository, tags or [name.tag or "latest"]
    client = image_facts.engine(ENGINE_SECONDS)
    if client is None:
        raise EngineError(_NO_ENGINE)
    try:
        image_id = _checked(client, image)
        repositories.ensure(aws, repository, immutable=immutable, report=report)
        if aws.local:
            return [_name_only(aws, client, image, repository, one, report) for one in tags]
        registry = repositories.sign_in(aws)
        host = registry.host if registry else registry_of(aws.account, aws.region)
        if registry is None:
            return [Pushed(f"{host}/{repository}:{one}") for one in tags]
        return [
            push_to(registry, client, image, repository, one, image_id=image_id, report=report)
            for one in tags
        ]
    finally:
        client.close()


def push_to(
    registry: Registry,
    client: Any,
    image: str,
    repository: str,
    tag: str,
    *,
    image_id: str | None = None,
    report: Report = SILENT,
) -> Pushed:
    """Push to a registry, and verify what has arrived.

    Args:
        registry: Where.
        client: Docker's.
        image: Its name in the engine.
        repository: Its name in the registry.
        tag: In the registry.
        image_id: The engine's id, which the registry's configuration must have.
        report: Shows each layer.

    Raises:
        RegistryError: The push failed, or SageMaker would refuse what has arrived.
        CredentialsError: The registry does not let us.
        UnreachableError: It does not answer.
    """
    import docker  # noqa: PLC0415 - heavy

    target = f"{registry.host}/{repository}"
    try:
        # By its id: the name may be given to another image while gigabytes are on their way.
        client.api.tag(image_id or image, target, tag, force=True)
        events = client.api.push(
            target,
            tag,
            stream=True,
            decode=True,
            auth_config={"username": registry.user, "password": registry.password},
        )
        with report.transfer(f"push {repository}:{tag}") as transfer:
            layers = _Layers(transfer, f"{target}:{tag}")
            for event in events:
                layers.follow(event)
        if layers.there:
            report.say(f"  {layers.there} layers were there already")
    except docker.errors.APIError as error:
        raise RegistryError(f"docker push {target}:{tag} failed: {error.explanation}") from error
    except (docker.errors.DockerException, OSError, json.JSONDecodeError) as error:
        raise EngineError(f"the Docker engine broke off the push ({error}); try again") from error
    seen = verify(registry, repository, tag, config_digest=image_id)
    uri = f"{target}:{tag}"
    report.say(
        f"verified  Docker schema 2, linux/{seen.architecture}, {seen.layers} gzip layers, "
        f"{seen.compressed_bytes / 1e9:.2f} GB, {seen.digest}"
    )
    return Pushed(uri, seen.digest, seen)


def tags_of(image: str) -> list[str]:
    """The tags under which the engine has the same image, that of ``image`` the last.

    Raises:
        EngineError: No engine answers, or it has no such image.
    """
    client = image_facts.engine()
    if client is None:
        raise EngineError(_NO_ENGINE)
    try:
        found = _inspected(client, image)
    finally:
        client.close()
    own = image_name(image).tag
    name = image.removesuffix(f":{own}")
    all_names = (one.rpartition(":") for one in found.get("RepoTags") or ())
    others = [tag for repository, _, tag in all_names if repository == name and tag != own]
    return [*others, own or "latest"]


def _checked(client: Any, image: str) -> str:
    """The image's id, if it is for the platform that SageMaker runs."""
    found = _inspected(client, image)
    platform = f"{found.get('Os')}/{found.get('Architecture')}"
    if platform != "linux/amd64":
        raise RegistryError(
            f"{image} is for {platform}; SageMaker runs linux/amd64: build it with --platform "
            "linux/amd64, as byoc build does"
        )
    return str(found["Id"])


def _inspected(client: Any, image: str) -> dict[str, Any]:
    import docker  # noqa: PLC0415 - heavy

    try:
        found: dict[str, Any] = client.api.inspect_image(image)
    except docker.errors.ImageNotFound:
        raise EngineError(f"the engine has no image {image}; build it: make build") from None
    except (docker.errors.DockerException, OSError) as error:
        raise EngineError(f"the Docker engine does not answer ({error})") from error
    return found


def _name_only(
    aws: Aws, client: Any, image: str, repository: str, tag: str, report: Report
) -> Pushed:
    host = registry_of(aws.account, aws.region)
    if not aws.dry_run:
        client.api.tag(image, f"{host}/{repository}", tag, force=True)
        report.say(
            f"{image} is {host}/{repository}:{tag} now; nothing was uploaded, as the local "
            "endpoint runs the engine's own images"
        )
    return Pushed(f"{host}/{repository}:{tag}")


class _Layers:
    """What the engine tells of a push, a layer at a time."""

    def __init__(self, transfer: Transfer, target: str) -> None:
        self._transfer, self._target = transfer, target
        self._sizes: dict[str, int] = {}
        self.there = 0

    def follow(self, event: dict[str, Any]) -> None:
        """Show an event; raise when it says that the push has failed."""
        if "error" in event:
            raise _failed(str(event["error"]), self._target)
        layer, status = str(event.get("id", "")), str(event.get("status", ""))
        detail = event.get("progressDetail") or {}
        if status == "Pushing" and detail.get("current"):
            done = int(detail["current"])
            # Bytes before compression; what is sent may be a little more than the engine foresaw.
            total = max(done + 1, int(detail.get("total") or 0))
            self._sizes[layer] = total
            self._transfer.update(layer, done, total)
        elif status == "Pushed" and layer in self._sizes:
            self._transfer.update(layer, self._sizes[layer], self._sizes[layer])
        elif status == "Layer already exists":
            self.there += 1


def _failed(message: str, target: str) -> Exception:
    line = " ".join(message.split())
    if "already exists" in line and "immutable" in line:
        return RegistryError(
            f"{target} is there already and its tags are immutable; give another --tag"
        )
    if "denied" in line or "authoriz" in line or "no basic auth" in line:
        return CredentialsError(f"the registry refuses {target}: {line}; sign in again, or ask for "
                                "ecr:PutImage and ecr:InitiateLayerUpload")  # fmt: skip
    if "dial tcp" in line or "timeout" in line or "no such host" in line:
        return UnreachableError(f"the registry of {target} does not answer: {line}")
    return RegistryError(f"docker push {target} failed: {line}; try again")
