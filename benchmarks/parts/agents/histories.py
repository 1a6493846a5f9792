"""Memory agents that a history is told to, message by message, and asked about: a real Mem0 and a real MemoryOS."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Protocol

from hins_memory.errors import AgentError
from parts.agents.mem0 import OpenMem0
from parts.agents.memoryos import LLM, SILENCE, TIME_FORMAT, OpenMemoryos, open_memoryos
from parts.datasets.personamem import Message

if TYPE_CHECKING:
    from pathlib import Path

    from typing_extensions import Self

    from hins_memory.config import Settings
    from hins_memory.encoders.encoder import Encoder

__all__ = ["History", "Mem0History", "MemoryosHistory", "exchanges"]

_BEGINNING = datetime(2024, 1, 1)
# Mem0 stores the messages of one call together; longer ones would keep a large collection in memory.
_MESSAGES_A_CALL = 100


class History(Protocol):
    """An agent that remembers one history at a time; a context manager."""

    @property
    def encoder(self) -> Encoder:
        """The encoder that it embeds with."""

    def begin(self, name: str) -> None:
        """Begin the history of another user, of whom nothing is known yet."""

    def tell(self, messages: Sequence[Message]) -> None:
        """Go on with the history."""

    def ask(self, question: str, limit: int) -> list[str]:
        """Return the texts of at most `limit` memories, best first."""

    def __enter__(self) -> Self: ...

    def __exit__(self, *exception: object) -> None: ...


class Mem0History(OpenMem0):
    """A real Mem0: each message is a memory (``infer=False``).

    Who the user is, the context's system message, is told in the user's name: Mem0 stores no system messages.

    Args:
        model: the encoder that it embeds with.
        settings: where its stores live.
    """

    def __init__(self, model: str | Path, settings: Settings) -> None:
        from hins_memory import Memory

        self._memory = Memory(embedder="hins", model=model, settings=settings, capture=False)
        self._user = ""

    def begin(self, name: str) -> None:
        """Begin the history of another user."""
        self._user = name

    def tell(self, messages: Sequence[Message]) -> None:
        """Store messages.

        Raises:
            AgentError: Mem0 did not store every message.
        """
        told = [message for message in messages if message.text.strip()]
        # Mem0 embeds one message at a time; embedded in batches beforehand, they come out of the encoder's cache.
        self._memory.embedding_model.embed_batch([message.text for message in told], "add")
        for start in range(0, len(told), _MESSAGES_A_CALL):
            rows = [
                {"role": "assistant" if one.role == "assistant" else "user", "content": one.text}
                for one in told[start : start + _MESSAGES_A_CALL]
            ]
            stored = self._memory.add(rows, user_id=self._user, infer=False)["results"]
            if len(stored) != len(rows):
                raise AgentError(f"Mem0 stored {len(stored)} of {len(rows)} messages of {self._user!r}.")

    def ask(self, question: str, limit: int) -> list[str]:
        """Search."""
        found = self._memory.search(question, filters={"user_id": self._user}, top_k=limit)
        return [str(result["memory"]) for result in found["results"]]


class MemoryosHistory(OpenMemoryos):
    """A real MemoryOS: what user and assistant say to one another are its pages, all in mid-term memory at once.

    Profiles and knowledge are left out: only pages are retrieved.

    Args:
        model: the encoder that it embeds with.
        settings: where its files live.
        llm: the language model for its summaries, keywords and continuity.
        limit: how many pages it retrieves at most.
    """

    def __init__(self, model: str | Path, settings: Settings, llm: LLM, limit: int) -> None:
        self._model = model
        self._settings = settings
        self._llm = llm
        self._limit = limit
        self._clock = _BEGINNING

    def begin(self, name: str) -> None:
        """Begin the history of another user, with an assistant of its own."""
        if self._memory is not None:
            self._memory.close()
        with _quiet():
            self._memory = open_memoryos(name, self._model, self._settings, self._llm, self._limit)
        self._clock = _BEGINNING

    def tell(self, messages: Sequence[Message]) -> None:
        """Store pages."""
        with _quiet():
            for said, replied in exchanges(messages):
                self._clock += timedelta(minutes=1)
                time = self._clock.strftime(TIME_FORMAT)
                self._memory.add_memory(user_input=said, agent_response=replied, timestamp=time)
            while self._memory.short_term_memory.is_full():
                self._memory.updater.process_short_term_to_mid_term()

    def ask(self, question: str, limit: int) -> list[str]:
        """Retrieve pages."""
        with _quiet():
            found = self._memory.retriever.retrieve_context(question, user_id=self._memory.user_id)
        pages = dict.fromkeys(
            f"User: {page['user_input']} Assistant: {page['agent_response']}" for page in found["retrieved_pages"]
        )
        return list(pages)[:limit]


def exchanges(messages: Sequence[Message]) -> Iterator[tuple[str, str]]:
    """Yield what is said with the reply to it; MemoryOS drops a pair that lacks a side, so a silence has a text."""
    said = ""
    for message in messages:
        if not message.text.strip():
            continue
        if message.role == "assistant":
            yield said or SILENCE, message.text
            said = ""
        else:
            if said:
                yield said, SILENCE
            said = message.text
    if said:
        yield said, SILENCE


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """MemoryOS prints all that it does."""
    with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere):
        yield
