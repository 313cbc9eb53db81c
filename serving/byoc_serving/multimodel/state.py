"""Where a model is in its life."""

from __future__ import annotations

import enum


class State(enum.Enum):
    """Where a model is in its life."""

    LOADING = "loading"
    READY = "ready"
    RESTARTING = "restarting"
    UNLOADING = "unloading"
