"""Build the two images from the repository, and hold their sizes to a budget."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from byoc import engine as engines
from byoc.buildkit import BuildOptions, command_line, have_base, have_disk, run
from byoc.checkout import budget_bytes, repository, revision
from byoc.errors import BudgetError, BuildError
from byoc.lanes import KINDS, LANES, Kind, tags
from byoc.layers import Layer, layers, measure_compressed

if TYPE_CHECKING:
    from byoc.engine import Engine

__all__ = ["KINDS", "LANES", "BuildOptions", "BuiltImage", "Kind", "build", "tags"]


@dataclass(frozen=True)
class BuiltImage:
    """An image in the engine.

    Attributes:
        kind: ``training`` or ``inference``.
        tags: its names, the most exact first.
        image_id: ``sha256:...``, digest of its configuration.
        layers: lowest first.
        base_bytes: how many of its bytes are the base image's.
        budget_bytes: how many bytes may lie on top of the base; None when no budget is kept.
        build_seconds: wall time of the build.
    """

    kind: Kind
    tags: tuple[str, ...]
    image_id: str
    layers: tuple[Layer, ...]
    base_bytes: int
    budget_bytes: int | None
    build_seconds: float

    @property
    def size_bytes(self) -> int:
        """Bytes on disk."""
        return sum(layer.size_bytes for layer in self.layers)

    @property
    def added_bytes(self) -> int:
        """Bytes on top of the base image: what the budget bounds."""
        return self.size_bytes - self.base_bytes

    @property
    def compressed_bytes(self) -> int | None:
        """Bytes in a registry; None when not measured."""
        sizes = [layer.compressed_bytes for layer in self.layers]
        return None if None in sizes else sum(size for size in sizes if size is not None)

    def check_budget(self) -> None:
        """Raise unless the image is within its budget.

        Raises:
            BudgetError: it is not; says by how much.
        """
        if self.budget_bytes is None or self.added_bytes <= self.budget_bytes:
            return
        raise BudgetError(
            f"{self.tags[0]} adds {self.added_bytes:,} bytes to its base image, "
            f"{self.added_bytes - self.budget_bytes:,} more than the budget of "
            f"{self.budget_bytes:,}; take something out, or raise docker/budget.json "
            "with the reason in the commit"
        )


def build(options: BuildOptions | None = None, engine: Engine | None = None) -> list[BuiltImage]:
    """Build the images, through the engine's cache.

    Args:
        options: what to build and how.
        engine: the Docker client to use; found when None.

    Returns:
        The images; ``check_budget`` is the caller's to call.

    Raises:
        EngineError: no engine that can build.
        BuildError: a base image that cannot be had, a disk too full, or a step that failed.
    """
    options = options or BuildOptions()
    engine = engine or engines.find()
    for file in (options.ca_bundle, options.pip_config):
        if file is not None and not file.is_file():
            raise BuildError(f"{file} is no file; name a readable one or leave the option out")
    root = repository()
    source = revision(root)
    have_disk(engine, options)
    have_base(engine, options.base)
    base_bytes = int(engine.run("image", "inspect", "--format", "{{.Size}}", options.base))
    built = []
    for kind in options.kinds:
        names = tags(kind, options.lane, options.tag or source.name)
        started = time.monotonic()
        run(command_line(engine, root, kind, names, options, source), options.progress)
        seconds = time.monotonic() - started
        parts = layers(engine, names[0])
        if options.compressed:
            parts = measure_compressed(engine, names[0], parts)
        image_id = engine.run("image", "inspect", "--format", "{{.Id}}", names[0]).strip()
        budget = None if options.keep_triton else budget_bytes(root, options.lane, kind)
        built.append(BuiltImage(kind, names, image_id, parts, base_bytes, budget, seconds))
    return built
