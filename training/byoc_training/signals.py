"""Stop signals: raised while the job is prepared, noted while its program runs."""

from __future__ import annotations

import contextlib
import os
import signal
from typing import TYPE_CHECKING

from byoc_training.errors import Interrupted

if TYPE_CHECKING:
    from types import FrameType

#: ``docker stop`` sends SIGTERM; the others come from a terminal.
STOPPING = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT)


class StopRequested(BaseException):
    """A stop signal came during the preparation.

    Not an `Exception`, since libraries that retry, such as botocore, swallow those.

    Attributes:
        number: The signal.
    """

    def __init__(self, number: int) -> None:
        self.number = number
        super().__init__(number)


class StopSignals:
    """Handlers for the stop signals and for the end of children.

    The kernel drops signals that PID 1 has no handler for, so they are installed first of all.

    Raises:
        StopRequested: One has come already.

    Attributes:
        first: The first stop signal that came, or None.
        wakeup: A file descriptor that becomes readable with every signal.
    """

    def __init__(self) -> None:
        self.first: int | None = None
        self.wakeup, self._write_end = os.pipe()
        self._raising = True
        for descriptor in (self.wakeup, self._write_end):
            os.set_blocking(descriptor, False)
        signal.set_wakeup_fd(self._write_end, warn_on_full_buffer=False)
        for number in STOPPING:
            # Under nohup the terminal's end must not stop the job.
            if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:
                signal.signal(number, self._stop)
        signal.signal(signal.SIGCHLD, _nothing)
        # What has come since `start` blocked them comes now.
        signal.pthread_sigmask(signal.SIG_UNBLOCK, STOPPING)

    def note_only(self) -> None:
        """From now on signals are noted in `first`, for a supervisor to act on.

        Raises:
            Interrupted: One has come already.
        """
        self._raising = False
        if self.first is not None:
            raise Interrupted(self.first)

    def raise_again(self) -> None:
        """From now on a stop signal raises again.

        Raises:
            Interrupted: One has come already.
        """
        self._raising = True
        if self.first is not None:
            self._raising = False
            raise Interrupted(self.first)

    def drain(self) -> None:
        """Empty `wakeup`."""
        with contextlib.suppress(BlockingIOError):
            while os.read(self.wakeup, 4096):
                pass

    def _stop(self, number: int, _: FrameType | None) -> None:
        if self.first is None:
            self.first = number
            if self._raising:
                # Once only: what cleans up after the exception must not be interrupted.
                self._raising = False
                raise StopRequested(number)


def _nothing(_: int, __: FrameType | None) -> None:
    """SIGCHLD only has to wake the supervisor, which takes a handler."""
