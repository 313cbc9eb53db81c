"""What fuzzing one target has come to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(frozen=True)
class Findings:
    """One target's figures.

    Attributes:
        name: the target's.
        runs: inputs that were tried.
        seconds: the time it had.
        ways: edges of the code that were reached, as the fuzzer counts them.
        corpus: inputs that are kept because each reached something new.
        artifacts: inputs that broke a promise.
        code: the fuzzer's exit code.
    """

    name: str
    runs: int
    seconds: float
    ways: int
    corpus: int
    artifacts: list[Path]
    code: int

    @property
    def broken(self) -> bool:
        """Whether a promise was broken, or the fuzzer could not run."""
        return self.code != 0 or bool(self.artifacts)

    def __str__(self) -> str:
        said = f"{self.name}: {self.runs} inputs, {self.ways} edges, corpus {self.corpus}"
        if not self.broken:
            return f"{said}, nothing broken"
        where = ", ".join(map(str, self.artifacts)) or "no input kept"
        return f"{said}, BROKEN (exit code {self.code}): {where}"
