"""Models beside each other: queues, modules and working state of their own."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.serving.conftest import Models


@pytest.mark.contract(73)
def test_full_model_refuses_with_503_while_others_and_ping_answer(models: Models, probe, held):
    assert models.load("other").status == 200
    assert models.load("busy", models.write(probe())).status == 200
    with ThreadPoolExecutor(8) as pool:
        with held(models, "busy"):
            asked = [pool.submit(models.invoke, "busy") for _ in range(6)]
            models.server.wait_until(lambda: sum(future.done() for future in asked) >= 3)
            refused = [future.result() for future in asked if future.done()]
            assert {answer.status for answer in refused} == {503}
            assert {answer.headers["retry-after"] for answer in refused} == {"1"}
            assert refused[0].json["error"]["code"] == "full"
            assert models.invoke("other").status == 200
            ping = models.server.ping()
            assert ping is not None
            assert ping.status == 200
        assert sorted(future.result(60).status for future in asked) == [200] * 3 + [503] * 3


def test_models_have_modules_and_working_state_of_their_own(models: Models):
    handler = """
        import os
        import helper, torch
        import random, numpy
        def model_fn(model_dir):
            os.environ["SHARED"] = os.environ.get("SHARED", "") + helper.WORD
            return None or helper
        def predict_fn(data, model):
            return [os.environ["SHARED"], torch.get_num_threads(), random.random(),
                    float(numpy.random.rand()), float(torch.rand(1))]
        def output_fn(prediction, accept):
            import json
            return json.dumps(prediction), "application/json"
    """
    for word in ("left", "right"):
        url = models.write(handler, helper__py=f"WORD = {word!r}\n".encode())
        assert models.load(word, url).status == 200
    left, right = models.invoke("left").json, models.invoke("right").json
    assert (left[:2], right[:2]) == (["left", 1], ["right", 1])
    assert not set(left[2:]) & set(right[2:])
