"""Plays LoCoMo's conversations through a real Mem0 that extracts its memories by language model (``infer=True``)."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING

from hins_memory.errors import HinsError
from parts.agents.llm_proxy import LlmProxy
from parts.agents.mem0 import Mem0Player
from parts.datasets.locomo import Conversation, Document, Turn

if TYPE_CHECKING:
    from pathlib import Path

    from hins_memory.config import Settings

__all__ = ["Extraction", "InferPlayer"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Extraction:
    """How memories are extracted: by which model, and from how many turns of a session at a time."""

    proxy: LlmProxy
    turns: int = 2


class InferPlayer(Mem0Player):
    """A real Mem0 that conversations are played through, keeping what its language model extracts.

    A memory's evidence are the turns that it was extracted from. What a reply cannot be had for is lost and counted.

    Args:
        model: the encoder that Mem0 embeds with.
        settings: where Mem0's stores and the interaction log live.
        extraction: the model, and how many turns it sees at a time.

    Attributes:
        lost: how many calls to `add` failed in the conversation played last.
    """

    def __init__(self, model: str | Path, settings: Settings, extraction: Extraction) -> None:
        name, url = extraction.proxy.client.settings.model, extraction.proxy.base_url
        options = {"model": name, "api_key": "none", "openai_base_url": url}
        super().__init__(model, "turns", settings, config={"llm": {"provider": "openai", "config": options}})
        self._extraction = extraction
        self.lost = 0

    def _store(self, conversation: Conversation) -> dict[str, str]:
        """Add the conversation, a few turns a call; return memory id -> document id, which are the same here."""
        self.stored, self.lost = [], 0
        for turns in _chunks(conversation.turns, self._extraction.turns):
            self._extraction.proxy.day = turns[0].time.date() if turns[0].time else None
            messages = [
                {"role": "user", "name": turn.speaker, "content": f"{turn.speaker}: {turn.text}"} for turn in turns
            ]
            try:
                results = self._memory.add(messages, user_id=conversation.id)["results"]
            except HinsError:
                raise
            except Exception as error:  # Mem0 raises what its client raises, or an error of its own
                logger.debug("Mem0 could not add %s: %s", turns[0].id, error)
                results = []
                self.lost += 1
            if self._extraction.proxy.stopped is not None:
                raise self._extraction.proxy.stopped
            evidence = tuple(turn.id for turn in turns)
            for result in results:
                document = Document(str(result["id"]), "", str(result["memory"]), turns[0].session, evidence)
                self.stored.append(document)
        return {one.id: one.id for one in self.stored}


def _chunks(turns: Sequence[Turn], size: int) -> Iterator[list[Turn]]:
    """Yield a few turns at a time, never of two sessions."""
    for _, session in groupby(turns, key=lambda turn: turn.session):
        rows = list(session)
        for start in range(0, len(rows), size):
            yield rows[start : start + size]
