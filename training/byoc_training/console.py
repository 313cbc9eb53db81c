"""The command's own log lines: plain, one line each, written at once to standard error."""

from __future__ import annotations

import os

# The numbers of the standard logging module, which the hyperparameter
# sagemaker_container_log_level carries; the module itself would cost start-up time.
DEBUG, INFO, WARNING, ERROR = 10, 20, 30, 40
_WORDS = {DEBUG: "debug: ", INFO: "", WARNING: "warning: ", ERROR: "error: "}
STDERR = 2


def write_all(descriptor: int, data: bytes) -> bool:
    """Write every byte; False when nobody reads any more. Logging never ends a job."""
    view = memoryview(data)
    while view:
        try:
            view = view[os.write(descriptor, view) :]
        except BlockingIOError:  # noqa: PERF203 - the loop is about these errors
            # Somebody made the inherited descriptor non-blocking; wait until there is room.
            import select  # noqa: PLC0415 - rarely needed

            select.select([], [descriptor], [])
        except OSError:
            return False
    return True


def one_line(text: str) -> str:
    """The text on one line, without characters that confuse a log."""
    joined = " ".join(part.strip() for part in text.splitlines() if part.strip())
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in joined)


class Console:
    """Writes lines at or above a level.

    Attributes:
        level: Number of the standard logging module (10 debug, 20 info, 30 warning, 40 error).
    """

    def __init__(self, level: int = INFO) -> None:
        self.level = level

    def debug(self, message: str) -> None:
        """Say something that only matters when looking for a fault."""
        self._write(DEBUG, message)

    def info(self, message: str) -> None:
        """Say what happens."""
        self._write(INFO, message)

    def warning(self, message: str) -> None:
        """Say what may harm the job."""
        self._write(WARNING, message)

    def error(self, message: str) -> None:
        """Say why the job fails; always shown."""
        self._write(ERROR, message)

    def _write(self, level: int, message: str) -> None:
        if level >= min(self.level, ERROR):
            line = f"train: {_WORDS[level]}{one_line(message)}\n"
            write_all(STDERR, line.encode("utf-8", "backslashreplace"))
