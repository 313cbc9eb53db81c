"""gunicorn's log records through ours."""

from __future__ import annotations

from typing import Any

from gunicorn.glogging import Logger


class GunicornLog(Logger):  # type: ignore[misc] # gunicorn is untyped
    """Leaves handlers and levels as ``logs.configure`` has set them."""

    def setup(self, cfg: Any) -> None:
        """No handlers of its own: records go up to the root's."""
        levels = self.error_log.level, self.access_log.level
        super().setup(cfg)
        for logger, level in zip((self.error_log, self.access_log), levels, strict=True):
            logger.handlers.clear()
            logger.propagate = True
            logger.setLevel(level)
