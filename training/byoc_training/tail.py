"""The end of a program's error output, kept while it runs."""

from __future__ import annotations

import re

KEPT_BYTES = 64 * 1024
#: An exception's message can be longer than all that is kept; its beginning says what happened.
LONGEST_LINE_BYTES = 4096
# A carriage return ends a line too: of a progress bar, the last state counts.
# Only from a line's beginning: tried at each of its bytes, a line of just under the longest would
# cost the square of its length.
_LONG_LINE = re.compile(rb"(?<![^\r\n])([^\r\n]{%d})[^\r\n]+" % LONGEST_LINE_BYTES)


class Tail:
    """The last 64 KiB, counting 4 KiB of a line at most."""

    def __init__(self) -> None:
        self._data = bytearray()

    def add(self, data: bytes) -> None:
        """Take what came next."""
        self._data += data
        if len(self._data) > 2 * KEPT_BYTES:
            self._shorten()

    def content(self) -> bytes:
        """What is kept."""
        self._shorten()
        return bytes(self._data)

    def _shorten(self) -> None:
        self._data = bytearray(_LONG_LINE.sub(rb"\1", self._data))
        del self._data[:-KEPT_BYTES]
