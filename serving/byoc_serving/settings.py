"""What the environment asks of the server, read once, every problem reported at once."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from byoc_serving.errors import SettingsError
from byoc_serving.variables import Variables

if TYPE_CHECKING:
    from collections.abc import Mapping

MIB = 1024 * 1024
#: Asynchronous endpoints send up to 1 GB, batch transform 100 MB, real-time endpoints 25 MB.
DEFAULT_MAX_BODY_BYTES = 1024 * MIB
#: Of bodies in memory; long ones wait on the disk.
DEFAULT_QUEUE_BYTES = 256 * MIB
DEFAULT_PORT = 8080
MOST_BODY_BYTES = 1 << 40
#: The environment's words and the API's.
STRATEGIES = {
    "multi_record": "MULTI_RECORD",
    "single_record": "SINGLE_RECORD",
    "multirecord": "MULTI_RECORD",
    "singlerecord": "SINGLE_RECORD",
}
#: API AsyncInferenceConfig: InvocationTimeoutSeconds is at most 3,600.
MAX_WAIT_S = 3600.0
#: Names of the deadline, the first that is set wins.
_DEADLINES = (
    "BYOC_DEADLINE_SECONDS",
    "SAGEMAKER_MODEL_SERVER_TIMEOUT_SECONDS",
    "SAGEMAKER_MODEL_SERVER_TIMEOUT",
    "SAGEMAKER_TS_RESPONSE_TIMEOUT",
)
#: What all models of a multi-model server hold together, as a multiple of what one may: a slow
#: model cannot shut the door to the others.
MODEL_QUEUES = 4
FRONTS = ("asgi", "wsgi")
#: The default first: what is measured to be faster and verified to be equal.
OPTIMIZE = ("freeze", "off", "compile", "bf16")
TOPOLOGIES = ("auto", "inline", "isolated")
LOG_FORMATS = ("text", "json")


@dataclass(frozen=True)
class Settings:
    """The server's settings.

    Attributes:
        root: stands for ``/opt/ml`` (``BYOC_ROOT``).
        host: address to listen on (``BYOC_HOST``).
        port: port to listen on (``SAGEMAKER_BIND_TO_PORT``).
        front: ``asgi`` (gunicorn's own ASGI worker) or ``wsgi`` (Flask on gthread)
            (``BYOC_FRONT``).
        topology: ``inline`` (each worker has the model), ``isolated`` (HTTP fronts, and one model
            process a device), or ``auto``: isolated where there is a GPU (``BYOC_TOPOLOGY``).
        front_processes: HTTP processes of the isolated topology; None: half the cores beside a
            CPU model, all but one beside a GPU, at most 16 (``BYOC_FRONT_PROCESSES``).
        shared_bytes: memory of the isolated topology for bodies between one front and the model
            processes; None: ``queue_bytes`` (``BYOC_SHARED_BYTES``).
        forward_timeout_s: a forward pass, or a call of the handler's functions, that takes longer
            counts as hung, and its process is replaced. The default is above every time-out of
            the platform, the longest being 3,600 s for asynchronous endpoints
            (``BYOC_FORWARD_TIMEOUT_SECONDS``).
        workers: processes that each hold the model; None: decided from the machine
            (``SAGEMAKER_MODEL_SERVER_WORKERS``).
        torch_threads: intra-op threads a worker; None: 1 on a CPU, torch's choice beside a GPU
            (``BYOC_TORCH_THREADS``, ``OMP_NUM_THREADS``).
        max_batch_rows: rows in one forward; None: 64 for the default predict_fn, no batching for
            the handler's own (``BYOC_MAX_BATCH_SIZE``).
        optimize: faster forms of the model for the default predict_fn: ``freeze`` (CPU:
            TorchScript, channels-last, oneDNN, fused layers; GPU: channels-last; whatever measures
            fastest),
            ``compile`` (torch.compile), ``bf16``, ``off``; on a GPU each but ``off`` is then
            captured in CUDA graphs; verified against the model as loaded (``BYOC_OPTIMIZE``).
        queue_requests: requests a worker holds at once, running ones included
            (``BYOC_QUEUE_SIZE``; by default 1,024 on the WSGI front, where each has a thread,
            and for each of several models).
        queue_s: beyond the first thousand, none are taken while the first of those that wait has
            waited for so long (``BYOC_QUEUE_SECONDS``).
        queue_bytes: bytes of their bodies in memory (``BYOC_QUEUE_BYTES``).
        spool_bytes: longer bodies wait in a file (``BYOC_SPOOL_BYTES``).
        max_body_bytes: one body (``BYOC_MAX_BODY_BYTES``, ``SAGEMAKER_MAX_PAYLOAD_IN_MB``).
        max_streams: streaming answers a worker makes at once, each in a thread of its own
            (``BYOC_MAX_STREAMS``).
        stream_timeout_s: how long one may last; the platform's own limit is 8 minutes
            (``BYOC_STREAM_TIMEOUT_SECONDS``).
        websocket_message_bytes: one message of a client
            (``BYOC_WEBSOCKET_MESSAGE_BYTES``).
        session_ttl_s: a stateful session ends so long after its opening; 0 leaves sessions to the
            handler (``BYOC_SESSION_TTL_SECONDS``).
        max_sessions: sessions at once (``BYOC_MAX_SESSIONS``).
        batch: this is a batch transform job (``SAGEMAKER_BATCH``).
        transform_concurrency: requests at once that the job has asked for
            (``SAGEMAKER_MAX_CONCURRENT_TRANSFORMS``).
        transform_strategy: ``MULTI_RECORD`` or ``SINGLE_RECORD``
            (``SAGEMAKER_BATCH_STRATEGY``).
        transform_payload_mb: the job's own payload limit; 0: whole objects of any size
            (``SAGEMAKER_MAX_PAYLOAD_IN_MB``).
        execution_parameters: answer ``GET /execution-parameters``
            (``BYOC_EXECUTION_PARAMETERS``).
        default_accept: answer type without an Accept (``SAGEMAKER_DEFAULT_INVOCATIONS_ACCEPT``).
        program: the handler's file name (``SAGEMAKER_PROGRAM``).
        submit_directory: where it is (``SAGEMAKER_SUBMIT_DIRECTORY``).
        handler: the image's own handler (``BYOC_HANDLER``).
        deadline_s: a request that has waited as long is answered 504 and never reaches the model
            (``BYOC_DEADLINE_SECONDS``, else ``SAGEMAKER_MODEL_SERVER_TIMEOUT_SECONDS``, else
            ``SAGEMAKER_MODEL_SERVER_TIMEOUT``, else ``SAGEMAKER_TS_RESPONSE_TIMEOUT``; all are
            seconds, as in TorchServe: Multi Model Server took the second-last for minutes). By
            default the longest that any of the platform's callers waits, an asynchronous one.
        header_timeout_s: from a request's first byte to the end of its headers
            (``BYOC_HEADER_TIMEOUT_SECONDS``).
        body_timeout_s: the longest pause within a body; one that takes longer in all must come
            with 1,000 bytes/s on average (``BYOC_BODY_TIMEOUT_SECONDS``).
        pip_timeout_s: time for installing code/requirements.txt (``BYOC_PIP_TIMEOUT_SECONDS``).
        log_format: ``text`` or ``json`` (``BYOC_LOG_FORMAT``).
        log_level: ``logging``'s number (``SAGEMAKER_CONTAINER_LOG_LEVEL``).
        multi_model: models come and go by request (``SAGEMAKER_MULTI_MODEL``).
        max_models: models at once; None: as memory allows (``BYOC_MAX_MODELS``).
        models_memory_bytes: memory of all models together; None: what the machine or its control
            group has (``BYOC_MODELS_MEMORY_BYTES``).
        load_timeout_s: time for one model of a multi-model server to load
            (``SAGEMAKER_STARTUP_TIMEOUT``).
        unload_grace_s: time for running requests when a model is unloaded
            (``BYOC_UNLOAD_GRACE_SECONDS``).
        model_path: one model's directory of a multi-model server; set by the server itself.
        access_log: ``off``; ``on``: one line a request; ``all``: pings and scrapes as well
            (``BYOC_ACCESS_LOG``).
        metrics: whether ``/metrics`` is there (``BYOC_METRICS``).
        metrics_models: models of a multi-model server that have lines of their own there
            (``BYOC_METRICS_MODELS``).
        emf: whether CloudWatch's embedded metrics are written (``BYOC_EMF``).
        emf_namespace: their namespace (``BYOC_EMF_NAMESPACE``).
        emf_dimensions: their dimensions, names and values (``BYOC_EMF_DIMENSIONS``, such as
            ``EndpointName=digits,VariantName=blue``).
        emf_interval_s: seconds between their lines (``BYOC_EMF_INTERVAL_SECONDS``).
        otel: whether invocations get OpenTelemetry spans (``BYOC_OTEL``; by default where
            ``OTEL_EXPORTER_OTLP_ENDPOINT`` or ``OTEL_EXPORTER_OTLP_TRACES_ENDPOINT`` is set).
    """

    root: Path = Path("/opt/ml")
    host: str = "0.0.0.0"  # noqa: S104 - the platform connects from outside the container
    port: int = DEFAULT_PORT
    front: str = "asgi"
    topology: str = "auto"
    front_processes: int | None = None
    shared_bytes: int | None = None
    forward_timeout_s: float = 3900.0
    workers: int | None = None
    torch_threads: int | None = None
    max_batch_rows: int | None = None
    optimize: str = "freeze"
    queue_requests: int = 16384
    queue_s: float = 5.0
    queue_bytes: int = DEFAULT_QUEUE_BYTES
    spool_bytes: int = 32 * MIB
    max_body_bytes: int = DEFAULT_MAX_BODY_BYTES
    max_streams: int = 64
    stream_timeout_s: float = 900.0
    websocket_message_bytes: int = 16 * MIB
    session_ttl_s: float = 1200.0
    max_sessions: int = 1024
    batch: bool = False
    transform_concurrency: int | None = None
    transform_strategy: str = "MULTI_RECORD"
    transform_payload_mb: int | None = None
    execution_parameters: bool = True
    default_accept: str = "application/json"
    program: str | None = None
    submit_directory: str | None = None
    handler: Path | None = None
    deadline_s: float = MAX_WAIT_S
    header_timeout_s: float = 20.0
    body_timeout_s: float = 30.0
    pip_timeout_s: float = 300.0
    log_format: str = "text"
    log_level: int = logging.INFO
    multi_model: bool = False
    max_models: int | None = None
    models_memory_bytes: int | None = None
    load_timeout_s: float = 600.0
    unload_grace_s: float = 60.0
    model_path: Path | None = None
    access_log: str = "off"
    metrics: bool = True
    metrics_models: int = 100
    emf: bool = False
    emf_namespace: str = "sagemaker-byoc"
    emf_dimensions: tuple[tuple[str, str], ...] = (("ServiceName", "sagemaker-byoc"),)
    emf_interval_s: float = 60.0
    otel: bool = False

    @property
    def model_dir(self) -> Path:
        """Where the platform unpacks the model archive; read-only."""
        return self.model_path or self.root / "model"

    @property
    def admitted_requests(self) -> int:
        """Requests that a front process holds at once: each of several models has its queue."""
        return self.queue_requests * (MODEL_QUEUES if self.multi_model else 1)

    @property
    def models_dir(self) -> Path:
        """Where the platform unpacks the models of a multi-model server."""
        return self.root / "models"

    @classmethod
    def from_environ(cls, environ: Mapping[str, str]) -> Settings:
        """Read the settings.

        Raises:
            SettingsError: with every bad variable, not only the first.
        """
        read = Variables(environ)
        payload_mb = read.optional_integer("SAGEMAKER_MAX_PAYLOAD_IN_MB", 0, 1 << 20)
        max_body_bytes = max(
            read.integer("BYOC_MAX_BODY_BYTES", DEFAULT_MAX_BODY_BYTES, 1, MOST_BODY_BYTES),
            # A payload limit of 0 means whole objects, however large.
            MOST_BODY_BYTES if payload_mb == 0 else (payload_mb or 0) * MIB,
        )
        port = read.integer("SAGEMAKER_BIND_TO_PORT", DEFAULT_PORT, 1, 65535)
        read.port_range("SAGEMAKER_SAFE_PORT_RANGE")
        many, optimize = read.flag("SAGEMAKER_MULTI_MODEL"), read.text("BYOC_OPTIMIZE")
        front = read.choice("BYOC_FRONT", FRONTS)
        # On the WSGI front each of them has a thread, and of several models each has its own.
        queue_requests = 1024 if many or front == "wsgi" else cls.queue_requests
        settings = cls(
            root=Path(read.text("BYOC_ROOT") or "/opt/ml"),
            host=read.text("BYOC_HOST") or cls.host,
            port=port,
            front=front,
            topology=read.choice("BYOC_TOPOLOGY", TOPOLOGIES),
            front_processes=read.optional_integer("BYOC_FRONT_PROCESSES", 1, 1024),
            shared_bytes=read.optional_integer("BYOC_SHARED_BYTES", 1 << 12, 1 << 42),
            forward_timeout_s=float(
                read.integer("BYOC_FORWARD_TIMEOUT_SECONDS", int(cls.forward_timeout_s), 1, 1 << 20)
            ),
            workers=read.optional_integer("SAGEMAKER_MODEL_SERVER_WORKERS", 1, 1024),
            torch_threads=(
                read.optional_integer("BYOC_TORCH_THREADS", 1, 1024)
                or read.optional_integer("OMP_NUM_THREADS", 1, 1024)
            ),
            max_batch_rows=read.optional_integer("BYOC_MAX_BATCH_SIZE", 1, 1 << 20),
            # A faster form is a second copy of the weights, and here memory is what is short.
            optimize="off" if many and not optimize else read.choice("BYOC_OPTIMIZE", OPTIMIZE),
            queue_requests=read.integer("BYOC_QUEUE_SIZE", queue_requests, 1, 1 << 20),
            queue_s=float(read.integer("BYOC_QUEUE_SECONDS", 5, 1, 86400)),
            queue_bytes=read.integer("BYOC_QUEUE_BYTES", DEFAULT_QUEUE_BYTES, 1, 1 << 42),
            max_body_bytes=max_body_bytes,
            spool_bytes=read.integer("BYOC_SPOOL_BYTES", cls.spool_bytes, 1, 1 << 42),
            max_streams=read.integer("BYOC_MAX_STREAMS", cls.max_streams, 1, 1 << 16),
            stream_timeout_s=float(read.integer("BYOC_STREAM_TIMEOUT_SECONDS", 900, 1, 86400)),
            websocket_message_bytes=read.integer(
                "BYOC_WEBSOCKET_MESSAGE_BYTES", 16 * MIB, 125, 1 << 31
            ),
            session_ttl_s=float(read.integer("BYOC_SESSION_TTL_SECONDS", 1200, 0, 1 << 30)),
            max_sessions=read.integer("BYOC_MAX_SESSIONS", cls.max_sessions, 1, 1 << 20),
            batch=read.flag("SAGEMAKER_BATCH"),
            transform_concurrency=(
                read.optional_integer("SAGEMAKER_MAX_CONCURRENT_TRANSFORMS", 0, 1 << 16) or None
            ),
            transform_strategy=STRATEGIES[
                read.choice("SAGEMAKER_BATCH_STRATEGY", tuple(STRATEGIES))
            ],
            transform_payload_mb=payload_mb,
            execution_parameters=(
                read.text("BYOC_EXECUTION_PARAMETERS") is None
                or read.flag("BYOC_EXECUTION_PARAMETERS")
            ),
            default_accept=(
                read.text("SAGEMAKER_DEFAULT_INVOCATIONS_ACCEPT") or cls.default_accept
            ),
            program=read.text("SAGEMAKER_PROGRAM"),
            submit_directory=read.text("SAGEMAKER_SUBMIT_DIRECTORY"),
            handler=read.absolute_path("BYOC_HANDLER"),
            deadline_s=read.first_seconds(_DEADLINES, MAX_WAIT_S),
            header_timeout_s=read.first_seconds(("BYOC_HEADER_TIMEOUT_SECONDS",), 20.0),
            body_timeout_s=read.first_seconds(("BYOC_BODY_TIMEOUT_SECONDS",), 30.0),
            pip_timeout_s=float(read.integer("BYOC_PIP_TIMEOUT_SECONDS", 300, 1, 3600)),
            log_format=read.choice("BYOC_LOG_FORMAT", LOG_FORMATS),
            log_level=read.log_level("SAGEMAKER_CONTAINER_LOG_LEVEL"),
            multi_model=many,
            max_models=read.optional_integer("BYOC_MAX_MODELS", 1, 1 << 20),
            models_memory_bytes=read.optional_integer("BYOC_MODELS_MEMORY_BYTES", 1, 1 << 50),
            load_timeout_s=float(read.integer("SAGEMAKER_STARTUP_TIMEOUT", 600, 1, 86400)),
            unload_grace_s=float(read.integer("BYOC_UNLOAD_GRACE_SECONDS", 60, 0, 3600)),
            access_log=read.access_log("BYOC_ACCESS_LOG"),
            metrics=read.flag("BYOC_METRICS", default=True),
            metrics_models=read.integer("BYOC_METRICS_MODELS", cls.metrics_models, 0, 100_000),
            emf=read.flag("BYOC_EMF"),
            emf_namespace=read.namespace("BYOC_EMF_NAMESPACE") or cls.emf_namespace,
            emf_dimensions=read.dimensions("BYOC_EMF_DIMENSIONS") or cls.emf_dimensions,
            emf_interval_s=float(read.integer("BYOC_EMF_INTERVAL_SECONDS", 60, 1, 3600)),
            otel=read.flag(
                "BYOC_OTEL",
                default=bool(
                    read.text("OTEL_EXPORTER_OTLP_ENDPOINT")
                    or read.text("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
                ),
            ),
        )
        if read.problems:
            raise SettingsError(read.problems)
        return settings
