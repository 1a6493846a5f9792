"""The parts of an attached Memoryos: they embed with their binding, save in one step, and record.

The methods of each class here replace those of one of MemoryOS's own, which they call and whose results they return.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, cast

from hins_adapter_memoryos.component import Part, part_of
from hins_adapter_memoryos.files import encodable, page_text
from hins_memory.sdk.attachment import OutcomeMethods, attachment_of, super_of

if TYPE_CHECKING:
    from hins_memory.registry.loader import TextEncoder

__all__ = ["Attached", "AttachedLong", "AttachedMid", "AttachedRetriever", "AttachedShort", "AttachedUpdater"]


def _is_nested(part: Part) -> bool:
    from hins_adapter_memoryos.embedding import current_operation

    outer = current_operation()
    return outer is not None and outer.part is part


class _WithFile:
    """A memory with a file."""

    def save(self) -> None:
        """Save as MemoryOS does, but in one step: a crash leaves the old file or the new one, never half of one."""
        part_of(self).save()

    def load(self) -> None:
        """Load as MemoryOS does, after setting a damaged file aside, which MemoryOS would overwrite."""
        part = part_of(self)
        part.set_aside_if_damaged()
        super_of(self).load()
        if part.kind != "short":
            part.agent.join([part])


class AttachedShort(_WithFile):
    """Short-term memory."""

    def add_qa_pair(self, qa_pair: Any) -> None:
        """Add as MemoryOS does, and record what was said."""
        super_of(self).add_qa_pair(qa_pair)
        part_of(self).recorder.said(qa_pair)


class AttachedMid(_WithFile):
    """Mid-term memory."""

    def add_session(self, summary: Any, details: Any, *args: Any, **kwargs: Any) -> Any:
        """Add a segment as MemoryOS does, and record it with its pages."""
        return self._hins_stored(super_of(self).add_session, summary, details, (summary, details, *args), kwargs)

    def insert_pages_into_session(
        self, summary_for_new_pages: Any, keywords_for_new_pages: Any, pages_to_insert: Any, *args: Any, **kwargs: Any
    ) -> Any:
        """Insert pages as MemoryOS does, and record them, with their segment if it is new."""
        given = (summary_for_new_pages, keywords_for_new_pages, pages_to_insert, *args)
        return self._hins_stored(
            super_of(self).insert_pages_into_session, summary_for_new_pages, pages_to_insert, given, kwargs
        )

    def _hins_stored(self, store: Any, summary: Any, pages: Sequence[Any], args: Any, kwargs: Any) -> Any:
        part, memory = part_of(self), cast("Any", self)
        nested = _is_nested(part)
        with part.operation("document"):
            if not nested and part.binding.version:
                # MemoryOS embeds one text at a time; embedded in one batch here, they come out of the cache.
                part.binding.encoder.encode([encodable(summary), *map(page_text, pages)], role="document")
            session_id = store(*args, **kwargs)
            if not nested:
                part.recorder.stored(memory.sessions.get(session_id), len(pages))
        return session_id

    def search_sessions(self, *args: Any, **kwargs: Any) -> Any:
        """Search as MemoryOS does."""
        with part_of(self).operation("query"):
            return super_of(self).search_sessions(*args, **kwargs)

    def evict_lfu(self) -> Any:
        """Evict a segment as MemoryOS does, and record that it is gone, with the pages that no other segment has."""
        memory = cast("Any", self)
        before = dict(memory.sessions)
        with part_of(self).operation("document"):
            result = super_of(self).evict_lfu()
        evicted = [session for name, session in before.items() if name not in memory.sessions]
        kept = {page.get("page_id") for session in memory.sessions.values() for page in session.get("details") or ()}
        pages = [
            page for session in evicted for page in session.get("details") or () if page.get("page_id") not in kept
        ]
        part_of(self).recorder.forgotten([*evicted, *pages])
        return result


class AttachedLong(_WithFile):
    """Long-term memory: the profile and knowledge of a user, or the knowledge of an assistant."""

    def add_knowledge_entry(self, knowledge_text: Any, knowledge_deque: Any, *args: Any, **kwargs: Any) -> Any:
        """Add knowledge as MemoryOS does, and record it; what it pushes out is recorded as gone."""
        part, memory = part_of(self), cast("Any", self)
        before = list(knowledge_deque)
        with part.operation("document"):
            result = super_of(self).add_knowledge_entry(knowledge_text, knowledge_deque, *args, **kwargs)
        after = list(knowledge_deque)
        if after and (not before or after[-1] is not before[-1]):
            part.recorder.learned(after[-1], "user" if knowledge_deque is memory.knowledge_base else "assistant")
            part.recorder.forgotten([entry for entry in before[:1] if after[0] is not entry])
        return result

    def _search_knowledge_deque(self, *args: Any, **kwargs: Any) -> Any:
        with part_of(self).operation("query"):
            return super_of(self)._search_knowledge_deque(*args, **kwargs)


class AttachedUpdater:
    """The updater, which finds its embedder at each call."""

    def _get_embedding_for_page(self, text: Any) -> Any:
        part = part_of(cast("Any", self).mid_term_memory)
        if not part.binding.version:
            return super_of(self)._get_embedding_for_page(text)
        return part.binding.encoder.encode([encodable(text)], role="document")[0]


class AttachedRetriever:
    """The retriever."""

    def retrieve_context(self, user_query: Any, *args: Any, **kwargs: Any) -> Any:
        """Retrieve as MemoryOS does, and record it; the result also carries ``retrieval_id``."""
        retriever = cast("Any", self)
        parts = {
            "retrieved_pages": part_of(retriever.mid_term_memory),
            "retrieved_user_knowledge": part_of(retriever.long_term_memory),
            "retrieved_assistant_knowledge": part_of(retriever.assistant_long_term_memory),
        }
        first = parts["retrieved_pages"]
        first.agent.refresh_if_due()
        if first.binding.version and isinstance(user_query, str):
            # MemoryOS searches in three threads; embedded here, the query comes out of the cache in each.
            first.binding.encoder.encode([encodable(user_query)], role="query")
        found = super_of(self).retrieve_context(user_query, *args, **kwargs)
        found["retrieval_id"] = first.recorder.searched(user_query, found, parts)
        return found


class Attached(OutcomeMethods):
    """The Memoryos itself."""

    def get_response(self, *args: Any, **kwargs: Any) -> Any:
        """Respond as MemoryOS does, and record the response as the outcome of what was retrieved for it."""
        with self.turn() as turn:
            response = super_of(self).get_response(*args, **kwargs)
            turn.answered(response)
        return response

    def _trigger_profile_and_knowledge_update_if_needed(self) -> Any:
        memory = cast("Any", self)
        heap = list(memory.mid_term_memory.heap)
        # MemoryOS analyses the pages of its hottest segment that it has not analysed yet.
        session = memory.mid_term_memory.sessions.get(heap[0][1], {}) if heap else {}
        pages = [page for page in session.get("details") or () if not page.get("analyzed", False)]
        with self._hins_recorder.extracting(pages):
            return super_of(self)._trigger_profile_and_knowledge_update_if_needed()

    @property
    def hins_encoder(self) -> TextEncoder:
        """The encoder that serves this memory: an `Encoder`, or MemoryOS's own behind the same `encode`."""
        return part_of(cast("Any", self).mid_term_memory).binding.encoder

    def close(self) -> None:
        """Write waiting events to the interaction log and record nothing more; the memory itself can still be used."""
        attachment = attachment_of(self)
        if attachment is not None:
            attachment.close(self)
