"""Finding the reason of a failure in the last lines of a program's error output."""

from __future__ import annotations

import re
from dataclasses import dataclass

#: What torchrun and others put before the lines of a process.
_PREFIX = re.compile(r"^\[(?:rank|default)?(\d+)\]:\s?")
_ANSI = re.compile(r"\x1b\[[0-9;?]*[ -/]*[@-~]")
_TRACEBACK = "Traceback (most recent call last):"
_GROUP = re.compile(r"^\s*[+|] (?:Exception Group )?")
_EXCEPTION = re.compile(r"^([A-Za-z_][\w.]*)(?::\s|:$|$)")
_NAMED_ERROR = re.compile(
    r"^(?:[A-Za-z_][\w.]*\.)?[A-Z]\w*(?:Error|Exception|Interrupt|Exit|Warning|Iteration)(?::\s|:?$)"
)
_CHAINED = (
    "During handling of the above exception, another exception occurred:",
    "The above exception was the direct cause of the following exception:",
)
#: The launcher's summary of a worker's failure is never the reason itself.
_LAUNCHERS = ("torch.distributed.elastic.",)
_LONGEST_MESSAGE_LINES = 12


@dataclass(frozen=True)
class Cause:
    """Why a program failed, as far as its error output tells.

    Attributes:
        text: The exception's type and message, or the last line; empty without output.
        rank: The rank whose output it is, when the launcher says.
    """

    text: str
    rank: int | None = None


def clean_lines(tail: bytes) -> list[tuple[int | None, str]]:
    """The lines as a terminal would end up showing them, each with its rank if it has one."""
    lines: list[tuple[int | None, str]] = []
    for raw in _ANSI.sub("", tail.decode("utf-8", "replace")).split("\n"):
        text = raw.rstrip("\r").rsplit("\r", 1)[-1].rstrip()
        found = _PREFIX.match(text)
        if found:
            lines.append((int(found[1]), text[found.end() :]))
        else:
            lines.append((None, text))
    return lines


def find(tail: bytes) -> Cause:
    """The reason: the last exception that is not a launcher's summary, else the last line."""
    lines = clean_lines(tail)
    exceptions = [found for found in _exceptions(lines) if not found.text.startswith(_LAUNCHERS)]
    if exceptions:
        return exceptions[-1]
    texts = [(rank, text.strip()) for rank, text in lines if text.strip()]
    for rank, text in reversed(texts):
        # A SyntaxError of the script itself has no traceback; argparse has its own form.
        if _NAMED_ERROR.match(text) or re.match(r"^\S+: error: ", text):
            return Cause(text, rank)
    return Cause(texts[-1][1], texts[-1][0]) if texts else Cause("")


def _exceptions(lines: list[tuple[int | None, str]]) -> list[Cause]:
    found = []
    for index, (rank, line) in enumerate(lines):
        if line.endswith(_TRACEBACK):
            same = [text for other, text in lines[index + 1 :] if other == rank]
            message = _message(same, grouped=bool(_GROUP.match(line)))
            if message:
                found.append(Cause(message, rank))
    return found


def _message(lines: list[str], *, grouped: bool) -> str:
    """The exception's lines after a traceback: the first that is not indented, and what follows."""
    message: list[str] = []
    for raw in lines:
        line = _GROUP.sub("", raw) if grouped else raw
        if not message:
            if line.endswith(_TRACEBACK):
                return ""
            if line[:1].strip() and _EXCEPTION.match(line):
                message.append(line)
            continue
        if line.endswith(_TRACEBACK) or line in _CHAINED or line.startswith(("  File ", "+----")):
            break
        message.append(line)
        if len(message) >= _LONGEST_MESSAGE_LINES:
            break
    return "\n".join(message).strip()
