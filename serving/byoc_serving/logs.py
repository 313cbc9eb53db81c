"""One line a record, as text or as JSON, on standard error."""

from __future__ import annotations

import json
import logging
import sys
import time
from typing import TYPE_CHECKING, Any

from byoc_serving.current import request_ids

if TYPE_CHECKING:
    from byoc_serving.settings import Settings

log = logging.getLogger("byoc_serving")

#: Fields that a line of text has already said.
_IN_MESSAGE = {"method", "path", "status"}


def _timestamp(created: float) -> str:
    moment = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(created))
    return f"{moment}.{int(created * 1000) % 1000:03d}Z"


def _request_id(record: logging.LogRecord) -> str:
    """The request that a record is about: as its logger said, else the one at work."""
    if hasattr(record, "fields"):
        return ""
    return getattr(record, "request_id", None) or request_ids()


class TextFormatter(logging.Formatter):
    """``time level process message``; a traceback is folded into the same line."""

    def format(self, record: logging.LogRecord) -> str:
        """The record as one line."""
        message = record.getMessage()
        fields: dict[str, Any] = getattr(record, "fields", {})
        shown = [f"{name}={value}" for name, value in fields.items() if name not in _IN_MESSAGE]
        request_id = _request_id(record)
        if request_id and request_id not in message:
            shown.insert(0, f"request_id={request_id}")
        message = " ".join([message, *shown])
        if record.exc_info:
            message += " | " + self.formatException(record.exc_info)
        folded = " | ".join(line.rstrip() for line in message.splitlines() if line.strip())
        return f"{_timestamp(record.created)} {record.levelname} [{record.process}] {folded}"


class JsonFormatter(logging.Formatter):
    """One JSON object a record."""

    def format(self, record: logging.LogRecord) -> str:
        """The record as one line of JSON."""
        fields: dict[str, Any] = {
            "time": _timestamp(record.created),
            "level": record.levelname,
            "pid": record.process,
            "message": record.getMessage(),
        }
        if request_id := _request_id(record):
            fields["request_id"] = request_id
        fields.update(getattr(record, "fields", {}))
        if record.exc_info:
            fields["traceback"] = self.formatException(record.exc_info)
        return json.dumps(fields, ensure_ascii=False)


def configure(settings: Settings) -> None:
    """Send the server's and the handler's log records to standard error, a line each."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter() if settings.log_format == "json" else TextFormatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(settings.log_level)
    # gunicorn tells of every process that it starts; the start-up line says what matters.
    quiet = settings.log_level > logging.DEBUG
    logging.getLogger("gunicorn.error").setLevel(logging.WARNING if quiet else logging.DEBUG)
    logging.getLogger("byoc_serving.access").setLevel(logging.INFO)
    for name in ("PIL", "botocore", "boto3", "s3transfer", "urllib3", "asyncio"):
        logging.getLogger(name).setLevel(max(settings.log_level, logging.WARNING))
    logging.captureWarnings(capture=True)
    # Prints of the handler belong in the log when they happen, not when a buffer is full.
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(line_buffering=True)
