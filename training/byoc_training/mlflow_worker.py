"""The process that talks to MLflow: reads messages from its standard input, see `mlflow_link`.

A server that fails or does not answer is asked again, less and less often; what it has missed
waits. One line says that it fails, one that it answers again. At the end of the program it is
asked once more, unless that has just been tried. A message that the server refuses for good is
dropped with a line. The program's end without a word makes the run a failed one.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import logging
import os
import queue
import re
import signal
import sys
import threading
import time
import warnings
from pathlib import Path
from typing import Any

from byoc_training.checkpoint import write_atomically

#: For one request; the client's own default of 120 s, eight times over, is for people who wait.
REQUEST_SECONDS = 10
_FIRST_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS = 2.0, 60.0
#: Steps that wait for a server that fails; later ones are dropped.
_MOST_WAITING = 100_000
#: Limits of MLflow's REST API for one ``runs/log-batch``.
_METRICS_AT_ONCE, _PARAMETERS_AT_ONCE = 1000, 100
#: Error codes of a request that will never be taken.
_REFUSED = ("INVALID_PARAMETER_VALUE", "BAD_REQUEST", "MALFORMED_REQUEST")
#: Those of a run that is not there, or is a deleted one.
_GONE = ("RESOURCE_DOES_NOT_EXIST", "INVALID_STATE", "INVALID_PARAMETER_VALUE")
#: What matters in the client's account of a request that failed.
_INNERMOST = re.compile(
    r"\[Errno -?\d+\] [^'\")]+|Read timed out|Connection to \S+ timed out|"
    r"too many \d+ error responses"
)
_CREDENTIALS = re.compile(r"//[^/@\s]*@")


class Run:
    """One run of MLflow, made or gone on with at the first message.

    Args:
        start: ``parameters`` and ``tags`` by name, ``run_name``, and ``state``: the file that
            keeps the run's id for the job's next start, or None.
    """

    def __init__(self, start: dict[str, Any]) -> None:
        import mlflow  # noqa: PLC0415 - seconds; messages are read meanwhile

        self._start = start
        self._state = Path(start["state"]) if start["state"] else None
        self._mlflow = mlflow
        self._client = mlflow.MlflowClient()
        self.id = ""

    def open(self) -> None:
        """Find or make the run; say which it is."""
        if self.id:
            return
        before = self._known()
        run_id = before or self._made()
        if self._state is not None:
            content = json.dumps({"run_id": run_id, "tracking_uri": _uri()}) + "\n"
            write_atomically(self._state, content.encode())
        self.id = run_id
        _say(f"MLflow run {run_id} {'goes on' if before else 'begins'} at {_uri()}")

    def describe(self) -> None:
        """Parameters and tags."""
        entities = self._mlflow.entities
        tags = [entities.RunTag(name, value) for name, value in self._start["tags"].items()]
        self._client.log_batch(self.id, tags=tags)
        parameters = [
            entities.Param(_key(name), value if isinstance(value, str) else json.dumps(value))
            for name, value in self._start["parameters"].items()
        ]
        for first in range(0, len(parameters), _PARAMETERS_AT_ONCE):
            self._client.log_batch(self.id, params=parameters[first : first + _PARAMETERS_AT_ONCE])

    def metrics(self, messages: list[dict[str, Any]]) -> None:
        """Values of one or more steps."""
        metric = self._mlflow.entities.Metric
        values = [
            metric(name, float(value), int(1000 * message["time"]), message["step"])
            for message in messages
            for name, value in message["values"].items()
        ]
        for first in range(0, len(values), _METRICS_AT_ONCE):
            self._client.log_batch(self.id, metrics=values[first : first + _METRICS_AT_ONCE])

    def model(self, folder: str, name: str) -> None:
        """The files of a folder."""
        self._client.log_artifacts(self.id, folder, name)

    def end(self, status: str) -> None:
        """Say how it has ended."""
        self._client.set_terminated(self.id, status)

    def _known(self) -> str:
        """The run that this job, or its last start, has; empty when there is none."""
        run_id = os.environ.get("MLFLOW_RUN_ID") or ""
        if not run_id and self._state is not None:
            with contextlib.suppress(OSError, ValueError, AttributeError):
                state = json.loads(self._state.read_bytes())
                run_id = str(state.get("run_id") or "") if state["tracking_uri"] == _uri() else ""
        if run_id:
            try:
                self._client.update_run(run_id, status="RUNNING")
            except self._mlflow.MlflowException as error:
                if error.error_code not in _GONE:
                    raise
                _say(f"MLflow has no run {run_id} any more; making another")
                run_id = ""
        return run_id

    def _made(self) -> str:
        experiment = os.environ.get("MLFLOW_EXPERIMENT_ID") or self._experiment()
        name = self._start["run_name"] or None
        run_id: str = self._client.create_run(experiment, run_name=name).info.run_id
        return run_id

    def _experiment(self) -> str:
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME") or "Default"
        found = self._client.get_experiment_by_name(name)
        if found is None:
            try:
                return str(self._client.create_experiment(name))
            except self._mlflow.MlflowException as error:
                # Jobs of one tuning job start together.
                found = self._client.get_experiment_by_name(name)
                if found is None:
                    raise error from None
        return str(found.experiment_id)


class Worker:
    """Takes messages to the server, one after another, again where need be.

    Args:
        messages: From the program; one of kind ``end`` is the last.
    """

    def __init__(self, messages: queue.SimpleQueue[dict[str, Any]]) -> None:
        self._messages = messages
        self._waiting: list[dict[str, Any]] = []
        self._run: Run | None = None
        self._pause_seconds = 0.0
        self._tried_at = 0.0
        self._ended = False
        self._dropped = 0

    def work(self) -> None:
        """Until the program has ended and the server has everything, or does not take it."""
        while True:
            self._receive()
            since = time.monotonic() - self._tried_at
            failing = self._pause_seconds > 0
            if failing and self._ended and since < 3 * REQUEST_SECONDS:
                break
            if failing and not self._ended and since < self._pause_seconds:
                continue
            self._try()
            if self._ended and (self._pause_seconds or not self._waiting):
                break
        kinds = [message["kind"] for message in self._waiting]
        if kinds or self._dropped:
            model = ", nor the model" if "model" in kinds else ""
            _say(f"MLflow has not taken {kinds.count('metrics') + self._dropped} messages{model}")

    def _receive(self) -> None:
        """What has come; waits when there is nothing to do."""
        wait: float | None = None
        if self._pause_seconds:
            wait = max(0.0, self._tried_at + self._pause_seconds - time.monotonic())
        elif self._waiting or self._ended:
            wait = 0.0
        with contextlib.suppress(queue.Empty):
            while True:
                message = self._messages.get(block=wait != 0, timeout=wait)
                if message["kind"] == "metrics" and len(self._waiting) >= _MOST_WAITING:
                    self._dropped += 1
                else:
                    self._waiting.append(message)
                self._ended |= message["kind"] == "end"
                wait = 0.0

    def _try(self) -> None:
        self._tried_at = time.monotonic()
        try:
            while self._waiting:
                count = self._hand_over()
                del self._waiting[:count]
        except Exception as error:  # noqa: BLE001 - nothing that MLflow does may end the training
            if not self._pause_seconds:
                _say(f"MLflow at {_uri()} fails; the training goes on without it: {_reason(error)}")
            doubled = max(_FIRST_PAUSE_SECONDS, 2 * self._pause_seconds)
            self._pause_seconds = min(_LONGEST_PAUSE_SECONDS, doubled)
        else:
            if self._pause_seconds:
                _say("MLflow answers again, and has got what it had missed")
            self._pause_seconds = 0.0

    def _hand_over(self) -> int:
        """The first message, or as many of its kind as go together; how many these are."""
        kind = self._waiting[0]["kind"]
        alike = list(itertools.takewhile(lambda one: one["kind"] == kind, self._waiting[:1000]))
        count = len(alike) if kind == "metrics" else 1
        if kind == "start":
            self._run = self._run or Run(self._waiting[0])
            self._run.open()
        assert self._run is not None  # noqa: S101 - `start` is the first message
        try:
            if kind == "start":
                self._run.describe()
            elif kind == "metrics":
                self._run.metrics(alike)
            elif kind == "model":
                self._run.model(self._waiting[0]["folder"], self._waiting[0]["name"])
            elif kind == "end":
                self._run.end(self._waiting[0]["status"])
        except Exception as error:
            if getattr(error, "error_code", "") not in _REFUSED:
                raise
            _say(f"MLflow refuses something ({kind}): {_reason(error)}")
        return count


def read(messages: queue.SimpleQueue[dict[str, Any]]) -> None:
    """Take in all lines at once, so that the program never waits."""
    ended = False
    for line in sys.stdin.buffer:
        message = json.loads(line)
        ended |= message["kind"] == "end"
        messages.put(message)
    if not ended:
        messages.put({"kind": "end", "status": "FAILED"})


def main() -> None:
    """Work until the program has ended."""
    global _output  # noqa: PLW0603 - set once, before anything is said
    # The program is told, and says when it is the end.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.nice(5)
    messages: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
    threading.Thread(target=read, args=(messages,), daemon=True).start()
    # The client prints and logs, retries and telemetry too; all that matters is said here.
    _output = os.dup(1)
    quiet = os.open(os.devnull, os.O_WRONLY)
    os.dup2(quiet, 1)
    os.dup2(quiet, 2)
    logging.disable()
    warnings.simplefilter("ignore")
    for name, value in (
        ("MLFLOW_HTTP_REQUEST_TIMEOUT", str(REQUEST_SECONDS)),
        ("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0"),
        ("MLFLOW_DISABLE_TELEMETRY", "true"),
        ("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false"),
    ):
        os.environ.setdefault(name, value)
    Worker(messages).work()
    # Threads of the client may still wait for the server.
    os._exit(0)


_output = 1


def _say(line: str) -> None:
    os.write(_output, f"metrics: {line}\n".encode("utf-8", "backslashreplace"))


def _uri() -> str:
    """The server for people, without a password."""
    return _CREDENTIALS.sub("//", os.environ.get("MLFLOW_TRACKING_URI", ""))


def _reason(error: Exception) -> str:
    """The innermost words of the client's long messages."""
    text = " ".join(str(error).split()) or type(error).__name__
    inner = _INNERMOST.search(text)
    return _CREDENTIALS.sub("//", inner[0] if inner else text[:200])


def _key(name: str) -> str:
    """A name that MLflow takes."""
    return re.sub(r"[^\w\-. /]", "_", name)[:250]
