"""What the files of a sentence-transformers folder say of a model, without loading it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

__all__ = ["needs_role", "truncated_dims"]

# Modules that treat queries and documents differently.
_TWO_SIDED = ("Router", "Asym")
# As sentence-transformers looks for the prompt of documents, in this order.
_DOCUMENT_PROMPTS = ("document", "passage", "corpus")


def needs_role(folder: Path) -> bool:
    """Tell whether a model embeds a text otherwise as a query than as a document.

    That is so for one with two sides, and for one whose prompts differ.
    """
    modules = _read(folder / "modules.json", list)
    if any(str(one.get("type", "")).endswith(_TWO_SIDED) for one in modules if isinstance(one, dict)):
        return True
    config = _read(folder / "config_sentence_transformers.json", dict)
    prompts = found if isinstance(found := config.get("prompts"), dict) else {}
    common = prompts.get(config.get("default_prompt_name"), "")
    query = prompts.get("query", common)
    document = next((prompts[name] for name in _DOCUMENT_PROMPTS if name in prompts), common)
    return bool(query != document)


def truncated_dims(folder: Path, dim: int) -> tuple[int, ...]:
    """Return the lengths that a model's vectors may be cut to, without the whole one, in ascending order.

    Only a model that was trained for it says so in its ``config.json``: by ``matryoshka_dimensions``, a list, or
    ``is_matryoshka``, for any length, as in vLLM (https://docs.vllm.ai, "Matryoshka Embeddings").

    Args:
        folder: of the model.
        dim: the length of its whole vectors.
    """
    config = _read(folder / "config.json", dict)
    listed = config.get("matryoshka_dimensions")
    if isinstance(listed, list):
        return tuple(sorted({one for one in listed if type(one) is int and 0 < one < dim}))
    return tuple(range(1, dim)) if config.get("is_matryoshka") is True else ()


def _read(path: Path, kind: type) -> Any:
    """Return what a file of JSON holds, an empty value where it is not there or holds another kind of value."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return kind()
    return found if isinstance(found, kind) else kind()
