from __future__ import annotations

import threading

import pytest

from byoc_serving.engine import Engine
from byoc_serving.exchange import Invocation
from byoc_serving.inline import Inline
from byoc_serving.service import Service
from byoc_serving.settings import Settings
from byoc_serving.table import Table

IDENTITY = """
    import torch
    def model_fn(model_dir): return torch.nn.Identity()
"""
OWN_PREDICT = IDENTITY + "    def predict_fn(data, model): return data\n"
TRANSFORM = (
    IDENTITY
    + "    def transform_fn(model, body, content_type, accept): return body, content_type\n"
)


@pytest.mark.parametrize(
    ("handler", "variables", "expected"),
    [
        (IDENTITY, {}, 64),
        (IDENTITY, {"BYOC_MAX_BATCH_SIZE": "8"}, 8),
        (OWN_PREDICT, {}, 1),
        (OWN_PREDICT, {"BYOC_MAX_BATCH_SIZE": "8"}, 8),
        (TRANSFORM, {"BYOC_MAX_BATCH_SIZE": "8"}, 1),
    ],
    ids=["default", "default-8", "own-predict", "own-predict-8", "transform"],
)
def test_an_answer_waits_for_others_only_where_they_share_a_forward(
    model_root, tmp_path, handler, variables, expected
):
    settings = Settings.from_environ({"BYOC_ROOT": str(model_root(handler)), **variables})
    engine = Engine(settings, tmp_path)
    deliveries: list[int] = []
    done = threading.Event()

    def deliver(pairs) -> None:
        deliveries.append(len(pairs))
        if sum(deliveries) == 3:
            done.set()

    backend = Inline(engine)
    service = Service(settings, Table(1), 0, backend)
    requests = [Invocation.from_headers([(b"content-type", b"application/json")]) for _ in "123"]
    for request in requests:
        request.body = b"[[1.0]]"
        service.admission.enter(0)
        backend.batcher.submit(request)
    service.start(deliver)
    assert done.wait(60)
    assert service.close(10)
    assert engine.max_batch_items == expected
    assert deliveries == ([1, 1, 1] if expected == 1 else [3])
