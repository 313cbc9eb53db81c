"""The first moments of ``train``, in which a stop signal could be lost.

PID 1 of a container never gets a signal that it has no handler for: the kernel drops it, and the
container would be killed 120 s later without having been told. But a blocked signal is kept, even
for PID 1. So the stop signals are blocked before anything else is imported, which takes most of
the start's time, and come through when `signals` has its handlers. What is left is the start of
the interpreter itself.
"""

from __future__ import annotations

import signal

#: As `signals` has them; that module imports too much to be asked.
STOPPING = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT)


def main() -> int:
    """The command: `main.main`, with the stop signals kept until it listens."""
    signal.pthread_sigmask(signal.SIG_BLOCK, STOPPING)
    from byoc_training import main as command  # noqa: PLC0415 - after the signals are blocked

    return command.main()
