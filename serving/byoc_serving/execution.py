"""``GET /execution-parameters``: how a batch transform job should send its records."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from byoc_serving.exchange import Response

if TYPE_CHECKING:
    from byoc_serving.settings import Settings

#: What a job uses without an answer (API CreateTransformJob), and its limit for the product of
#: payload and concurrency.
DEFAULT_PAYLOAD_MB = 6
PRODUCT_MB = 100


def parameters(settings: Settings, workers: int) -> Response:
    """The answer; what the job itself has set takes precedence and comes back unchanged.

    Args:
        settings: the server's.
        workers: processes that answer, so many requests at once make sense.
    """
    concurrency = settings.transform_concurrency or max(1, workers)
    payload = settings.transform_payload_mb
    if payload is None:
        largest = max(1, settings.max_body_bytes // 1_000_000)
        payload = max(1, min(DEFAULT_PAYLOAD_MB, PRODUCT_MB // concurrency, largest))
    content = {
        "MaxConcurrentTransforms": concurrency,
        "BatchStrategy": settings.transform_strategy,
        "MaxPayloadInMB": payload,
    }
    return Response(200, json.dumps(content).encode())
