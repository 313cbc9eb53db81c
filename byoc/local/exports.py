"""What a shell must know so that AWS's own programs talk to the local endpoint."""

from __future__ import annotations

import os

#: Any signature is taken; clients refuse to send without credentials.
ACCESS_KEY, SECRET_KEY = "local", "local"
#: What no proxy can reach.
NO_PROXY = ("127.0.0.1", "localhost")


def variables(url: str, region: str) -> dict[str, str]:
    """The environment of a client."""
    return {
        "AWS_ENDPOINT_URL": url,
        "AWS_ACCESS_KEY_ID": ACCESS_KEY,
        "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
        "AWS_DEFAULT_REGION": region,
        # Newer clients take this one first.
        "AWS_REGION": region,
    }


def shell(url: str, region: str) -> dict[str, str]:
    """The environment of a client, as a shell exports it on top of what it has."""
    without = no_proxy(os.environ.get("no_proxy") or os.environ.get("NO_PROXY") or "")
    # Some programs read the one spelling, some the other; those that know both take the small one.
    return {**variables(url, region), "NO_PROXY": without, "no_proxy": without}


def no_proxy(given: str) -> str:
    """The hosts that are reached without a proxy: those given, and this machine."""
    hosts = [host for host in (one.strip() for one in given.split(",")) if host]
    if "*" in hosts:  # all of them, and only while it stands alone
        return "*"
    return ",".join([*hosts, *(host for host in NO_PROXY if host not in hosts)])
