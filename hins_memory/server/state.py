"""What the routes of one server share."""

from __future__ import annotations

from fastapi import Request

from hins_memory.config import Settings
from hins_memory.registry.loader import EncoderSource
from hins_memory.registry.registry import Registry
from hins_memory.server.metrics import Metrics
from hins_memory.server.settings import ServeSettings

__all__ = ["ServerState", "state_of"]


class ServerState:
    """What the routes of one server share: the project, its registry, its encoders and the metrics.

    Args:
        settings: the project.
        options: the server's bounds and keys.
    """

    def __init__(self, settings: Settings, options: ServeSettings) -> None:
        self.settings = settings
        self.options = options
        self.metrics = Metrics()
        self.registry = Registry(settings)
        self.source = EncoderSource(self.registry)


def state_of(request: Request) -> ServerState:
    """Return the state of the server that a request came to."""
    state: ServerState = request.app.state.server
    return state
