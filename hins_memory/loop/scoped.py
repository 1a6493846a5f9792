"""The loop for one tenant, user or owner: a tower from its own log, which embeds its searches alone."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from hins_memory.config import Settings
from hins_memory.loop.data import Progress
from hins_memory.loop.pipeline import Pipeline
from hins_memory.loop.settings import LoopSettings
from hins_memory.loop.shards import loop_data
from hins_memory.swapping import Scale, SwapPlan, SwapReport, roll_back_scope, serve_scope
from hins_memory.types import Scope

if TYPE_CHECKING:
    from hins_memory.encoders.encoder import Encoder
    from hins_memory.plugins.protocols import Agent

__all__ = ["ScopedPipeline"]


class ScopedPipeline(Pipeline):
    """The stages over one scope: they read its log and no other, and its tower replaces what serves its searches.

    Memories keep their vectors, which other scopes use too, so that only the mode `tower` is possible. The latest
    queries of the scope are held out for the gate. `rollback` and `retire` need no agent.

    Args:
        scope: a tenant (``Scope(tenant=...)``), all of a user (``Scope(user=...)``, which is outside of all tenants
            unless one is given), or an owner.
        settings: as for `Pipeline`, and so are the others.
        memory: a live agent object.
        loop: settings of every stage.
        progress: called while a stage runs.

    Every method raises a `HinsError` that says what is missing when it cannot do its work.
    """

    scope: Scope

    def __init__(
        self,
        scope: Scope,
        settings: Settings | None = None,
        memory: Any = None,
        *,
        loop: LoopSettings | None = None,
        progress: Progress | None = None,
    ) -> None:
        super().__init__(settings, memory, loop=loop, progress=progress)
        self.scope = scope
        self._key = scope.key
        self.loop = replace(self.loop, train=replace(self.loop.train, mode="tower"), deep="never")
        self._data = loop_data(self.settings, self.loop, progress, scope)

    def plan(self, version_id: str | None = None, scale: Scale | None = None) -> SwapPlan:
        """Return what a swap would take: nothing is embedded again."""
        return SwapPlan(self.scope.key, self._serving_version(), self._version(version_id).id, ())

    def rollback(self) -> SwapReport:
        """Return the scope to what served it before."""
        return roll_back_scope(self.scope, self.registry, super()._serving_version())

    def retire(self) -> list[str]:
        """Have the common encoder serve the scope, without a way back; return the versions that nothing needs now."""
        return self.registry.retire_scope(self.scope)

    def _flip(self, agent: Agent, encoder: Encoder, replaces: str | None) -> SwapReport:
        return serve_scope(agent, self.scope, encoder, self.registry, replaces=replaces)

    def _replaced(self, agent: Agent) -> str:
        return self._serving_version()

    def _serving_version(self) -> str:
        common = super()._serving_version()
        return self.registry.scoped_version(self.scope, self.registry.document_space(common)) or common
