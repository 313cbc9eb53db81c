"""``GET /models`` page by page, also of two hundred models."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.serving.conftest import Models


@pytest.mark.contract(84)
@pytest.mark.slow
def test_two_hundred_models_are_listed_exactly_once_by_pages(models: Models, front, named):
    # The registry is the same behind both fronts: one of them gets the full number.
    count = 200 if front == "asgi" else 20
    url = models.write()
    names = [f"model-{number:03d}" for number in range(count)]
    with ThreadPoolExecutor(4) as pool:
        assert {a.status for a in pool.map(lambda name: models.load(name, url), names)} == {200}
        assert models.names() == names
        assert models.names(limit=7) == names
        assert len(models.server.request("GET", "/models").json["models"]) == min(100, count)
        if count == 200:
            assert models.load("one-too-many", url).status == 507
        # Models that come and go between two pages move no other.
        first = models.server.request("GET", "/models?limit=10").json
        shown = [item["modelName"] for item in first["models"]]
        models.delete(names[0])
        models.delete(names[9])
        assert models.load("a-new-one", url).status == 200
        token = first["nextPageToken"]
        rest = models.server.request("GET", f"/models?limit=1000&next_page_token={token}").json
        shown += [item["modelName"] for item in rest["models"]]
        assert "nextPageToken" not in rest
        assert shown == names
        answers = pool.map(models.invoke, names)
        assert [answer.status for answer in answers].count(200) == count - 2
        left = models.names()
        assert {a.status for a in pool.map(models.delete, left)} == {200}
    assert models.names() == []
    assert named("byoc-model", models.server.process.pid) == []


def test_bad_page_requests_are_400(models: Models):
    for query in ("limit=0", "limit=-1", "limit=ten", "limit=", "next_page_token=100"):
        assert models.server.request("GET", f"/models?{query}").status == 400, query
