"""The LlamaIndex adapter of hins-memory; importing it imports neither llama_index nor torch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hins_adapter_llamaindex.embedding import HinsEmbedding

__all__ = ["HinsEmbedding"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from hins_adapter_llamaindex.plugin import plugin

    plugin.require()
    from hins_adapter_llamaindex import embedding

    return getattr(embedding, name)
