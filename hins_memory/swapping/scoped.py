"""The swap of a tower that serves one scope: the queries of its searches change, no vector and no other search does."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from hins_memory.errors import SwapError
from hins_memory.swapping.query_only import check_shared_vectors, shares_vectors
from hins_memory.swapping.swap import SwapReport

if TYPE_CHECKING:
    from hins_memory.encoders.encoder import Encoder
    from hins_memory.plugins.protocols import Agent
    from hins_memory.registry.registry import Registry
    from hins_memory.types import Scope

__all__ = ["roll_back_scope", "serve_scope"]


def serve_scope(
    agent: Agent, scope: Scope, encoder: Encoder, registry: Registry, *, replaces: str | None = None
) -> SwapReport:
    """Have a scope's searches embedded by its own version; every process follows within a second.

    Args:
        agent: the live agent, over whose vectors it is to search.
        scope: the scope that it was made for.
        encoder: the version, loaded.
        registry: where the swap is recorded.
        replaces: the version that the gate compared with; None replaces whatever serves.

    Raises:
        SwapError: it searches other vectors than those that are stored, another version than `replaces` serves the
            scope by now, or another swap of the agent is running; the scope is served as before.
    """
    started = time.perf_counter()
    version = encoder.version
    with registry.swap_lock(agent.store_id):
        agent.refresh()
        live = registry.live_index(agent.store_id)
        if live is None or not shares_vectors(live, version, registry):
            raise SwapError(
                f"{version} searches vectors of {registry.document_space(version)}, and {agent.store_id} is served by "
                f"{live.version if live else 'none that is known'}.",
                f"The common encoder serves {scope.key}: train a tower for it again.",
            )
        check_shared_vectors(agent, encoder)
        before = registry.scoped_version(scope, encoder.space) or live.version
        if replaces not in (None, before):
            raise SwapError(
                f"{version} was compared with {replaces}, but {before} serves {scope.key} by now.",
                "Judge the version again (hins gate), then swap.",
            )
        registry.serve_scope(version)
    seconds = time.perf_counter() - started
    return SwapReport(scope.key, version, before, live.suffix, before != version, (), seconds, 0.0)


def roll_back_scope(scope: Scope, registry: Registry, common: str) -> SwapReport:
    """Return a scope to what served it before.

    Args:
        scope: the scope.
        registry: where it is recorded.
        common: the version that serves everyone else.

    Raises:
        SwapError: it never had a version of its own.
    """
    started = time.perf_counter()
    after, before = registry.roll_back_scope(scope)
    seconds = time.perf_counter() - started
    return SwapReport(scope.key, after or common, before or common, "", True, (), seconds, 0.0)
