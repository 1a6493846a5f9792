"""MemoryOS's JSON files: where they are, and what in them has a vector."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from hins_memory.common.text import well_formed
from hins_memory.sdk.json_files import files_below
from hins_memory.sdk.vector_files import Entry, VectorFiles

__all__ = ["MemoryosFiles", "encodable", "is_inside", "page_text"]

_KNOWLEDGE = ("knowledge_base", "assistant_knowledge")
# Where the files with vectors are, and their names.
_FILES: Mapping[str, tuple[str, ...]] = {
    "users": ("mid_term.json", "long_term_user.json"),
    "assistants": ("long_term_assistant.json",),
}


def encodable(text: Any) -> str:
    """Return a text as an encoder can read it: a lone surrogate, which UTF-8 cannot encode, becomes U+FFFD."""
    return well_formed(str(text))


def page_text(page: Mapping[str, Any]) -> str:
    """Return the text of a page that MemoryOS embeds."""
    return encodable(f"User: {page.get('user_input', '')} Assistant: {page.get('agent_response', '')}")


class MemoryosFiles(VectorFiles):
    """The files of every user and assistant under a data_storage_path.

    MemoryOS ignores the mark of a file's vectors on loading and leaves it out on saving, so a file that it saved by
    itself is never taken for one of ours.
    """

    framework = "MemoryOS"
    #: a segment's summary, a page, an entry of user or assistant knowledge
    kinds = ("summaries", "pages", "knowledge")

    def paths(self) -> list[Path]:
        """Return the files with vectors; links are followed."""
        return sorted(path for folder, names in _FILES.items() for path in files_below(self.root / folder, names))

    def entries_in(self, document: Mapping[str, Any]) -> Iterator[Entry]:
        """Yield everything with a vector in a mid-term or long-term document; whatever is malformed is left out."""
        sessions = document.get("sessions")
        for session in list(sessions.values()) if isinstance(sessions, Mapping) else ():
            if not isinstance(session, dict):
                continue
            yield Entry("summaries", encodable(session.get("summary", "")), session, "summary_embedding")
            for page in _dicts(session.get("details")):
                yield Entry("pages", page_text(page), page, "page_embedding")
        for name in _KNOWLEDGE:
            for entry in _dicts(document.get(name)):
                yield Entry("knowledge", encodable(entry.get("knowledge", "")), entry, "knowledge_embedding")

    def problem(self, document: Mapping[str, Any]) -> str:
        """Return in words which part of a mid-term or long-term document MemoryOS could not use; "" for none."""
        sessions = document.get("sessions", {})
        if not isinstance(sessions, dict) or not all(isinstance(session, dict) for session in sessions.values()):
            return "sessions are not objects"
        if not all(_lists_objects(session.get("details", [])) for session in sessions.values()):
            return "the pages of a session are not a list of objects"
        wrong = next((name for name in _KNOWLEDGE if not _lists_objects(document.get(name, []))), "")
        return f"{wrong} is not a list of objects" if wrong else ""


def _dicts(value: Any) -> list[dict[str, Any]]:
    """Return the dicts in a list, or in what a deque holds; [] for anything else."""
    # A copy first: another thread may change the list meanwhile.
    return [one for one in list(value) if isinstance(one, dict)] if isinstance(value, (list, tuple, deque)) else []


def _lists_objects(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(one, dict) for one in value)


def is_inside(id_: Any) -> bool:
    """Return whether a user's or assistant's id, of which MemoryOS makes a path, stays in the folder meant for it."""
    path = Path(os.fspath(id_))
    return not path.is_absolute() and ".." not in path.parts
