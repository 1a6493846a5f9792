"""What the routes of one server share: its models, what embeds with them, and the metrics."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from typing import Any

from fastapi import Request

from hins_memory.config import Settings
from hins_memory.registry.onnx_exports import OnnxExports
from hins_memory.registry.registry import Registry
from hins_memory.server.batching import Embedded, QueueClosed, QueueFull
from hins_memory.server.capture.recording import Recording
from hins_memory.server.catalog import Catalog, Model
from hins_memory.server.metrics import Metrics
from hins_memory.server.page.page_state import PageState
from hins_memory.server.pool import EncoderPool
from hins_memory.server.problems import ApiError
from hins_memory.server.roles import SCOPE_HEADER, Target, Targets
from hins_memory.server.settings import ServeSettings
from hins_memory.types import Role

__all__ = ["ServerState", "state_of"]

logger = logging.getLogger(__name__)

_FOLLOW_SECONDS = 0.5


class ServerState:
    """What the routes of one server share.

    Args:
        settings: the project.
        options: the server's bounds and keys.

    Raises:
        LogError: the project's database cannot be opened.
    """

    def __init__(self, settings: Settings, options: ServeSettings) -> None:
        self.settings = settings
        self.options = options
        self.metrics = Metrics()
        self.registry = Registry(settings)
        self.recording = Recording(settings)
        self.page = PageState(settings, self.registry, options.page)
        self.catalog = Catalog(self.registry)
        self.targets = Targets(self.catalog, self.registry)
        self.pool = EncoderPool(self.catalog, OnnxExports(settings), options, self.metrics)
        #: whether a version that serves was loaded, so that requests are answered at once
        self.ready = False
        # The version that was loaded when it began to serve.
        self._begun = ""

    async def target(self, name: str, role: Role | None, header: Callable[[str], str]) -> Target:
        """Return what embeds a request; see `Targets.find`. What other processes changed is known within a second."""
        if not self.catalog.current:
            # The first request may come before the first look.
            await self.refreshed()
        try:
            return await self._target(name, role, header)
        except ApiError as error:
            if error.status != 404 or not self.catalog.stale:
                raise
            # It may be newer than what is known.
            await self.refreshed()
            return await self._target(name, role, header)

    async def _target(self, name: str, role: Role | None, header: Callable[[str], str]) -> Target:
        if not header(SCOPE_HEADER):
            return self.targets.find(name, role, header)
        # Which scopes have a tower is read from the database.
        return await asyncio.to_thread(self.targets.find, name, role, header)

    async def refreshed(self) -> None:
        """Have the catalog look what other processes changed, if it did not just now."""
        if self.catalog.stale:
            await asyncio.to_thread(self.catalog.refresh)

    async def embed(self, request: Request, target: Target, texts: Sequence[str]) -> Embedded:
        """Embed the texts of a request.

        Raises:
            ApiError: too many texts wait, or the client went away.
            EncoderError: the encoder cannot be loaded.
        """
        started = time.perf_counter()
        embedded = await self._embedded(request, target, texts)
        if embedded is None:
            self.metrics.cancelled.inc()
            raise ApiError(499, "The client went away.", code="cancelled")
        if target.stored is not None and not self.catalog.is_noted(target.stored):
            await asyncio.to_thread(self.catalog.note, target.stored)
        self.metrics.embedding_seconds.observe(time.perf_counter() - started)
        self.metrics.texts.labels(target.model.version, target.role).inc(len(texts))
        return embedded

    async def _embedded(self, request: Request, target: Target, texts: Sequence[str]) -> Embedded | None:
        while True:
            try:
                future = self.pool.get(target.model).submit(texts, target.role)
            except QueueClosed:
                # It was unloaded in between, to make room, or could not be loaded.
                await asyncio.sleep(0)
                continue
            except QueueFull as error:
                message = f"Too many texts wait for {target.model.id}: try again in {error.seconds} seconds."
                raise ApiError(429, message, headers={"Retry-After": str(error.seconds)}) from error
            return await _while_connected(request, asyncio.wrap_future(future))

    @contextlib.asynccontextmanager
    async def running(self, tasks: Sequence[Coroutine[Any, Any, None]] = ()) -> AsyncIterator[None]:
        """Follow other processes' swaps inside the block, and run tasks beside; unload everything at the end."""
        running = [asyncio.create_task(one) for one in (self._follow(), *tasks)]
        try:
            yield
        finally:
            for task in running:
                task.cancel()
            await asyncio.gather(*running, return_exceptions=True)
            await asyncio.to_thread(self.pool.close)
            await asyncio.to_thread(self.recording.close)

    async def _follow(self) -> None:
        while True:
            try:
                await self._step()
            except Exception:
                logger.exception("What other processes changed could not be followed")
            await asyncio.sleep(_FOLLOW_SECONDS)

    async def _step(self) -> None:
        await asyncio.to_thread(self.catalog.refresh)
        current = self.catalog.version(self.catalog.current)
        models = self.catalog.models()
        await asyncio.to_thread(self.pool.retain, {one.version for one in models})
        for model in models:
            self.metrics.serving.labels(model.version).set(float(model is current))
        if current is not None and self._begun != current.version:
            self._begin(current)

    def _begin(self, model: Model) -> None:
        """Load a version that serves from now on, before the first request asks for it; called until that is done."""
        loading = self.pool.get(model).loaded
        if loading.done() and loading.exception() is None:
            self._begun, self.ready = model.version, True


def state_of(request: Request) -> ServerState:
    """Return the state of the server that a request came to."""
    state: ServerState = request.app.state.server
    return state


async def _while_connected(request: Request, waiting: asyncio.Future[Embedded]) -> Embedded | None:
    """Wait for vectors; when the client goes away, they are cancelled, and the answer is None."""
    gone = asyncio.create_task(_disconnected(request))
    gone.add_done_callback(lambda _: waiting.cancel())
    try:
        return await waiting
    except asyncio.CancelledError:
        if gone.done():
            return None
        # The server stops.
        raise
    finally:
        gone.cancel()


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
