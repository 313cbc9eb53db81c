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
from typing import IO, TYPE_CHECKING, Any

from byoc.errors import EngineError

if TYPE_CHECKING:
    from byoc.engine import Engine

CHUNK_BYTES = 4 * 1024 * 1024


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
    remaining = deque(of_layers)
    measured: list[Layer] = []
    for made_by, size in compressed_sizes(engine, reference):
        # Others are layers without content, which are not among those of interest.
        if remaining and remaining[0].instruction == made_by:
            measured.append(replace(remaining.popleft(), compressed_bytes=size))
    if remaining:
        raise EngineError(
            f"{reference} was saved without its layer {remaining[0].instruction!r}; "
            "build again without --compressed"
        )
    return tuple(measured)


def compressed_sizes(engine: Engine, reference: str) -> list[tuple[str, int]]:
    """The instruction and the gzip-compressed bytes of each layer, lowest first.

    Raises:
        EngineError: the engine cannot save the image.
    """
    sizes: dict[str, int] = {}
    links: dict[str, str] = {}
    documents: dict[str, Any] = {}
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
                        links[member.name] = _target(member)
                    elif (content := archive.extractfile(member)) is not None:
                        first = content.read(CHUNK_BYTES)
                        if first[:1] in (b"{", b"["):
                            documents[member.name] = json.loads(first)
                        else:
                            sizes[member.name] = _compressed_bytes(first, content, pool)
        except (tarfile.ReadError, ValueError):
            documents = {}  # cut short; the client's own message says why
        message = saving.stderr.read().decode(errors="replace").strip()
    if saving.returncode != 0 or "manifest.json" not in documents:
        raise EngineError(f"docker save {reference} failed: {message or 'no manifest'}")
    manifest = documents["manifest.json"][0]
    history = documents[manifest["Config"]]["history"]
    made_by = [row.get("created_by", "") for row in history if not row.get("empty_layer")]
    paths = (links.get(path, path) for path in manifest["Layers"])
    return [(instruction(text), sizes[path]) for text, path in zip(made_by, paths, strict=True)]


def _target(link: tarfile.TarInfo) -> str:
    """The name of the member that a link in an archive stands for."""
    folder = os.path.dirname(link.name) if link.issym() else ""  # noqa: PTH120 - no path here
    return os.path.normpath(os.path.join(folder, link.linkname))  # noqa: PTH118


def _compressed_bytes(chunk: bytes, content: IO[bytes], pool: ThreadPoolExecutor) -> int:
    """Bytes of a stream after gzip at its usual level; a stream that is gzip already is counted."""
    total = 0
    waiting: deque[Future[int]] = deque()
    already = chunk.startswith(b"\x1f\x8b")
    while chunk:
        if already:
            total += len(chunk)
        else:
            if len(waiting) > 2 * (os.cpu_count() or 1):
                total += waiting.popleft().result()
            waiting.append(pool.submit(_deflated_bytes, chunk))
        chunk = content.read(CHUNK_BYTES)
    return total + sum(future.result() for future in waiting)


def _deflated_bytes(chunk: bytes) -> int:
    return len(zlib.compress(chunk, 6))
