"""What an image weighs: history entries, and a saved image compressed on the way."""

from __future__ import annotations

import gzip
import io
import json
import os
import random
import tarfile
from typing import TYPE_CHECKING, Any

import pytest

from byoc.engine import Engine
from byoc.errors import EngineError
from byoc.layers import Layer, compressed_sizes, instruction, layers, measure_compressed

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(
    ("entry", "line"),
    [
        ('RUN |2 A=1 B=x y /bin/sh -c : "PyTorch and CUDA"; uv pip\tinstall # buildkit',
         "PyTorch and CUDA"),
        ("RUN |1 A=1 /bin/sh -c apt-get   install x # buildkit", "RUN apt-get install x"),
        ("RUN /bin/sh -c make # buildkit", "RUN make"),
        ('/bin/sh -c #(nop)  CMD ["bash"]', 'CMD ["bash"]'),
        ("COPY a b # buildkit", "COPY a b"),
        ("", "base image"),
    ],
)  # fmt: skip
def test_history_entry_becomes_one_short_line(entry: str, line: str) -> None:
    assert instruction(entry) == line


def tar_of(name: str, content: bytes) -> bytes:
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w") as archive:
        entry = tarfile.TarInfo(name)
        entry.size = len(content)
        archive.addfile(entry, io.BytesIO(content))
    return raw.getvalue()


EMPTY = tar_of("", b"")[:1024]


@pytest.fixture
def saved(tmp_path: Path):
    """Makes a client whose `docker save` writes an archive with the given layers."""

    def make(
        members: dict[str, bytes], order: list[str], links: dict[str, str] | None = None
    ) -> Engine:
        file = tmp_path / "saved.tar"
        with tarfile.open(file, "w") as archive:
            for name, content in members.items():
                entry = tarfile.TarInfo(name)
                entry.size = len(content)
                archive.addfile(entry, io.BytesIO(content))
            for name, target in (links or {}).items():
                entry = tarfile.TarInfo(name)
                entry.type, entry.linkname = tarfile.SYMTYPE, target
                archive.addfile(entry)
            made_by: list[dict[str, Any]] = [{"created_by": f"/bin/sh -c {path}"} for path in order]
            made_by.insert(1, {"created_by": "CMD", "empty_layer": True})
            for name, document in (
                ("config.json", {"history": made_by}),
                ("manifest.json", [{"Config": "config.json", "Layers": order}]),
            ):
                text = json.dumps(document).encode()
                entry = tarfile.TarInfo(name)
                entry.size = len(text)
                archive.addfile(entry, io.BytesIO(text))
        program = tmp_path / "docker"
        history = [{"CreatedBy": "top", "Size": "7"}, {"CreatedBy": "CMD", "Size": "0"},
                   {"CreatedBy": "", "Size": "5"}]  # fmt: skip
        lines = "\n".join(map(json.dumps, history))
        program.write_text(
            f"#!/bin/sh\ncase $1 in save) cat {file} ;; history) cat <<'EOF'\n{lines}\nEOF\n"
            ";; *) exit 1 ;; esac\n"
        )
        program.chmod(0o755)
        return Engine(str(program), "20.10.24", "20.10.24", buildx=False)

    return make


def test_layers_come_lowest_first_without_those_that_hold_nothing(saved) -> None:
    engine = saved({}, [])
    assert layers(engine, "x") == (Layer("base image", 5), Layer("top", 7))


def test_compressed_size_is_that_of_gzip(saved) -> None:
    text = tar_of("text", b"the same words again and again\n" * 400_000)
    noise = tar_of("noise", random.Random(0).randbytes(9_000_000))
    engine = saved(
        {"a/layer.tar": text, "b/layer.tar": noise, "c/layer.tar": EMPTY},
        ["b/layer.tar", "c/layer.tar", "a/layer.tar"],
    )
    measured = dict(compressed_sizes(engine, "x"))
    assert list(measured) == ["RUN b/layer.tar", "RUN c/layer.tar", "RUN a/layer.tar"]
    assert measured["RUN b/layer.tar"] == pytest.approx(len(gzip.compress(noise, 6)), rel=0.01)
    assert measured["RUN a/layer.tar"] == pytest.approx(len(gzip.compress(text, 6)), rel=0.01)
    # A layer without content is in the archive, but not in the table.
    of_interest = (Layer("RUN b/layer.tar", 1), Layer("RUN a/layer.tar", 2))
    assert [layer.compressed_bytes for layer in measure_compressed(engine, "x", of_interest)] == [
        measured["RUN b/layer.tar"],
        measured["RUN a/layer.tar"],
    ]


def test_layer_that_is_stored_compressed_is_counted_as_it_is(saved) -> None:
    packed = gzip.compress(tar_of("text", os.urandom(5_000_000)))
    engine = saved({"blobs/sha256/a": packed}, ["blobs/sha256/a"])
    assert compressed_sizes(engine, "x") == [("RUN blobs/sha256/a", len(packed))]


def test_layer_that_is_saved_as_a_link_to_another_counts_again(saved) -> None:
    layer = tar_of("text", b"words\n" * 100_000)
    engine = saved(
        {"a/layer.tar": layer},
        ["a/layer.tar", "b/layer.tar"],
        links={"b/layer.tar": "../a/layer.tar"},
    )
    first, second = compressed_sizes(engine, "x")
    assert first[1] == second[1] > 0


def test_engine_that_cannot_save_says_why(tmp_path: Path) -> None:
    program = tmp_path / "docker"
    program.write_text("#!/bin/sh\necho 'No such image: x' >&2; exit 1\n")
    program.chmod(0o755)
    engine = Engine(str(program), "20.10.24", "20.10.24", buildx=False)
    with pytest.raises(EngineError, match="No such image: x"):
        compressed_sizes(engine, "x")


def test_layer_missing_from_the_archive_is_an_error_not_a_wrong_table(saved) -> None:
    engine = saved({"a/layer.tar": tar_of("t", b"t" * 5000)}, ["a/layer.tar"])
    with pytest.raises(EngineError, match="saved without its layer 'b'"):
        measure_compressed(engine, "x", (Layer("RUN a/layer.tar", 1), Layer("b", 2)))
