"""What a shell must know so that AWS's own programs talk to the local endpoint."""

from __future__ import annotations

#: Any signature is taken; clients refuse to send without credentials.
ACCESS_KEY, SECRET_KEY = "local", "local"


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
