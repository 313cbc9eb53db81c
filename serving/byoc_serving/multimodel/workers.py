"""gunicorn's workers for a multi-model server: the same two fronts with more routes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from byoc_serving.multimodel.fleet import Fleet
from byoc_serving.workers import AsgiWorker, WsgiWorker

if TYPE_CHECKING:
    from byoc_serving.service import Service


class AsgiModelsWorker(AsgiWorker):
    """The ASGI front of a multi-model server."""

    def load_wsgi(self) -> None:
        """Make the application; models come by request."""
        from byoc_serving.multimodel.front import ModelsFront  # noqa: PLC0415 - imports Flask

        super().load_wsgi()
        self.front = self.asgi = ModelsFront(self.service, self.bridge, _fleet(self.service))

    def _flask(self) -> Any:
        from byoc_serving.multimodel.front import create_models_app  # noqa: PLC0415 - late

        return create_models_app(self.service, _fleet(self.service))


class WsgiModelsWorker(WsgiWorker):
    """The WSGI front of a multi-model server."""

    def _flask(self) -> Any:
        from byoc_serving.multimodel.front import create_models_app  # noqa: PLC0415 - late

        return create_models_app(self.service, _fleet(self.service))


def _fleet(service: Service) -> Fleet:
    assert isinstance(service.backend, Fleet)  # noqa: S101 - the master makes it so
    return service.backend
