"""The LangGraph adapter of hins-memory; importing it imports neither langgraph nor torch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hins_adapter_langgraph.embedding import HinsEmbeddings
    from hins_adapter_langgraph.store import HinsStore

__all__ = ["HinsEmbeddings", "HinsStore"]

_HOMES = {"HinsEmbeddings": "embedding", "HinsStore": "store"}


def __getattr__(name: str) -> Any:
    from hins_adapter_langgraph.plugin import plugin

    return plugin.exported(__name__, _HOMES, name)
