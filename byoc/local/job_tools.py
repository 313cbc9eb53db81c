"""What every kind of job works with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from byoc.local import images
from byoc.local.host_containers import ContainerCluster
from byoc.local.host_processes import ProcessCluster

if TYPE_CHECKING:
    from collections.abc import Callable

    from byoc.local.actions import Context
    from byoc.local.clients import Clients
    from byoc.local.hosts import Cluster
    from byoc.local.journal import Journals
    from byoc.local.queue import Queue
    from byoc.local.references import References


@dataclass(frozen=True)
class Tools:
    """Shared by all jobs of an endpoint.

    Attributes:
        context: Of the endpoint.
        clients: Of this very endpoint.
        journals: Log streams.
        queue: Of all kinds of job.
        references: Looks up what requests name.
        runner: ``auto``, ``docker`` or ``process``.
        log: The server's own.
    """

    context: Context
    clients: Clients
    journals: Journals
    queue: Queue
    references: References
    runner: str
    log: Callable[[str], None]

    def choose(self, image: str) -> images.Chosen:
        """What stands for an image.

        Raises:
            ImageError: Nothing does.
        """
        return images.choose(image, self.runner)

    def cluster(
        self, chosen: images.Chosen, job: str, arn: str, count: int, *, isolated: bool
    ) -> Cluster:
        """A place for the hosts of a job.

        Args:
            chosen: What they run.
            job: The job's name.
            arn: Its ARN.
            count: How many there are.
            isolated: Whether they reach nothing but each other.

        Raises:
            HostError: There is none.
        """
        home, url, region = self.context.home.root, self.context.url, self.context.region
        if chosen.image is None:
            return ProcessCluster(home, url, region, arn, count)
        return ContainerCluster(home, url, region, chosen.image, job, count, isolated=isolated)
