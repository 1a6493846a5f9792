"""Finds out which version of MemoryOS an object is of: its parts, and the modules that embed for them."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import ModuleType
from typing import Any, Literal

from hins_memory.encoders.encoder import DEFAULT_MODEL
from hins_memory.errors import AgentError

__all__ = ["PARTS", "Shape", "is_memoryos", "shape_of"]

#: The parts of a Memoryos and what this adapter needs of each: attributes and methods.
PARTS: Mapping[str, tuple[str, ...]] = {
    "short_term_memory": ("file_path", "memory", "max_capacity", "add_qa_pair", "save", "load"),
    "mid_term_memory": (
        *("file_path", "sessions", "access_frequency", "add_session", "insert_pages_into_session"),
        *("search_sessions", "evict_lfu", "save", "load"),
    ),
    "user_long_term_memory": (
        *("file_path", "user_profiles", "knowledge_base", "assistant_knowledge", "add_knowledge_entry"),
        *("_search_knowledge_deque", "save", "load"),
    ),
    "assistant_long_term_memory": (
        *("file_path", "user_profiles", "knowledge_base", "assistant_knowledge", "add_knowledge_entry"),
        *("_search_knowledge_deque", "save", "load"),
    ),
    "retriever": ("retrieve_context",),
    "updater": ("process_short_term_to_mid_term",),
}


@dataclass(frozen=True)
class Shape:
    """The version and the parts of a Memoryos, as this adapter uses them.

    Attributes:
        release: ``pro`` is memoryos-pro 0.1, whose encoder is fixed; ``source`` the newer tree, where it is chosen.
        modules: the modules whose ``get_embedding`` the parts call.
        get_embedding: the function itself, as MemoryOS defines it.
        clear_cache: empties MemoryOS's own cache of embeddings.
        model_name: the encoder that MemoryOS embeds with by itself.
        model_kwargs: what MemoryOS gives that encoder.
    """

    release: Literal["pro", "source"]
    modules: tuple[ModuleType, ...]
    get_embedding: Callable[..., Any]
    clear_cache: Callable[[], None]
    model_name: str
    model_kwargs: Mapping[str, Any]


def is_memoryos(memory: Any) -> bool:
    """Return whether an object is a Memoryos of any version; imports nothing."""
    return any(cls.__name__ == "Memoryos" for cls in type(memory).__mro__)


def shape_of(memory: Any) -> Shape:
    """Return the version and the parts of a Memoryos.

    Raises:
        AgentError: it lacks something that this adapter needs; the message names it.
    """
    for part, names in PARTS.items():
        holder = getattr(memory, part, None)
        missing = [name for name in names if not hasattr(holder, name)]
        if missing:
            raise _unknown(memory, f"{part}.{missing[0]}" if holder is not None else part)
    for name in ("user_id", "assistant_id", "data_storage_path", "add_memory", "get_response"):
        if not hasattr(memory, name):
            raise _unknown(memory, name)
    mid = memory.mid_term_memory
    modules = tuple(dict.fromkeys(_embedding_module(part, memory) for part in (mid, memory.user_long_term_memory)))
    function = _original(modules[0].get_embedding)
    utils = sys.modules.get(function.__module__)
    model = getattr(mid, "embedding_model_name", None)
    return Shape(
        release="pro" if model is None else "source",
        modules=modules,
        get_embedding=function,
        clear_cache=_cache_clearer(utils),
        model_name=model or DEFAULT_MODEL,
        model_kwargs=dict(getattr(mid, "embedding_model_kwargs", None) or {}),
    )


def _embedding_module(part: Any, memory: Any) -> ModuleType:
    """Return the module that defines a part's class, in which it looks for its embedder."""
    for cls in type(part).__mro__:
        module = sys.modules.get(cls.__module__)
        if module is not None and hasattr(module, "get_embedding"):
            return module
    raise _unknown(memory, f"get_embedding in the module of {type(part).__name__}")


def _original(function: Any) -> Callable[..., Any]:
    original: Callable[..., Any] = getattr(function, "hins_original", function)
    return original


def _cache_clearer(utils: ModuleType | None) -> Callable[[], None]:
    cache = getattr(utils, "_embedding_cache", None)
    return cache.clear if isinstance(cache, dict) else lambda: None


def _unknown(memory: Any, missing: str) -> AgentError:
    kind = f"{type(memory).__module__}.{type(memory).__qualname__}"
    return AgentError(
        f"This {kind} is a MemoryOS of a shape that is not known: it has no {missing}.",
        "Known are memoryos-pro 0.1 from the package index and the memoryos-pypi tree of BAI-LAB/MemoryOS, which keep "
        "their memories in JSON files; memoryos-chromadb keeps them in ChromaDB and cannot be attached.",
    )
