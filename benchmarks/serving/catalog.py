"""Who is measured: every peer and every variant of our own server, as data.

A peer's programs and configuration are in ``peers/<name>/``; they are copied into a work folder,
with ``$port``, ``$work``, ``$bin`` and ``$workers`` filled in, and run there.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

JSON = "json"
NPY = "npy"
KINDS = (JSON, NPY)


@dataclass(frozen=True)
class Peer:
    """A server under measurement.

    Attributes:
        name: the row's name; ``peers/<folder>`` holds its files.
        command: what starts it in its work folder, in the foreground.
        requirements: its environment besides the shared torch; empty: this project's own.
        route: where bodies are posted.
        batches: whether it joins requests into one forward pass.
        protocol: how bodies are wrapped: ``plain`` and ``triton`` take both types; ``json``,
            ``bento`` and ``v2`` take JSON alone.
        environ: variables of its processes.
        needs: programs that must be on PATH.
        ours: whether it is this project's server.
        setting: the variable that must be known to ``serve`` for this row to mean anything.
        calibration: a bound, not a contestant.
        about: how it is configured, for the table.
        folder: the peer's files; by default its name.
    """

    name: str
    command: tuple[str, ...]
    requirements: tuple[str, ...] = ()
    route: str = "/invocations"
    batches: bool = False
    protocol: str = "plain"
    environ: Mapping[str, str] = field(default_factory=dict)
    needs: tuple[str, ...] = ()
    ours: bool = False
    setting: str | None = None
    calibration: bool = False
    about: str = ""
    folder: str = ""

    @property
    def kinds(self) -> tuple[str, ...]:
        """The body types that it can take."""
        return KINDS if self.protocol in {"plain", "triton"} else (JSON,)


def _ours(suffix: str = "", setting: str | None = None, **environ: str) -> Peer:
    return Peer(
        name=f"byoc{suffix}",
        command=("$bin/serve",),
        batches=True,
        environ={"BYOC_ROOT": "$work/ml", "BYOC_HOST": "127.0.0.1", **environ},
        ours=True,
        setting=setting,
        about=" ".join(f"{name}={value}" for name, value in environ.items()) or "default settings",
        folder="byoc",
    )


OURS = (
    _ours(),
    _ours("+wsgi", "BYOC_FRONT", BYOC_FRONT="wsgi"),
    _ours("+isolated", "BYOC_TOPOLOGY", BYOC_TOPOLOGY="isolated"),
    *(
        _ours(f"+{value}", "BYOC_OPTIMIZE", BYOC_OPTIMIZE=value)
        for value in ("off", "freeze", "compile", "bf16")
    ),
)

#: The image that ``make build`` leaves. The client passes signals on to PID 1.
_IN_DOCKER = Peer(
    name="byoc+docker",
    command=(
        *("docker", "run", "--rm", "--network", "host"),
        *("--env", "SAGEMAKER_BIND_TO_PORT=$port", "--volume", "$work/ml/model:/opt/ml/model:ro"),
        *("sagemaker-byoc-inference:latest", "serve"),
    ),
    batches=True,
    needs=("docker",),
    ours=True,
    about="the inference image in a container",
    folder="byoc",
)

_PEERS = (
    Peer(
        name="torchserve",
        command=("bash", "start.sh"),
        requirements=(
            *("torchserve==0.12.0", "torch-model-archiver==0.12.0", "setuptools<81"),
            *("pyyaml", "psutil", "packaging", "requests", "nvidia-ml-py"),
        ),
        route="/predictions/digits",
        batches=True,
        needs=("java",),
        about="workers = cores, batchSize 16, maxBatchDelay 2 ms",
    ),
    Peer(
        name="mms",
        command=("bash", "start.sh"),
        requirements=("multi-model-server==1.1.11", "sagemaker-inference==1.10.1", "setuptools<81"),
        environ={
            "SAGEMAKER_BASE_DIR": "$work/ml",
            "PYTHONPATH": "$work/ml/model/code:$work",
            "TMPDIR": "$work",
        },
        needs=("java",),
        about="sagemaker-inference toolkit, workers = cores",
    ),
    Peer(
        name="fastapi",
        command=(
            *("$bin/uvicorn", "app:app", "--host", "127.0.0.1", "--port", "$port"),
            *("--workers", "$workers", "--loop", "uvloop", "--http", "httptools"),
            *("--no-access-log", "--log-level", "warning"),
        ),
        requirements=("fastapi==0.165.0", "uvicorn==0.54.0", "uvloop", "httptools"),
        about="uvicorn, uvloop, httptools, workers = cores",
    ),
    Peer(
        name="flask",
        command=("bash", "start.sh"),
        requirements=("flask==3.1.3", "gunicorn==27.0.1"),
        needs=("nginx",),
        about="gunicorn gthread behind nginx, workers = cores",
    ),
    Peer(
        name="mlserver",
        command=("$bin/mlserver", "start", "."),
        requirements=("mlserver==1.7.1", "uvloop<0.22"),
        route="/v2/models/digits/infer",
        batches=True,
        protocol="v2",
        about="parallel_workers = cores, max_batch_size 16, 2 ms",
    ),
    Peer(
        name="bentoml",
        command=(
            *("$bin/bentoml", "serve", "service:Digits", "--host", "127.0.0.1"),
            *("--port", "$port"),
        ),
        requirements=("bentoml==1.4.39",),
        batches=True,
        protocol="bento",
        environ={
            "BENTOML_HOME": "$work/bentoml",
            "BENTOML_DO_NOT_TRACK": "True",
        },
        about="workers = cores, batchable, max_batch_size 16",
    ),
    Peer(
        name="litserve",
        command=("$bin/python", "app.py"),
        requirements=("litserve==0.2.19", "pyzmq"),
        batches=True,
        protocol="json",
        about="workers and API servers = cores, fast_queue, max_batch_size 16, 2 ms",
    ),
    Peer(
        name="ray",
        command=("$bin/python", "app.py"),
        requirements=("ray[serve]==2.60.0",),
        batches=True,
        # Its guide's switch for throughput; clients still come in by its proxy, the default.
        environ={
            "RAY_USAGE_STATS_ENABLED": "0",
            "RAY_DEDUP_LOGS": "0",
            "RAY_SERVE_THROUGHPUT_OPTIMIZED": "1",
            "RAY_SERVE_ENABLE_DIRECT_INGRESS": "0",
        },
        about="replicas = cores, serve.batch 16, 2 ms, throughput-optimized",
    ),
    Peer(
        name="pytriton",
        command=("$bin/python", "app.py"),
        requirements=("nvidia-pytriton==0.7.0",),
        route="/v2/models/digits/infer",
        batches=True,
        protocol="triton",
        # Triton's Python stub is older than some standard libraries, which its shared-memory
        # store trips over; this is PyTriton's own way round it.
        environ={"PYTRITON_NO_TENSORSTORE": "1"},
        about="instances = cores, dynamic batcher 16, 0.5 ms; npy column: its binary tensors",
    ),
    Peer(
        name="robyn",
        command=(
            *("$bin/python", "app.py", "--processes", "$workers", "--workers", "1"),
            *("--log-level", "WARN", "--disable-openapi"),
        ),
        requirements=("robyn==0.88.0",),
        about="processes = cores, bare model",
    ),
    Peer(
        name="granian",
        command=(
            *("$bin/granian", "app:app", "--interface", "rsgi", "--host", "127.0.0.1"),
            *("--port", "$port", "--workers", "$workers", "--loop", "uvloop"),
            *("--runtime-mode", "st", "--backpressure", "1024", "--no-access-log"),
        ),
        requirements=("granian==2.8.7", "uvloop"),
        about="RSGI, uvloop, workers = cores, bare model",
    ),
)


def frozen(peer: Peer) -> Peer:
    """The peer with the faster of torch's own frozen forms, at the batch size that it makes."""
    return replace(
        peer,
        name=f"{peer.name}+frozen",
        folder=peer.folder or peer.name,
        # Rows that the form is chosen for: what a batching server makes of 32 connections.
        environ={**peer.environ, "BENCH_FROZEN": "8" if peer.batches else "1"},
        about=f"{peer.about}; frozen model",
    )


HTTP_ONLY = Peer(
    name="http-only",
    command=(
        *("$bin/gunicorn", "-k", "asgi", "--workers", "$workers", "--asgi-loop", "uvloop"),
        *("--bind", "127.0.0.1:$port", "--keep-alive", "75", "--no-control-socket"),
        *("--log-level", "warning", "app:app"),
    ),
    calibration=True,
    about="gunicorn's ASGI worker, constant answer: no decoding, no model",
    folder="http_only",
)

_FROZEN = ("torchserve", "pytriton", "robyn", "granian")
PEERS = {
    peer.name: peer
    for peer in (
        *OURS,
        _IN_DOCKER,
        *_PEERS,
        *(frozen(peer) for peer in _PEERS),
        HTTP_ONLY,
    )
}
#: Measured when nothing else is asked for.
DEFAULT = (
    *(peer.name for peer in OURS),
    *(peer.name for peer in _PEERS),
    *(f"{name}+frozen" for name in _FROZEN),
    HTTP_ONLY.name,
)


def answer(peer: Peer, body: bytes) -> list[list[float]]:
    """The log-probabilities in a response, ``[N][10]``.

    Raises:
        ValueError: there are none in it.
    """
    try:
        content = json.loads(body)
        if peer.protocol in {"v2", "triton"}:
            flat = content["outputs"][0]["data"]
            return [flat[start : start + 10] for start in range(0, len(flat), 10)]
        if content and isinstance(content[0], (int, float)):
            content = [content]
        return [[float(value) for value in row] for row in content]
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise ValueError(f"no log-probabilities in {body[:200]!r}: {error}") from None
