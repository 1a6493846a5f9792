"""Models of two sides, queries and documents, as sentence-transformers has them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hins_memory.encoders.layers import layers
from hins_memory.encoders.score_offset import with_modules

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

__all__ = ["sides_of", "two_sided"]


def two_sided(queries: SentenceTransformer, documents: SentenceTransformer) -> SentenceTransformer:
    """Return a model of sentence-transformers' own modules with a route for each side.

    Documents, and texts of no named role, go through the modules of `documents`, and get the vectors that they had.
    Any program that loads sentence-transformers folders loads it, without code of ours.

    Args:
        queries: embeds queries.
        documents: embeds documents; its prompts are kept.
    """
    Router = layers().Router

    sides = {"query": list(queries.children()), "document": list(documents.children())}
    return with_modules(documents, [Router(sides, default_route="document")])


def sides_of(model: SentenceTransformer) -> tuple[list[Any], list[Any]] | None:
    """Return the modules of the queries and those of the documents of a model with both; None for any other model."""
    Router = layers().Router

    modules = list(model.children())
    if len(modules) != 1 or not isinstance(modules[0], Router):
        return None
    routes = {name: list(route) for name, route in modules[0].sub_modules.items()}
    return (routes["query"], routes["document"]) if set(routes) == {"query", "document"} else None
