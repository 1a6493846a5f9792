"""The CrewAI adapter of hins-memory; importing it imports neither crewai nor torch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hins_adapter_crewai.embedding import HinsEmbedder

__all__ = ["HinsEmbedder"]

_HOMES = {"HinsEmbedder": "embedding"}


def __getattr__(name: str) -> Any:
    from hins_adapter_crewai.plugin import plugin

    return plugin.exported(__name__, _HOMES, name)
