"""Long bodies for one of several models: in a file, which the model's process opens."""

from __future__ import annotations

import hashlib
import io
import re
from pathlib import Path

import pytest

MIB = 1024 * 1024
HANDLER = """
    import hashlib, json, os, pathlib
    DIED = pathlib.Path(os.environ["GATE"]) / "died"
    def model_fn(model_dir): return 0
    def input_fn(body: memoryview, content_type):
        digest = hashlib.sha256(body).hexdigest()
        status = pathlib.Path("/proc/self/status").read_text().split()
        return digest, len(body), int(status[status.index("RssAnon:") + 1])
    def predict_fn(data, model):
        if data[1] % 2 and not DIED.exists():
            DIED.touch()
            os._exit(7)
        return [*data, os.getpid()]
    def output_fn(prediction, accept): return json.dumps(prediction)
"""


@pytest.fixture
def spooling(own_models, tmp_path):
    """A server that writes bodies above a megabyte to files."""
    return own_models(BYOC_SPOOL_BYTES=str(MIB), TMPDIR=str(tmp_path), GATE=str(tmp_path))


def own_kib(pid: int) -> int:
    """A process's own memory; the pages of a mapped file are not its own."""
    found = re.search(r"RssAnon:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    assert found
    return int(found[1])


def nameless(pid: int) -> list[str]:
    """Bodies that a process holds, open or mapped."""
    maps = Path(f"/proc/{pid}/maps").read_text().splitlines()
    links = [str(link.readlink()) for link in Path(f"/proc/{pid}/fd").iterdir()]
    return [text for text in (*maps, *links) if "byoc-serve-" in text and "(deleted)" in text]


@pytest.mark.contract(66, 83)
def test_long_body_is_in_the_memory_of_neither_process(spooling, named):
    assert spooling.load("long", spooling.write(HANDLER)).status == 200
    (zygote,) = named("byoc-zygote", spooling.server.process.pid)
    front = int(Path(f"/proc/{zygote}/stat").read_text().rpartition(")")[2].split()[1])
    (model,) = named("byoc-model", spooling.server.process.pid)
    before, before_kib = own_kib(front), own_kib(model)
    body = bytes(range(256)) * (200 * MIB // 256)
    for _ in range(2):
        answer = spooling.invoke("long", body, Content_Type="application/octet-stream")
        assert answer.status == 200
        digest, size, inside_kib, pid = answer.json
        assert (digest, size, pid) == (hashlib.sha256(body).hexdigest(), len(body), model)
        assert inside_kib - before_kib < 100 * 1024
        assert own_kib(front) - before < 100 * 1024
    assert nameless(front) == []
    assert nameless(model) == []


@pytest.mark.contract(72)
def test_long_body_is_there_for_the_process_that_replaces_a_crashed_one(spooling, named):
    assert spooling.load("long", spooling.write(HANDLER)).status == 200
    (first,) = named("byoc-model", spooling.server.process.pid)
    body = b"x" * (3 * MIB + 1)
    answer = spooling.invoke("long", body, Content_Type="application/octet-stream")
    assert answer.status == 200
    digest, _, _, pid = answer.json
    assert digest == hashlib.sha256(body).hexdigest()
    assert pid != first


def test_long_arrays_and_streams_are_read_from_the_file(spooling):
    import numpy as np

    lazy = """
        def model_fn(model_dir): return 0
        def input_fn(body: memoryview, content_type): return body
        def predict_fn(data, model):
            yield str(len(data))
            yield " " + str(sum(data[:4]))
    """
    assert spooling.load("echo").status == 200
    assert spooling.load("lazy", spooling.write(lazy)).status == 200
    array = np.arange(1_000_000, dtype=np.float32).reshape(1000, 1000)
    buffer = io.BytesIO()
    np.save(buffer, array)
    kind = "application/x-npy"
    answer = spooling.invoke("echo", buffer.getvalue(), Content_Type=kind, Accept=kind)
    assert answer.status == 200
    assert np.array_equal(np.load(io.BytesIO(answer.body)), array)
    answer = spooling.invoke(
        "lazy", b"\1" * (2 * MIB), Content_Type="application/octet-stream", Accept="text/plain"
    )
    assert (answer.status, answer.body) == (200, b"2097152 4")
