"""The engine without HTTP: the same service and model thread, requests made in the process.

A program of its own for each core; prints the number of answers and the seconds as JSON. Answers
are submitted again by the thread that made them: no front, no event loop, no other thread.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

from byoc_serving.engine import Engine
from byoc_serving.inline import Inline
from byoc_serving.service import Service
from byoc_serving.settings import Settings
from byoc_serving.table import State, Table

if TYPE_CHECKING:
    from byoc_serving.backend import Delivery


class Loop:
    """Keeps a service busy.

    Args:
        service: loaded.
        bodies: taken in turn.
        content_type: their type.
    """

    def __init__(self, service: Service, bodies: list[bytes], content_type: str) -> None:
        self._service = service
        self._bodies = bodies
        self._kind = content_type.encode()
        self.answers = 0
        self.errors = 0
        self.stopping = False

    def submit(self) -> None:
        """Put one request in."""
        body = self._bodies[self.answers % len(self._bodies)]
        headers = [(b"content-type", self._kind), (b"content-length", b"%d" % len(body))]
        invocation = self._service.admit(headers)
        invocation.body = body
        self._service.submit(invocation)

    def deliver(self, pairs: Delivery) -> None:
        """Count a batch's answers and ask as many questions again."""
        self.errors += sum(response.status != 200 for _, response in pairs)
        for _ in pairs:
            self.answers += 1
            if not self.stopping:
                self.submit()


def main() -> None:
    """Arguments: folder of bodies, content type, requests at once, seconds."""
    folder, content_type, at_once, seconds = sys.argv[1:]
    logging.basicConfig(level=logging.WARNING)
    settings = Settings.from_environ(os.environ)
    table = Table(1)
    engine = Engine(settings, Path(tempfile.mkdtemp()))
    service = Service(settings, table, 0, Inline(engine))
    bodies = [path.read_bytes() for path in sorted(Path(folder).glob("body-*"))]
    loop = Loop(service, bodies, content_type)
    loaded = threading.Event()
    service.start(loop.deliver, loaded.set)
    loaded.wait()
    if service.failure is not None:
        sys.exit(service.failure)
    service.enter(State.READY, os.getpid())
    for _ in range(int(at_once)):
        loop.submit()
    time.sleep(2)
    before, began = loop.answers, time.monotonic()
    time.sleep(float(seconds))
    answers, wall = loop.answers - before, time.monotonic() - began
    loop.stopping = True
    service.close(10)
    print(json.dumps({"answers": answers, "seconds": wall, "errors": loop.errors}))


if __name__ == "__main__":
    main()
