"""The command ``byoc`` as a library: images, jobs and endpoints from the user's machine.

    from pathlib import Path

    from byoc import TRAINING, Deployment, Question, Training, Variant
    from byoc import connect, deploy, invoke, train, wait_for_endpoint, wait_for_job

    aws = connect("eu-central-1")
    job = train(aws, Training(data={"training": "data/mnist"}, hyperparameters={"epochs": 1}))
    wait_for_job(aws, TRAINING, job.name)
    endpoint = deploy(aws, Deployment([Variant(job=job.name)], name="digits"))
    wait_for_endpoint(aws, endpoint.name)
    answer = invoke(aws, "digits", Question(Path("seven.png").read_bytes(), "image/png"))
    print(answer.scores)

Names are loaded when they are used: importing the package loads nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from byoc.aws import Aws as Aws
    from byoc.deletion import delete as delete
    from byoc.deployments import Asynchronous as Asynchronous
    from byoc.deployments import Deployment as Deployment
    from byoc.deployments import Serverless as Serverless
    from byoc.deployments import Variant as Variant
    from byoc.doctor import examine as examine
    from byoc.endpoint_status import verify as verify
    from byoc.endpoint_status import wait as wait_for_endpoint  # noqa: F401 - public
    from byoc.endpoints import deploy as deploy
    from byoc.errors import ByocError as ByocError
    from byoc.findings import Finding as Finding
    from byoc.findings import Patient as Patient
    from byoc.images import build as build
    from byoc.invocations import Answer as Answer
    from byoc.invocations import Question as Question
    from byoc.invocations import invoke as invoke
    from byoc.invocations import invoke_async as invoke_async
    from byoc.invocations import stream as stream
    from byoc.jobs import Training as Training
    from byoc.jobs import TrainingJob as TrainingJob
    from byoc.jobs import train as train
    from byoc.jobs import wait as wait_for_job  # noqa: F401 - public
    from byoc.kinds import PROCESSING as PROCESSING
    from byoc.kinds import TRAINING as TRAINING
    from byoc.kinds import TRANSFORM as TRANSFORM
    from byoc.kinds import describe as describe
    from byoc.kinds import listed as listed
    from byoc.kinds import stop as stop
    from byoc.logs import Logs as Logs
    from byoc.packaging import pack as pack
    from byoc.packaging import unpack as unpack
    from byoc.processing import Processing as Processing
    from byoc.processing import process as process
    from byoc.pushing import push as push
    from byoc.report import Report as Report
    from byoc.settings import connect as connect
    from byoc.transforms import Transform as Transform
    from byoc.transforms import transform as transform

#: Each public name with the module, and the name in it, that it stands for.
_PUBLIC = {
    "Answer": ("invocations", "Answer"),
    "Asynchronous": ("deployments", "Asynchronous"),
    "Aws": ("aws", "Aws"),
    "ByocError": ("errors", "ByocError"),
    "Deployment": ("deployments", "Deployment"),
    "Finding": ("findings", "Finding"),
    "Logs": ("logs", "Logs"),
    "PROCESSING": ("kinds", "PROCESSING"),
    "Patient": ("findings", "Patient"),
    "Processing": ("processing", "Processing"),
    "Question": ("invocations", "Question"),
    "Report": ("report", "Report"),
    "Serverless": ("deployments", "Serverless"),
    "TRAINING": ("kinds", "TRAINING"),
    "TRANSFORM": ("kinds", "TRANSFORM"),
    "Training": ("jobs", "Training"),
    "TrainingJob": ("jobs", "TrainingJob"),
    "Transform": ("transforms", "Transform"),
    "Variant": ("deployments", "Variant"),
    "build": ("images", "build"),
    "connect": ("settings", "connect"),
    "delete": ("deletion", "delete"),
    "deploy": ("endpoints", "deploy"),
    "describe": ("kinds", "describe"),
    "examine": ("doctor", "examine"),
    "invoke": ("invocations", "invoke"),
    "invoke_async": ("invocations", "invoke_async"),
    "listed": ("kinds", "listed"),
    "pack": ("packaging", "pack"),
    "process": ("processing", "process"),
    "push": ("pushing", "push"),
    "stop": ("kinds", "stop"),
    "stream": ("invocations", "stream"),
    "train": ("jobs", "train"),
    "transform": ("transforms", "transform"),
    "unpack": ("packaging", "unpack"),
    "verify": ("endpoint_status", "verify"),
    "wait_for_endpoint": ("endpoint_status", "wait"),
    "wait_for_job": ("jobs", "wait"),
}


def __getattr__(name: str) -> Any:
    """Load a public name."""
    if name not in _PUBLIC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, attribute = _PUBLIC[name]
    return getattr(importlib.import_module(f"{__name__}.{module}"), attribute)


def __dir__() -> list[str]:
    """Every public name."""
    return sorted({*globals(), *_PUBLIC})
