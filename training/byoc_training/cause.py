"""Finding the reason of a failure in the last lines of a program's error output."""

from __future__ import annotations

import re
from dataclasses import dataclass

#: What torchrun and others put before the lines of a process.
_PREFIX = re.compile(r"^\[(?:rank|default)?(\d+)\]:\s?")
_ANSI = re.compile(r"\x1b\[[0-9;?]*[ -/]*[@-~]")
_TRACEBACK = "Traceback (most recent call last):"
_GROUP = re.compile(r"^\s*[+|] (?:Exception Group )?")
_EXCEPTION = re.compile(r"^[A-Za-z_][\w.<>]*(?::\s|:$|$)")
_NAMED_ERROR = re.compile(
    r"^(?:[A-Za-z_][\w.]*\.)?[A-Z]\w*(?:Error|Exception|Interrupt|Exit|Warning|Iteration)(?::\s|:?$)"
)
_CHAINED = (
    "During handling of the above exception, another exception occurred:",
    "The above exception was the direct cause of the following exception:",
)
#: Python says so before the traceback of what failed in a destructor or an exit handler, which
#: comes after the real reason and is never the reason itself.
_IGNORED = re.compile(r"^(?:Exception ignored (?:in|on|while)\b|Error in atexit\._run_exitfuncs:)")
#: The launcher's summary of a worker's failure is never the reason itself.
_LAUNCHERS = ("torch.distributed.elastic.",)
#: A rank's connection to another one broke: the reason is most likely over there. In torch's,
#: gloo's and NCCL's own words.
_SECONDARY = re.compile(
    r"connection (?:was )?(?:closed|reset|refused|aborted)|broken pipe|\bgloo\b|\bNCCL|TCPStore"
    r"|Dist(?:Backend|Network|Store|Queue)\w*Error|socket timeout",
    re.IGNORECASE,
)
_LONGEST_MESSAGE_LINES = 12


@dataclass(frozen=True)
class Cause:
    """Why a program failed, as far as its error output tells.

    Attributes:
        text: The exception's type and message, or the last line; empty without output.
        rank: The rank whose output it is, when the launcher says.
        raised: Whether it is an exception with its traceback.
    """

    text: str
    rank: int | None = None
    raised: bool = False


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


def secondary(text: str) -> bool:
    """Whether a reason reads like the consequence of another rank's end."""
    return _SECONDARY.search(text) is not None


def find(tail: bytes, rank: int | None = None) -> Cause:
    """The reason: the last exception that is not a launcher's summary, else the last line.

    Args:
        tail: The last error output.
        rank: Whose it has to be, where the lines say so.
    """
    lines = clean_lines(tail)
    raised = _exceptions(lines)
    exceptions = [found for found in raised if not found.text.startswith(_LAUNCHERS)]
    # The rank that failed first, by what it says itself, by torchrun's summary.
    for better in (
        [found for found in exceptions if not secondary(found.text)],
        [found for found in exceptions if rank is None or found.rank in (None, rank)],
    ):
        exceptions = better or exceptions
    if exceptions:
        return exceptions[-1]
    texts = [(whose, text) for whose, text in lines if text.strip()]
    # Below a launcher's summary the last line is the summary's. A SyntaxError of the script
    # itself has no traceback; argparse has its own form.
    for whose, text in reversed(texts if raised else ()):
        if text.startswith(_LAUNCHERS):
            continue
        if _NAMED_ERROR.match(text) or re.match(r"^\S+: error: ", text):
            return Cause(text, whose)
    # Indented lines belong to something above, such as the source line of a warning.
    texts = [entry for entry in texts if entry[1][0].strip()] or texts
    return Cause(texts[-1][1].strip(), texts[-1][0]) if texts else Cause("")


def _exceptions(lines: list[tuple[int | None, str]]) -> list[Cause]:
    found = []
    for index, (rank, line) in enumerate(lines):
        if line.endswith(_TRACEBACK):
            before = next((t for other, t in reversed(lines[:index]) if other == rank), "")
            if _IGNORED.match(before):
                continue
            same = [text for other, text in lines[index + 1 :] if other == rank]
            message = _message(same, grouped=bool(_GROUP.match(line)))
            if message:
                found.append(Cause(message, rank, raised=True))
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
        if line.endswith(_TRACEBACK) or line in _CHAINED or line.startswith("  File "):
            break
        if line.lstrip().startswith(("+--", "+-+-")) or _IGNORED.match(line):
            break
        message.append(line)
    if len(message) > _LONGEST_MESSAGE_LINES:
        # A long message, or a logged exception that the program went on after: in the second
        # case the reason of its end is the last line.
        last = next((line for line in reversed(message) if line.strip()), "")
        message = [message[0], "...", last]
    return "\n".join(message).strip()
