"""Rounds gathered into rows: the best and the median of each figure."""

from __future__ import annotations

import statistics
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from benchmarks.serving.catalog import Peer
    from benchmarks.serving.trial import Figures


@dataclass
class Row:
    """A server's rounds.

    Attributes:
        peer: the server.
        rounds: what was measured.
        failure: why nothing was, or why a round is missing.
    """

    peer: Peer
    rounds: list[Figures] = field(default_factory=list)
    failure: str | None = None

    def best(self, load: str) -> dict[str, float] | None:
        """The round of a load (``json-32``) with the highest rate."""
        seen = [figures.loads[load] for figures in self.rounds if load in figures.loads]
        return max(seen, key=lambda figures: figures["rate"]) if seen else None

    def rate(self, load: str) -> float | None:
        """Best rate, requests a second."""
        best = self.best(load)
        return best["rate"] if best else None

    def median(self, load: str) -> float | None:
        """Median rate, requests a second."""
        seen = [figures.loads[load]["rate"] for figures in self.rounds if load in figures.loads]
        return statistics.median(seen) if seen else None

    def least(self, load: str, figure: str) -> float | None:
        """The smallest value of a figure (``p50_ms``) over the rounds."""
        seen = [figures.loads[load][figure] for figures in self.rounds if load in figures.loads]
        return min(seen) if seen else None

    @property
    def start_s(self) -> float | None:
        """Start to the first right answer; the first start reads files from disk, so the best."""
        return min((figures.start_s for figures in self.rounds), default=None)

    @property
    def pss_mib(self) -> float | None:
        """Memory after load, the smallest."""
        return min((figures.pss_mib for figures in self.rounds), default=None)

    @property
    def errors(self) -> int:
        """Errors of all loads and rounds."""
        return int(sum(load["errors"] for f in self.rounds for load in f.loads.values()))

    def as_json(self) -> dict[str, Any]:
        """Everything, for the file beside the table."""
        return {
            "name": self.peer.name,
            "about": self.peer.about,
            "requirements": list(self.peer.requirements),
            "batches": self.peer.batches,
            "failure": self.failure,
            "rounds": [vars(figures) for figures in self.rounds],
        }


@dataclass(frozen=True)
class Bounds:
    """What was measured without a server: answers a second by kind, and seconds."""

    engine: dict[str, float]
    import_torch_s: float
