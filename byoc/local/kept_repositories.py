"""ECR's repositories: moto holds them in memory, so what they are is kept in a file.

Images are the engine's, and not kept here.
"""

from __future__ import annotations

import datetime as dt
import functools
import json
import threading
from typing import TYPE_CHECKING, Any

from byoc.local.arns import ACCOUNT

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

_CHANGES = (
    "create_repository",
    "delete_repository",
    "put_image_scanning_configuration",
    "put_image_tag_mutability",
    "put_lifecycle_policy",
    "delete_lifecycle_policy",
)
#: Attributes of moto's repositories, JSON all of them.
_KEPT = (
    "encryption_configuration",
    "image_scanning_configuration",
    "image_tag_mutability",
    "image_tag_mutability_exclusion_filters",
    "lifecycle_policy",
)


def prepare(file: Path) -> None:
    """Read the repositories of earlier servers, and have every change written from now on."""
    from moto.ecr.models import ECRBackend, ecr_backends  # noqa: PLC0415 - heavy

    if file.is_file():
        for region, repositories in json.loads(file.read_text()).items():
            for name, facts in repositories.items():
                _restore(ecr_backends[ACCOUNT][region], name, facts)
    lock = threading.Lock()

    def write() -> None:
        with lock:  # and what is read is what stands when it is written
            found = {
                region: {name: _facts(one) for name, one in [*backend.repositories.items()]}
                for region, backend in [*ecr_backends[ACCOUNT].items()]
            }
            part = file.with_name(f"{file.name}.part")
            part.write_text(json.dumps(found, indent=1))
            part.replace(file)

    for change in _CHANGES:
        setattr(ECRBackend, change, _then(getattr(ECRBackend, change), write))


def _then(function: Callable[..., Any], write: Callable[[], None]) -> Callable[..., Any]:
    @functools.wraps(function)
    def changed(*arguments: Any, **words: Any) -> Any:
        answer = function(*arguments, **words)
        write()
        return answer

    return changed


def _facts(repository: Any) -> dict[str, Any]:
    kept = {attribute: getattr(repository, attribute) for attribute in _KEPT}
    return {"created_at": repository.created_at.isoformat(), **kept}


def _restore(backend: Any, name: str, facts: dict[str, Any]) -> None:
    repository = backend.create_repository(
        repository_name=name,
        registry_id=None,
        encryption_config=None,
        image_scan_config=None,
        image_tag_mutability=None,
        tags=[],
    )
    repository.created_at = dt.datetime.fromisoformat(facts["created_at"])
    for attribute in _KEPT:
        setattr(repository, attribute, facts[attribute])
