"""The LlamaIndex adapter of hins-memory; importing it imports neither llama_index nor torch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hins_adapter_llamaindex.embedding import HinsEmbedding

__all__ = ["HinsEmbedding"]

_HOMES = {"HinsEmbedding": "embedding"}


def __getattr__(name: str) -> Any:
    from hins_adapter_llamaindex.plugin import plugin

    return plugin.exported(__name__, _HOMES, name)
