"""Streaming answers of several models."""

from __future__ import annotations

import contextlib
import http.client
import textwrap

import pytest

STREAM = """
    import pathlib, time
    import torch
    GATE = pathlib.Path({gate!r})
    def model_fn(model_dir):
        return torch.nn.Identity()
    def predict_fn(data, model):
        return chunks(int(data.sum()))
    def chunks(number):
        try:
            yield "first"
            while not (GATE / "go").exists():
                time.sleep(0.005)
                yield ""
            yield "x" * number
        finally:
            (GATE / f"ended.{{number}}").touch()
"""


@pytest.mark.contract(88, 89)
def test_streams_leave_chunk_by_chunk_beside_each_other_and_end_with_their_client(models, gate):
    url = models.write(textwrap.dedent(STREAM.format(gate=str(gate))))
    assert models.load("talker", url).status == 200
    headers = {"Content-Type": "application/json", "Accept": "text/plain"}
    with contextlib.ExitStack() as stack:
        replies = []
        leaver: http.client.HTTPConnection | None = None
        # The last body is longer than what any buffer between holds.
        for number in (1, 3_000_000):
            client = http.client.HTTPConnection("127.0.0.1", models.server.port, timeout=60)
            stack.enter_context(contextlib.closing(client))
            client.request("POST", "/models/talker/invoke", f"[[{number}]]", headers)
            replies.append(client.getresponse())
            leaver = leaver or client
        for reply in replies:
            assert reply.status == 200
            assert reply.read(5) == b"first"
        # A client that leaves ends its stream, although nothing else would.
        assert leaver is not None
        leaver.close()
        replies[0].close()
        models.server.wait_until((gate / "ended.1").exists)
        (gate / "go").touch()
        assert replies[1].read() == b"x" * 3_000_000
    assert models.delete("talker").status == 200
