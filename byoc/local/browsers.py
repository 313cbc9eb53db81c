"""Web pages kept out: whoever can call the endpoint can run programs on this machine.

It listens on the loopback interface, where every page in the user's browser can send requests as
well. Browsers say of a request where it comes from, and AWS's clients never do: so what has an
``Origin`` is refused. A page whose name is made to resolve to the loopback interface (DNS
rebinding) is of the same origin, and is known by its ``Host``.
"""

from __future__ import annotations

import ipaddress
from typing import TYPE_CHECKING, Any

from byoc.local.faults import AwsError

if TYPE_CHECKING:
    from collections.abc import Mapping

#: Names that only this machine, its containers and AWS's own clients use. A bucket may stand
#: before them.
_NAMES = ("localhost", "host.docker.internal", "amazonaws.com", "amazonaws.com.cn")


def refuse(environ: Mapping[str, Any]) -> None:
    """Refuse what a web page asks.

    Raises:
        AwsError: AccessDeniedException, 403.
    """
    origin = environ.get("HTTP_ORIGIN")
    if origin is not None:
        raise _denied(f"it comes from the web page {origin[:200]}")
    if environ.get("HTTP_SEC_FETCH_SITE", "none") not in ("none", "same-origin"):
        raise _denied("it comes from a web page")
    host = environ.get("HTTP_HOST", "")
    if host and not _is_ours(_name(host)):
        raise _denied(f"its Host is {host[:200]}; expected an address, or localhost")


def _name(host: str) -> str:
    """``Host`` without its port, and without IPv6's brackets."""
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.partition(":")[0].rstrip(".").lower()


def _is_ours(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return any(name == one or name.endswith(f".{one}") for one in _NAMES)
    return True


def _denied(why: str) -> AwsError:
    return AwsError(
        "AccessDeniedException", f"The local endpoint refuses this request: {why}.", 403
    )
