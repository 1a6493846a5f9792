"""The Hindsight adapter of hins-memory; importing it imports neither hindsight_api nor torch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hins_adapter_hindsight.embedding import HinsEmbeddings
    from hins_adapter_hindsight.extension import HinsExtension

__all__ = ["HinsEmbeddings", "HinsExtension"]

_HOMES = {"HinsEmbeddings": "embedding", "HinsExtension": "extension"}


def __getattr__(name: str) -> Any:
    from hins_adapter_hindsight.plugin import plugin

    return plugin.exported(__name__, _HOMES, name)
