"""Environment variables as typed values; what is wrong with them is kept, not raised."""

from __future__ import annotations

import logging
import re
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

_NAMESPACE = re.compile(r"[0-9A-Za-z.\-_/#:]{1,255}")
_TRUE = {"1", "true", "yes", "on"}
_FALSE = {"0", "false", "no", "off"}


class Variables:
    """Reads typed values and remembers what was wrong with them.

    Args:
        environ: the environment.

    Attributes:
        problems: one line for each bad value: what was seen, what was expected, what to do.
    """

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._environ = environ
        self.problems: list[str] = []

    def text(self, name: str) -> str | None:
        """The value without surrounding blanks; None where it is unset or empty."""
        return self._environ.get(name, "").strip() or None

    def _bad(self, name: str, expected: str) -> None:
        seen = self._environ[name][:80]
        self.problems.append(f"{name}={seen!r}: expected {expected}; correct or unset it")

    def optional_integer(self, name: str, least: int, most: int) -> int | None:
        """A whole number within bounds; None where it is unset."""
        text = self.text(name)
        if text is None:
            return None
        try:
            value = int(text)
        except ValueError:
            value = least - 1
        if not least <= value <= most:
            self._bad(name, f"a whole number from {least} to {most}")
            return None
        return value

    def integer(self, name: str, default: int, least: int, most: int) -> int:
        """A whole number within bounds."""
        value = self.optional_integer(name, least, most)
        return default if value is None else value

    def first_seconds(self, names: tuple[str, ...], default: float) -> float:
        """The first of several names for the same time; a fraction of a second is allowed."""
        values: list[float] = []
        for name in names:
            text = self.text(name)
            if text is None:
                continue
            try:
                value = float(text)
            except ValueError:
                value = 0.0
            if 0.001 <= value <= 86400:
                values.append(value)
            else:
                self._bad(name, "seconds, from 0.001 to 86400")
        return values[0] if values else default

    def choice(self, name: str, choices: tuple[str, ...]) -> str:
        """One of several words, the first by default; case does not matter."""
        text = (self.text(name) or choices[0]).lower()
        if text not in choices:
            self._bad(name, " or ".join(choices))
            return choices[0]
        return text

    def flag(self, name: str, *, default: bool = False) -> bool:
        """1, true, yes, on or their opposites."""
        text = (self.text(name) or "").lower()
        if text not in _TRUE | _FALSE | {""}:
            self._bad(name, "1 or 0")
        return text in _TRUE if text else default

    def access_log(self, name: str) -> str:
        """``off``, ``on`` or ``all``."""
        text = (self.text(name) or "off").lower()
        if text not in _TRUE | _FALSE | {"all"}:
            self._bad(name, "1, 0 or all")
        return "all" if text == "all" else "on" if text in _TRUE else "off"

    def namespace(self, name: str) -> str | None:
        """CloudWatch's: up to 255 characters of a small alphabet, none of Amazon's own."""
        text = self.text(name)
        if text and (not _NAMESPACE.fullmatch(text) or text.startswith("AWS/")):
            self._bad(name, "1 to 255 of A-Z a-z 0-9 . - _ / # : that do not begin with AWS/")
        return text

    def dimensions(self, name: str) -> tuple[tuple[str, str], ...]:
        """``name=value`` pairs between commas: CloudWatch takes up to 30."""
        pairs = [part.partition("=") for part in (self.text(name) or "").split(",") if part.strip()]
        found = {key.strip(): value.strip() for key, _, value in pairs}
        good = all(
            1 <= len(key) <= 250 and 1 <= len(value) <= 1024 and not key.startswith((":", "_aws"))
            for key, value in found.items()
        )
        if not good or len(found) != len(pairs) or len(found) > 30:
            self._bad(name, "up to 30 pairs such as EndpointName=digits,VariantName=blue")
            return ()
        return tuple(found.items())

    def absolute_path(self, name: str) -> Path | None:
        """A path that begins with a slash."""
        text = self.text(name)
        if text is None:
            return None
        if not text.startswith("/"):
            self._bad(name, "an absolute path")
        return Path(text)

    def port_range(self, name: str) -> tuple[int, int] | None:
        """``XXXX-YYYY``: ports for further listeners, of which this server has none."""
        text = self.text(name)
        if text is None:
            return None
        first, dash, last = text.partition("-")
        low, high = _digits(first.strip()), _digits(last.strip())
        if not dash or low is None or high is None:
            self._bad(name, "two ports, such as 9100-9200")
            return None
        if not 1 <= low <= high <= 65535:
            self._bad(name, "two ports, the lower one first, up to 65535")
            return None
        return low, high

    def log_level(self, name: str) -> int:
        """A level's number as text, as the SDK sends it, or its name."""
        text = self.text(name)
        if text is None:
            return logging.INFO
        level = _digits(text)
        if level is None:
            level = logging.getLevelName(text.upper())
        if not isinstance(level, int):
            self._bad(name, "a level's number, such as 20, or its name, such as INFO")
            return logging.INFO
        return level


def _digits(text: str) -> int | None:
    """A number as plain digits, no more of them than any of ours has."""
    # isdigit() alone also takes "²", which int() refuses, as it does thousands of digits.
    return int(text) if text.isascii() and text.isdigit() and len(text) <= 9 else None
