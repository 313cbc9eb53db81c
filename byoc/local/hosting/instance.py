"""One instance of a variant: its container, or the several of a pipeline."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from byoc.local.hosting.container import Container


class Instance:
    """What requests are sent to.

    Attributes:
        stream: Of its first container in CloudWatch Logs.
        containers: By host name, in the order in which a pipeline asks them.
    """

    def __init__(self, stream: str, containers: dict[str, Container]) -> None:
        self.stream, self.containers = stream, containers
        self._all = [*containers.values()]

    @property
    def ready(self) -> bool:
        """Whether requests may be sent to it."""
        return all(one.ready for one in self._all)

    @property
    def in_flight(self) -> int:
        """Requests that it has not answered completely."""
        return sum(one.in_flight for one in self._all)

    @property
    def only(self) -> Container:
        """The first container: of most instances the only one."""
        return self._all[0]

    def start(self) -> None:
        """See `Container.start`."""
        for one in self._all:
            one.start()

    def check_start(self) -> None:
        """See `Container.check_start`."""
        for one in self._all:
            if not one.ready:
                one.check_start()

    def check(self) -> None:
        """See `Container.check`."""
        for one in self._all:
            one.check()

    def stop(self) -> None:
        """See `Container.stop`."""
        for one in self._all:
            one.stop()
