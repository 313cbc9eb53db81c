"""The endpoint as containers see it.

It listens on the loopback interface alone, which is not the container's. So for the time of a job
a relay listens on the gateway of the job's network, an address that this machine and the
containers of that network have, and hands connections on.
"""

from __future__ import annotations

import contextlib
import errno
import ipaddress
import socket
import threading
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

_CHUNK_BYTES = 1 << 16


class Relay:
    """Hands connections on.

    Args:
        address: Where it listens, on a free port.
        port: Of the endpoint.

    Raises:
        OSError: The address is not this machine's.
    """

    def __init__(self, address: str, port: int) -> None:
        if not address:
            # An empty address would be every interface of this machine.
            raise OSError(errno.EADDRNOTAVAIL, "the network has no gateway")
        self._to = ("127.0.0.1", port)
        self._listener = socket.create_server((address, 0))
        self.url = f"http://{address}:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._accept, name="relay", daemon=True).start()

    def close(self) -> None:
        """Take no more connections; those that are open end with their container."""
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            try:
                onward = socket.create_connection(self._to)
            except OSError:
                connection.close()
                continue
            done = threading.Barrier(2)
            for source, target in ((connection, onward), (onward, connection)):
                threading.Thread(
                    target=_copy, args=(source, target, done), name="relay", daemon=True
                ).start()


def _copy(source: socket.socket, target: socket.socket, done: threading.Barrier) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(_CHUNK_BYTES):
            target.sendall(data)
    with contextlib.suppress(OSError):
        target.shutdown(socket.SHUT_WR)
    with contextlib.suppress(threading.BrokenBarrierError):
        done.wait()
    source.close()


def gateway(network: Mapping[str, Any]) -> str:
    """This machine's address in a network of the engine's; empty where there is none.

    Args:
        network: As the engine describes it. The default network's has no gateway in the
            description until a container has been in it; it is the subnet's first address.
    """
    configured = (network.get("IPAM") or {}).get("Config") or [{}]
    if named := configured[0].get("Gateway"):
        return str(named)
    subnet = configured[0].get("Subnet")
    return str(next(ipaddress.ip_network(subnet).hosts())) if subnet else ""
