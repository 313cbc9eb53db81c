"""Lines that containers wrote, out of CloudWatch Logs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from byoc.errors import NotFoundError
from byoc.kinds import ENDPOINT

if TYPE_CHECKING:
    from collections.abc import Iterator

    from byoc.aws import Aws
    from byoc.kinds import Kind


@dataclass(frozen=True)
class Line:
    """A line.

    Attributes:
        stream: Where it was written, such as ``algo-1``.
        milliseconds: When, since 1970.
        text: Without the line end.
    """

    stream: str
    milliseconds: int
    text: str


class Logs:
    """The log of a job or an endpoint, read onwards with each call of `new`."""

    def __init__(self, aws: Aws, kind: Kind, name: str) -> None:
        self._aws, self._name = aws, name
        self._group = (kind.log_group or "").format(name=name)
        # An endpoint has a group of its own; jobs share one.
        self._prefix = "" if kind is ENDPOINT else f"{name}/"
        self._tokens: dict[str, str | None] = {}

    @property
    def streams(self) -> int:
        """How many streams have been seen."""
        return len(self._tokens)

    def new(self) -> Iterator[Line]:
        """What has come since the last call, stream after stream; nothing while there is no log.

        Raises:
            ByocError: AWS refuses.
        """
        lines: list[Line] = []
        for name in self._names():
            lines += self._read(name)
        return iter(sorted(lines, key=lambda line: line.milliseconds))

    def _names(self) -> list[str]:
        request: dict[str, Any] = {"logGroupName": self._group}
        if self._prefix:
            request["logStreamNamePrefix"] = self._prefix
        try:
            streams = self._aws.pages("logs", "DescribeLogStreams", "logStreams", request)
            for stream in streams:
                self._tokens.setdefault(stream["logStreamName"], None)
        except NotFoundError:
            pass  # nothing has been written yet
        return [*self._tokens]

    def _read(self, name: str) -> list[Line]:
        short = name.removeprefix(self._prefix).partition("/")[0]
        if self._prefix:  # algo-1-1700000000 -> algo-1
            short = "-".join(short.split("-")[:2])
        found: list[Line] = []
        while True:
            request: dict[str, Any] = {
                "logGroupName": self._group, "logStreamName": name, "startFromHead": True
            }  # fmt: skip
            token = self._tokens[name]
            if token:
                request["nextToken"] = token
            answer = self._aws.call("logs", "GetLogEvents", request)
            for event in answer["events"]:
                found += [
                    Line(short, event["timestamp"], text.rstrip())
                    for text in event["message"].rstrip("\n").split("\n")
                ]
            self._tokens[name] = answer.get("nextForwardToken") or token
            if not answer["events"] or self._tokens[name] == token:
                return found
