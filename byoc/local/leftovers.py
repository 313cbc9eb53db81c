"""What an earlier endpoint on this folder left behind: processes, containers, logs to be told."""

from __future__ import annotations

from typing import TYPE_CHECKING

from byoc.local import host_containers, orphans

if TYPE_CHECKING:
    from collections.abc import Mapping

    from byoc.local.actions import Action, Context
    from byoc.local.journal import Journals


class Leftovers:
    """Ends processes and containers of a killed endpoint; comes before all that may start some."""

    actions: Mapping[str, Action] = {}

    def __init__(self, context: Context, runner: str) -> None:
        self._home, self._runner = context.home.root, runner

    def recover(self) -> None:
        """End them."""
        orphans.end_of_others(self._home)
        if self._runner != "process":
            host_containers.remove_leftovers(self._home)

    def close(self) -> None:
        """Nothing runs."""


class Logs:
    """Tells CloudWatch Logs what the files hold; comes last, as it may take a while."""

    actions: Mapping[str, Action] = {}

    def __init__(self, journals: Journals) -> None:
        self._journals = journals

    def recover(self) -> None:
        """Tell them."""
        self._journals.recover()

    def close(self) -> None:
        """Nothing runs."""
