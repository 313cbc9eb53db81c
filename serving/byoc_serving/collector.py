"""Full garbage collections at a time of our choosing.

Python begins one whenever the objects that have lived long have become a quarter more. A worker
whose connections come by the thousand, a hundred objects each, then stands still for a tenth of a
second again and again, just when it is busiest, with pings and everything else. The young
generations are collected as ever.
"""

from __future__ import annotations

import gc
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

#: After so long it is worth while in a quiet moment, after so long it waits for none.
QUIET_S = 10.0
LATE_S = 60.0
#: More collections of the young than there will ever be.
_NEVER = 1 << 30


class Collector:
    """Collects the old generation of this process.

    Args:
        now: seconds of a monotonic clock.
    """

    def __init__(self, now: float) -> None:
        self._last = now
        young, middle, old = gc.get_threshold()
        # Whoever has turned collection off, or off for the old, has his reasons.
        self._ours = gc.isenabled() and young > 0 and old > 0
        if self._ours:
            gc.set_threshold(young, middle, _NEVER)

    def beat(self, now: float, quiet: Callable[[], bool]) -> bool:
        """Collect if it is time.

        Args:
            now: as above.
            quiet: whether nobody waits for anything; asked only where that matters.

        Returns:
            Whether it was.
        """
        age = now - self._last
        if not self._ours or age < QUIET_S or (age < LATE_S and not quiet()):
            return False
        self._last = now
        gc.collect()
        return True
