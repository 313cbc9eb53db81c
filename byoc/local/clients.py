"""boto3 clients of this very endpoint: a job's transfers and logs go the way of any client's."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

from byoc.local.exports import ACCESS_KEY, SECRET_KEY

if TYPE_CHECKING:
    from byoc.local.actions import Context

#: A transfer of several parts and several jobs share the connections.
CONNECTIONS = 32


class Clients:
    """One client a service, made when it is first asked for; they may be used by any thread."""

    def __init__(self, context: Context) -> None:
        self._url, self._region = context.url, context.region
        self._lock = threading.Lock()
        self._session: Any = None
        self._clients: dict[str, Any] = {}

    def __call__(self, service: str) -> Any:
        """The client of a service such as ``s3`` or ``logs``."""
        with self._lock:
            if service not in self._clients:
                self._clients[service] = self._make(service)
            return self._clients[service]

    def _make(self, service: str) -> Any:
        import boto3  # noqa: PLC0415 - heavy
        from botocore.config import Config  # noqa: PLC0415 - heavy

        if self._session is None:
            self._session = boto3.session.Session(
                aws_access_key_id=ACCESS_KEY,
                aws_secret_access_key=SECRET_KEY,
                region_name=self._region,
            )
        config = Config(
            max_pool_connections=CONNECTIONS,
            retries={"max_attempts": 2, "mode": "standard"},
            s3={"addressing_style": "path"},
            # Nobody's proxy or profile has a say in what stays on this machine.
            proxies={},
        )
        return self._session.client(service, endpoint_url=self._url, config=config)
