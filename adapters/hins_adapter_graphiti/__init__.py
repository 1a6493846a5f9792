"""The Graphiti adapter of hins-memory; importing it imports neither graphiti_core nor torch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hins_adapter_graphiti.embedding import HinsEmbedder

__all__ = ["HinsEmbedder"]

_HOMES = {"HinsEmbedder": "embedding"}


def __getattr__(name: str) -> Any:
    from hins_adapter_graphiti.plugin import plugin

    return plugin.exported(__name__, _HOMES, name)
