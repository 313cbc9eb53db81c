"""What an image is made of: its layers, their sizes in the engine and in a registry."""

from __future__ import annotations

import json
import os
import re
import subprocess
import tarfile
import zlib
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import IO, TYPE_CHECKING

from byoc.errors import EngineError

if TYPE_CHECKING:
    from byoc.engine import Engine

CHUNK_BYTES = 4 * 1024 * 1024
#: A tar archive without entries: what an instruction leaves that changes nothing.
EMPTY_TAR_BYTES = 1536


@dataclass(frozen=True)
class Layer:
    """A layer of an image.

    Attributes:
        instruction: the Dockerfile instruction that made it, on one line.
        size_bytes: bytes on disk.
        compressed_bytes: bytes in a registry (gzip); None when not measured.
    """

    instruction: str
    size_bytes: int
    compressed_bytes: int | None = None


def layers(engine: Engine, reference: str) -> tuple[Layer, ...]:
    """The layers of an image that hold anything, lowest first.

    Raises:
        EngineError: the engine has no such image.
    """
    output = engine.run(
        "history", "--no-trunc", "--human=false", "--format", "{{json .}}", reference
    )
    rows = [json.loads(line) for line in output.splitlines() if line.strip()]
    found = (Layer(instruction(row["CreatedBy"]), int(row["Size"])) for row in reversed(rows))
    return tuple(layer for layer in found if layer.size_bytes > 0)


def instruction(created_by: str) -> str:
    """A history entry on one line, without BuildKit's decoration.

    A step of this project's Dockerfiles begins with ``: "NAME";``, which stands for it here.
    """
    text = re.sub(r"\s+# buildkit$", "", created_by.strip())
    text = re.sub(r"^RUN \|\d+ ((?!/bin/sh).)*/bin/sh -c ", "RUN ", text)
    text = re.sub(r"^/bin/sh -c #\(nop\)\s+", "", text)
    text = re.sub(r"^(RUN )?/bin/sh -c ", "RUN ", text)
    text = re.sub(r"\s+", " ", text)
    named = re.match(r'RUN : "([^"]+)";', text)
    return named[1] if named else text or "base image"


def measure_compressed(
    engine: Engine, reference: str, of_layers: tuple[Layer, ...]
) -> tuple[Layer, ...]:
    """The same layers with their gzip-compressed sizes.

    The image is streamed out of the engine and compressed on the way; neither memory nor disk
    holds more than a few chunks. Chunks are compressed apart, on all cores, which counts about
    0.3 % more than the one stream that a registry gets.

    Raises:
        EngineError: the engine cannot save the image, or its layers are not those expected.
    """
    sizes = compressed_sizes(engine, reference)
    if len(sizes) != len(of_layers):
        raise EngineError(
            f"{reference} was saved with {len(sizes)} layers, its history has {len(of_layers)}; "
            "build again without --compressed"
        )
    return tuple(
        replace(layer, compressed_bytes=size) for layer, size in zip(of_layers, sizes, strict=True)
    )


def compressed_sizes(engine: Engine, reference: str) -> list[int]:
    """Gzip-compressed bytes of each layer that holds anything, lowest first."""
    by_path: dict[str, int] = {}
    links: dict[str, str] = {}
    order: list[str] = []
    with subprocess.Popen(
        [engine.cli, "save", reference], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as saving:
        assert saving.stdout is not None  # noqa: S101 - a pipe was asked for
        assert saving.stderr is not None  # noqa: S101
        try:
            with (
                ThreadPoolExecutor(os.cpu_count() or 1) as pool,
                tarfile.open(fileobj=saving.stdout, mode="r|") as archive,
            ):
                for member in archive:
                    if member.issym() or member.islnk():
                        folder = os.path.dirname(member.name)  # noqa: PTH120 - names inside an archive
                        links[member.name] = os.path.normpath(
                            os.path.join(folder, member.linkname)  # noqa: PTH118
                        )
                        continue
                    content = archive.extractfile(member)
                    if content is None:
                        continue
                    if member.name == "manifest.json":
                        order = list(json.load(content)[0]["Layers"])
                    elif member.size > EMPTY_TAR_BYTES and not member.name.endswith(".json"):
                        by_path[member.name] = _compressed_bytes(content, pool)
        except tarfile.ReadError:
            order = []  # cut short; the client's own message says why
        message = saving.stderr.read().decode(errors="replace").strip()
    if saving.returncode != 0 or not order:
        raise EngineError(f"docker save {reference} failed: {message or 'no manifest'}")
    paths = (links.get(path, path) for path in order)
    return [by_path[path] for path in paths if path in by_path]


def _compressed_bytes(content: IO[bytes], pool: ThreadPoolExecutor) -> int:
    """Bytes of a stream after gzip at its usual level; a stream that is gzip already is counted."""
    total = 0
    waiting: deque[Future[int]] = deque()
    already = None
    while chunk := content.read(CHUNK_BYTES):
        if already is None:
            already = chunk.startswith(b"\x1f\x8b")
        if already:
            total += len(chunk)
            continue
        if len(waiting) > 2 * (os.cpu_count() or 1):
            total += waiting.popleft().result()
        waiting.append(pool.submit(_deflated_bytes, chunk))
    return total + sum(future.result() for future in waiting)


def _deflated_bytes(chunk: bytes) -> int:
    return len(zlib.compress(chunk, 6))
