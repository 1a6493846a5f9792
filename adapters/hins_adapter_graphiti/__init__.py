"""The Graphiti adapter of hins-memory; importing it imports neither graphiti_core nor torch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hins_adapter_graphiti.embedding import HinsEmbedder

__all__ = ["HinsEmbedder"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from hins_adapter_graphiti.plugin import plugin

    plugin.require()
    from hins_adapter_graphiti import embedding

    return getattr(embedding, name)
