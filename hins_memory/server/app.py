"""The application: routers from the room's modules, behind the middleware that bounds and counts everything."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator

from fastapi import FastAPI

import hins_memory
from hins_memory.config import Settings
from hins_memory.server import embeddings, health, metrics, tei, watch
from hins_memory.server.capture import routes as capture
from hins_memory.server.middleware import Gatekeeper, Journal
from hins_memory.server.page import routes as page
from hins_memory.server.problems import add_handlers
from hins_memory.server.settings import ServeSettings
from hins_memory.server.state import ServerState

__all__ = ["create_app"]

# What the `router` of a module needs of the server it gets by `state_of(request)`. A `background`, a coroutine function
# of the state, runs as long as the server does.
_MODULES = (health, metrics, embeddings, tei, capture, watch, page)


def create_app(settings: Settings, options: ServeSettings | None = None) -> FastAPI:
    """Return the application that serves a project.

    Args:
        settings: the project.
        options: bounds and keys; None stands for the defaults, which let in all programs of this machine.

    Raises:
        LogError: the project's database cannot be opened.
    """
    state = ServerState(settings, options or ServeSettings())

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with state.running([module.background(state) for module in _MODULES if hasattr(module, "background")]):
            yield

    # FastAPI's own pages of the API fetch scripts from elsewhere; `page` has one.
    app = FastAPI(
        title="hins-memory", version=hins_memory.__version__, lifespan=lifespan, docs_url=None, redoc_url=None
    )
    app.state.server = state
    state.metrics.registry.register(watch.LogCollector(state))
    add_handlers(app)
    for module in _MODULES:
        if hasattr(module, "router"):
            app.include_router(module.router)
    # The last one added is the first to see a request.
    app.add_middleware(Gatekeeper, options=state.options, metrics=state.metrics)
    app.add_middleware(Journal, metrics=state.metrics)
    return app
