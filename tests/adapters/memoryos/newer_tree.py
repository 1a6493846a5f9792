"""Writes a variant of the installed memoryos-pro with the interface of MemoryOS's newer source tree.

What differs, and is made here by editing the installed files: the encoder is chosen by name and options, its caches
are keyed by both, pages are made when the next pair is added, a segment takes the keywords it is given, and the
modules lie flat beside memoryos.py. It is no copy of the newer tree.
"""

from __future__ import annotations

import re
from pathlib import Path

import memoryos

__all__ = ["write_newer_tree"]

_CHOICE = 'embedding_model_name="all-MiniLM-L6-v2", embedding_model_kwargs=None'
_KEEP = """self.embedding_model_name = embedding_model_name
        self.embedding_model_kwargs = embedding_model_kwargs or {}
        """


def write_newer_tree(folder: Path) -> None:
    """Write the variant, flat, into a new folder."""
    source = Path(memoryos.__file__).parent
    folder.mkdir(parents=True)
    for path in source.glob("*.py"):
        if path.name != "__init__.py":
            edit = _EDITS.get(path.name, lambda text: text)
            (folder / path.name).write_text(edit(path.read_text(encoding="utf-8")), encoding="utf-8")


def _once(text: str, old: str, new: str) -> str:
    assert text.count(old) == 1, old
    return text.replace(old, new)


def _calls(text: str) -> str:
    """Name the encoder in each call of get_embedding, and keep its name in each memory."""
    text, calls = re.subn(
        r"(= get_embedding\(\w+)\)", r"\1, model_name=self.embedding_model_name, **self.embedding_model_kwargs)", text
    )
    assert calls
    text, kept = re.subn(r"( {8})self\.load\(\)\n", rf"\1{_KEEP}self.load()\n", text, count=1)
    assert kept
    return text


def _utils(text: str) -> str:
    text = _once(
        text,
        "use_cache=True):",
        "use_cache=True, **kwargs):\n    key = json.dumps({'model_name': model_name, **kwargs})",
    )
    text = _once(text, 'cache_key = f"{model_name}::{hash(text)}"', 'cache_key = f"{key}::{hash(text)}"')
    text = text.replace("_model_cache[model_name]", "_model_cache[key]")
    text = _once(text, "if model_name not in _model_cache:", "if key not in _model_cache:")
    return _once(text, "SentenceTransformer(model_name)", "SentenceTransformer(model_name, **kwargs)")


def _mid_term(text: str) -> str:
    text = _once(text, "max_capacity=2000):", f"max_capacity=2000, {_CHOICE}):")
    text = _once(
        text,
        "def add_session(self, summary, details):",
        "def add_session(self, summary, details, summary_keywords=None):",
    )
    text = _once(text, "list(llm_extract_keywords(summary, client=self.client))", "summary_keywords or []")
    text = text.replace(
        "add_session(summary_for_new_pages, pages_to_insert)",
        "add_session(summary_for_new_pages, pages_to_insert, keywords_for_new_pages)",
    )
    return _calls(text)


def _long_term(text: str) -> str:
    return _calls(_once(text, "knowledge_capacity=100):", f"knowledge_capacity=100, {_CHOICE}):"))


def _memoryos(text: str) -> str:
    chosen = "embedding_model_name=embedding_model_name, embedding_model_kwargs=embedding_model_kwargs)"
    text = _once(text, 'llm_model="gpt-4o-mini" #', f'llm_model="gpt-4o-mini", {_CHOICE} #')
    text = text.replace("max_capacity=mid_term_capacity)", f"max_capacity=mid_term_capacity, {chosen}")
    text = text.replace(
        "knowledge_capacity=long_term_knowledge_capacity)", f"knowledge_capacity=long_term_knowledge_capacity, {chosen}"
    )
    # The pair is added after the older ones have become pages.
    text = _once(text, "        self.short_term_memory.add_qa_pair(qa_pair)\n", "")
    profile = "        # After any memory addition"
    return _once(text, profile, f"        self.short_term_memory.add_qa_pair(qa_pair)\n{profile}")


_EDITS = {"utils.py": _utils, "mid_term.py": _mid_term, "long_term.py": _long_term, "memoryos.py": _memoryos}
