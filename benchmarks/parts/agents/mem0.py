"""Plays LoCoMo's conversations through a real Mem0 and asks the questions; the adapter's capture sees it all."""

from __future__ import annotations

import time
from importlib.util import find_spec
from itertools import groupby
from typing import TYPE_CHECKING, Any

from hins_memory.errors import AgentError
from parts.agents.alone import TOP_K, rank_alone
from parts.datasets.locomo import Conversation, Document, Memories, documents

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from typing_extensions import Self

    from hins_memory.config import Settings
    from hins_memory.encoders.encoder import Encoder

__all__ = ["REFUSAL", "Mem0Player", "OpenMem0", "fused_parts"]

#: What the agent answers to a trap question (category 5), which has no answer.
REFUSAL = "I don't know, that was not mentioned."


def fused_parts() -> dict[str, bool]:
    """Return which parts of Mem0's fused search are there: BM25 needs fastembed, entities need spaCy."""
    return {"mem0_bm25": find_spec("fastembed") is not None, "mem0_entities": find_spec("spacy") is not None}


class OpenMem0:
    """A real Mem0 in `_memory`, closed at the end of the block; a context manager."""

    _memory: Any

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self._memory.close()

    @property
    def encoder(self) -> Encoder:
        """The encoder that Mem0 embeds with; its cache holds what was embedded last."""
        encoder: Encoder = self._memory.embedding_model.encoder
        return encoder


class Mem0Player(OpenMem0):
    """A real Mem0 that conversations are played through, each under a user of its own; a context manager.

    Args:
        model: the encoder that Mem0 embeds with.
        memories: whether turns or facts are stored, one memory each (``infer=False``).
        settings: where Mem0's stores and the interaction log live; `settings.capture` decides about the log.
        config: more of Mem0's configuration, e.g. a language model.

    Attributes:
        add_seconds: wall time of all adds so far.
        search_seconds: wall time of all searches so far.
        stored: what is stored of the conversation played last.
        alone: for each of its questions, the ids of the documents that the encoder alone ranks first, best first.
        details: for each of its questions, what Mem0 says of the score of each result: cosine, BM25, entities, sum.
    """

    def __init__(
        self, model: str | Path, memories: Memories, settings: Settings, config: dict[str, Any] | None = None
    ) -> None:
        from hins_memory import Memory

        self._memory = Memory(embedder="hins", model=model, settings=settings, config=config)
        self._memories = memories
        self.add_seconds = 0.0
        self.search_seconds = 0.0
        self.stored: list[Document] = []
        self.alone: list[list[str]] = []
        self.details: list[list[Mapping[str, Any]]] = []

    def play(self, conversation: Conversation) -> list[list[str]]:
        """Store a conversation, ask its questions and give the answers.

        Returns:
            For each question, the ids of the documents that the search found, best first.

        Raises:
            AgentError: Mem0 did not store every document.
        """
        started = time.perf_counter()
        document_of = self._store(conversation)
        stored = time.perf_counter()
        rankings = self._ask(conversation, document_of)
        self.alone = rank_alone(self.encoder, self.stored, [question.text for question in conversation.questions])
        self.add_seconds += stored - started
        self.search_seconds += time.perf_counter() - stored
        return rankings

    def _store(self, conversation: Conversation) -> dict[str, str]:
        """Add the conversation's documents, one call a session; return memory id -> document id."""
        self.stored = stored = documents(conversation, self._memories)
        # Mem0 embeds one message at a time; embedded in batches beforehand, they come out of the encoder's cache.
        self._memory.embedding_model.embed_batch([one.text for one in stored], "add")
        document_of: dict[str, str] = {}
        for _, session in groupby(stored, key=lambda document: document.session):
            batch = list(session)
            messages = [{"role": "user", "name": one.speaker, "content": one.text} for one in batch]
            results = self._memory.add(messages, user_id=conversation.id, infer=False)["results"]
            if len(results) != len(batch):
                raise AgentError(f"Mem0 stored {len(results)} of {len(batch)} messages of {conversation.id!r}.")
            document_of |= {str(result["id"]): one.id for result, one in zip(results, batch, strict=True)}
        return document_of

    def _ask(self, conversation: Conversation, document_of: dict[str, str]) -> list[list[str]]:
        """Ask every question and give the answer that a good agent would; evidence labels play no part."""
        rankings = []
        self.details = []
        self._memory.embedding_model.embed_batch([question.text for question in conversation.questions], "search")
        for question in conversation.questions:
            found = self._memory.search(question.text, filters={"user_id": conversation.id}, top_k=TOP_K, explain=True)
            rankings.append([document_of[str(result["id"])] for result in found["results"]])
            self.details.append([result["score_details"] for result in found["results"]])
            answerable = question.category != 5 and question.answer
            self._memory.answered(found["retrieval_id"], question.answer if answerable else REFUSAL)
        return rankings
