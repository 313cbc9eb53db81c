"""The terminal: lines, bars and tables, or plain lines where there is no terminal.

Results go to the standard output; with ``--json`` nothing else does, and what there is to tell
goes to the standard error.
"""

from __future__ import annotations

import datetime as dt
import json
import math
import sys
import threading
import time
from contextlib import contextmanager
from typing import IO, TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from byoc.report import Transfer

BAR_WIDTH = 40
#: Between two plain lines about the same transfer, or the same wait.
QUIET_SECONDS = 30


class Console:
    """A command's voice.

    Args:
        machine: Whether the result is JSON.
        quiet: Whether there is nothing to tell, as nothing is done.
    """

    def __init__(self, *, machine: bool = False, quiet: bool = False) -> None:
        self.machine, self._quiet = machine, quiet
        self._status: Any = None
        self._told = time.monotonic()

    @property
    def _out(self) -> IO[str]:
        return sys.stderr if self.machine else sys.stdout

    @property
    def lively(self) -> bool:
        """Whether something may move."""
        return self._out.isatty()

    @property
    def unicode(self) -> bool:
        """Whether the output takes more than ASCII."""
        return (getattr(sys.stdout, "encoding", "") or "").lower().startswith("utf")

    def say(self, line: str) -> None:
        """A line."""
        if self._quiet:
            return
        self._told = time.monotonic()
        self._rest()
        print(line, file=self._out, flush=True)

    def log(self, line: str) -> None:
        """A line of a container's log."""
        self.say(f"  | {line}")

    def waiting(self, words: str) -> None:
        """A spinner on a terminal; elsewhere a line now and then."""
        if not self.lively:
            if time.monotonic() - self._told > QUIET_SECONDS:
                self.say(words)
            return
        if self._status is None:
            from rich.console import Console as Rich  # noqa: PLC0415 - heavy

            self._status = Rich(file=self._out, markup=False).status(words)
            self._status.start()
        self._status.update(words)

    def close(self) -> None:
        """Stop what moves."""
        self._rest()

    def result(self, content: Any) -> None:
        """The result, as JSON; numbers that JSON has not are null."""
        content = _finite(content)
        print(
            json.dumps(content, indent=2, default=_plain, ensure_ascii=False, allow_nan=False),
            flush=True,
        )

    @contextmanager
    def transfer(self, title: str) -> Iterator[Transfer]:
        """A bar a part, with MB/s; or plain lines."""
        self._rest()
        shown: _Bars | _Lines = _Bars(self._out, title) if self.lively else _Lines(self, title)
        with shown:
            yield shown

    def table(self, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """A table; where there is no terminal, words with two or more spaces between them."""
        self._rest()
        whole = [[*map(str.upper, columns)], *([*map(str, row)] for row in rows)]
        widths = [max(len(row[number]) for row in whole) for number in range(len(columns))]
        for number, row in enumerate(whole):
            cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
            line = "  ".join(cells).rstrip()
            print(click.style(line, bold=True) if number == 0 and self.lively else line)

    def bars(
        self, scores: Sequence[float], names: Sequence[str] | None = None, most: int = 10
    ) -> None:
        """Class scores as bars: all where they are few, else the highest."""
        numbers: Sequence[int] = range(len(scores))
        if len(scores) > most:
            numbers = sorted(numbers, key=lambda number: -scores[number])[:most]
        block = "█" if self.unicode else "#"
        labels = [names[number] if names else str(number) for number in numbers]
        width = max(map(len, labels))
        for label, number in zip(labels, numbers, strict=True):
            bar = block * round(BAR_WIDTH * scores[number])
            print(f"  {label:>{width}}  {bar:<{BAR_WIDTH}} {100 * scores[number]:6.2f} %")

    def _rest(self) -> None:
        if self._status is not None:
            self._status.stop()
            self._status = None


class _Bars:
    """A bar for each part."""

    def __init__(self, out: IO[str], title: str) -> None:
        from rich import progress  # noqa: PLC0415 - heavy
        from rich.console import Console as Rich  # noqa: PLC0415 - heavy

        self._title, self._tasks, self._lock = title, dict[str, Any](), threading.Lock()
        self._progress = progress.Progress(
            progress.TextColumn("{task.description}", markup=False),
            progress.BarColumn(),
            progress.DownloadColumn(),
            progress.TransferSpeedColumn(),
            progress.TimeRemainingColumn(),
            console=Rich(file=out),
        )

    def __enter__(self) -> _Bars:  # noqa: PYI034 - typing.Self came with Python 3.11
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def update(self, part: str, done: int, total: int) -> None:
        with self._lock:
            if part not in self._tasks:
                self._tasks[part] = self._progress.add_task(part or self._title, total=total)
        self._progress.update(self._tasks[part], completed=done, total=total)


class _Lines:
    """A line for each part that is done, and one for all."""

    def __init__(self, console: Console, title: str) -> None:
        self._console, self._title, self._lock = console, title, threading.Lock()
        self._started = self._told = time.monotonic()
        self._parts: dict[str, tuple[int, int]] = {}
        self._begun: dict[str, float] = {}

    def __enter__(self) -> _Lines:  # noqa: PYI034 - typing.Self came with Python 3.11
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        done = sum(done for done, _ in self._parts.values())
        if kind is None and self._parts:
            self._console.say(f"{self._title}: {_speed(done, time.monotonic() - self._started)}")

    def update(self, part: str, done: int, total: int) -> None:
        now = time.monotonic()
        with self._lock:
            before = self._parts.get(part, (0, 0))
            self._begun.setdefault(part, now)
            self._parts[part] = (done, total)
            if part and done >= total > 0 and before != (done, total):
                self._console.say(f"  {part}: {_speed(done, now - self._begun[part])}")
            elif now - self._told > QUIET_SECONDS:
                self._told = now
                whole = [sum(pair) for pair in zip(*self._parts.values(), strict=True)]
                self._console.say(
                    f"  {self._title}: {whole[0] / 1e6:.1f} of {whole[1] / 1e6:.1f} MB"
                )


def _speed(count: int, seconds: float) -> str:
    speed = f", {count / 1e6 / seconds:.1f} MB/s" if seconds > 0.05 else ""
    return f"{_size(count)} in {seconds:.1f} s{speed}"


def _size(count: int) -> str:
    return f"{count / 1e6:.1f} MB" if count >= 1e5 else f"{count / 1e3:.1f} kB"


def ago(moment: Any) -> str:
    """How long ago a moment was."""
    if not isinstance(moment, dt.datetime):
        return ""
    seconds = (dt.datetime.now(dt.timezone.utc) - moment).total_seconds()
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit} ago"
    return f"{max(seconds, 0):.0f} s ago"


def _plain(value: Any) -> Any:
    if isinstance(value, dt.datetime):
        return value.isoformat()
    if isinstance(value, bytes):
        try:
            return value.decode()
        except UnicodeDecodeError:
            return f"<{len(value)} bytes>"
    return str(value)


def _finite(value: Any) -> Any:
    """The value, with None in place of NaN and infinities."""
    if isinstance(value, dict):
        return {key: _finite(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
