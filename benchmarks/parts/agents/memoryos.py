"""Plays LoCoMo's conversations through a real MemoryOS and asks the questions; the adapter's capture sees it all."""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from itertools import groupby
from typing import TYPE_CHECKING, Any

from hins_memory.errors import AgentError
from parts.agents.alone import TOP_K
from parts.agents.mem0 import REFUSAL
from parts.datasets.locomo import Conversation, Fact, Turn

if TYPE_CHECKING:
    from pathlib import Path

    from typing_extensions import Self

    from hins_memory.config import Settings
    from hins_memory.encoders.encoder import Encoder

__all__ = ["LLM", "SILENCE", "TIME_FORMAT", "MemoryosPlayer", "OpenMemoryos", "open_memoryos", "paged"]

#: Stands for a side that says nothing: MemoryOS drops an exchange that lacks one.
SILENCE = "..."
TIME_FORMAT = "%Y-%m-%d %H:%M:%S"
# A conversation whose sessions have no time begins here.
_BEGINNING = datetime(2023, 1, 1)


@dataclass(frozen=True, slots=True)
class LLM:
    """An OpenAI-compatible endpoint."""

    url: str
    model: str
    key: str

    @staticmethod
    def add_arguments(parser: argparse.ArgumentParser) -> None:
        """Add the options that name an endpoint."""
        parser.add_argument(
            "--llm-url",
            metavar="URL",
            default=os.environ.get("OPENAI_BASE_URL", ""),
            help="an OpenAI-compatible endpoint, for MemoryOS (default $OPENAI_BASE_URL)",
        )
        parser.add_argument("--llm-model", metavar="NAME", default="gpt-4o-mini", help="its model")
        parser.add_argument(
            "--llm-key",
            metavar="KEY",
            default=os.environ.get("OPENAI_API_KEY", "none"),
            help="its key (default $OPENAI_API_KEY)",
        )

    @classmethod
    def of(cls, arguments: argparse.Namespace) -> LLM:
        """Return the endpoint that the arguments name, after asking it something.

        Raises:
            AgentError: it does not answer. MemoryOS itself would go on with an error text for every summary.
        """
        import openai

        found = cls(arguments.llm_url, arguments.llm_model, arguments.llm_key)
        client = openai.OpenAI(api_key=found.key, base_url=found.url, max_retries=0)
        try:
            client.chat.completions.create(
                model=found.model, messages=[{"role": "user", "content": "Say yes."}], max_tokens=5
            )
        except openai.OpenAIError as error:
            raise AgentError(
                f"The language model at {found.url} does not answer: {error}",
                "Check --llm-url, --llm-model, --llm-key.",
            ) from error
        return found


def paged(conversation: Conversation) -> Conversation:
    """Return the conversation with its pages in place of its facts.

    A page is what the first speaker says and what the other one replies, each perhaps over several turns, within one
    session; its evidence are all of them.
    """
    first = conversation.speakers[0]
    pages: list[Fact] = []
    for session, turns in groupby(conversation.turns, key=lambda turn: turn.session):
        for user, assistant in _exchanges(list(turns), first):
            said, replied = (" ".join(turn.text for turn in side) or SILENCE for side in (user, assistant))
            text = f"User: {said} Assistant: {replied}"
            evidence = tuple(turn.id for turn in (*user, *assistant))
            pages.append(Fact(f"P{len(pages) + 1}", first, text, session, evidence))
    return replace(conversation, facts=tuple(pages))


def _exchanges(turns: list[Turn], first: str) -> Iterator[tuple[list[Turn], list[Turn]]]:
    """Yield what the first speaker says with the replies to it; either side may be empty."""
    user: list[Turn] = []
    for is_first, run in groupby(turns, key=lambda turn: turn.speaker == first):
        if is_first:
            user = list(run)
        else:
            yield user, list(run)
            user = []
    if user:
        yield user, []


def open_memoryos(name: str, model: str | Path, settings: Settings, llm: LLM, limit: int = TOP_K) -> Any:
    """Return a new MemoryOS for a user of this name with an assistant of its own, attached.

    Every page goes to the mid-term memory at once, and no profile or knowledge is made of it.

    Args:
        name: the user's.
        model: the encoder that it embeds with.
        settings: where its files and the interaction log live; `settings.capture` decides about the log.
        llm: its language model.
        limit: how many pages it retrieves at most.
    """
    import memoryos

    import hins_memory

    memory = memoryos.Memoryos(
        user_id=name,
        assistant_id=name,
        openai_api_key=llm.key,
        openai_base_url=llm.url,
        llm_model=llm.model,
        data_storage_path=str(settings.agent_folder("memoryos")),
        short_term_capacity=1,
        retrieval_queue_capacity=limit,
        mid_term_heat_threshold=float("inf"),
    )
    _accept_any_summary(sys.modules[type(memory.updater).__module__])
    return hins_memory.attach(memory, embedder="hins", model=model, settings=settings)


def _accept_any_summary(updater: Any) -> None:
    """Make MemoryOS take a summary of another shape for none: it fails on one, and small models give some."""
    if hasattr(updater.gpt_generate_multi_summary, "wrapped"):
        return
    wrapped = updater.gpt_generate_multi_summary

    def checked(*arguments: Any, **options: Any) -> dict[str, Any]:
        found: dict[str, Any] = wrapped(*arguments, **options)
        summaries = found["summaries"] if isinstance(found["summaries"], list) else []
        return {**found, "summaries": [one for one in summaries if _is_summary(one)]}

    checked.wrapped = wrapped  # type: ignore[attr-defined]  # of a function, so that it is wrapped once
    updater.gpt_generate_multi_summary = checked


def _is_summary(value: Any) -> bool:
    keywords = value.get("keywords", []) if isinstance(value, dict) else None
    return (
        isinstance(keywords, list)
        and all(isinstance(one, str) for one in keywords)
        and isinstance(value.get("content", ""), str)
    )


class OpenMemoryos:
    """A real MemoryOS in `_memory`, closed at the end of the block; a context manager. None before it is opened."""

    _memory: Any = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        if self._memory is not None:
            self._memory.close()

    @property
    def encoder(self) -> Encoder:
        """The encoder that MemoryOS embeds with; its cache holds what was embedded last."""
        encoder: Encoder = self._memory.hins_encoder
        return encoder


class MemoryosPlayer(OpenMemoryos):
    """A real MemoryOS that conversations are played through, each as a user with an assistant of its own.

    Every page goes to the mid-term memory at once. Profiles and knowledge are left out: only pages are scored.

    Args:
        model: the encoder that MemoryOS embeds with.
        settings: where MemoryOS's files and the interaction log live; `settings.capture` decides about the log.
        llm: the language model for summaries, keywords and continuity.

    Attributes:
        add_seconds: wall time of all adds so far.
        search_seconds: wall time of all searches so far.
    """

    def __init__(self, model: str | Path, settings: Settings, llm: LLM) -> None:
        self._model = model
        self._settings = settings
        self._llm = llm
        self.add_seconds = 0.0
        self.search_seconds = 0.0

    def play(self, conversation: Conversation) -> list[list[str]]:
        """Store a conversation's pages, ask its questions and give the answers.

        Returns:
            For each question, the ids of the pages that were retrieved, best first.

        Raises:
            AgentError: MemoryOS did not store every page.
        """
        started = time.perf_counter()
        with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere):  # it prints all it does
            page_of = self._store(conversation)
            stored = time.perf_counter()
            rankings = self._ask(conversation, page_of)
        self.add_seconds += stored - started
        self.search_seconds += time.perf_counter() - stored
        return rankings

    def _open(self, name: str) -> Any:
        if self._memory is not None:
            self._memory.close()
        self._memory = open_memoryos(name, self._model, self._settings, self._llm)
        return self._memory

    def _store(self, conversation: Conversation) -> dict[str, str]:
        """Add the pages, one call each; return MemoryOS's time of a page -> its id."""
        memory = self._open(conversation.id)
        # MemoryOS embeds one page at a time; embedded in batches beforehand, they come out of the encoder's cache.
        memory.hins_encoder.encode([page.text for page in conversation.facts], role="document")
        page_of: dict[str, str] = {}
        starts = {turn.session: turn.time for turn in conversation.turns}
        for number, page in enumerate(conversation.facts):
            said, _, replied = page.text.removeprefix("User: ").partition(" Assistant: ")
            start = starts[page.session] or _BEGINNING + timedelta(days=page.session)
            timestamp = (start + timedelta(seconds=number)).strftime(TIME_FORMAT)
            page_of[timestamp] = page.id
            memory.add_memory(user_input=said, agent_response=replied, timestamp=timestamp)
        while memory.short_term_memory.is_full():
            memory.updater.process_short_term_to_mid_term()
        sessions = memory.mid_term_memory.sessions.values()
        stored = {page["timestamp"] for session in sessions for page in session["details"]}
        if stored != set(page_of) or len(page_of) != len(conversation.facts):
            raise AgentError(
                f"MemoryOS stored {len(stored)} of {len(conversation.facts)} pages of {conversation.id!r}."
            )
        return page_of

    def _ask(self, conversation: Conversation, page_of: dict[str, str]) -> list[list[str]]:
        """Ask every question and give the answer that a good agent would; evidence labels play no part."""
        rankings = []
        self._memory.hins_encoder.encode([question.text for question in conversation.questions], role="query")
        for question in conversation.questions:
            found = self._memory.retriever.retrieve_context(question.text, user_id=conversation.id)
            # A page may be in two segments.
            pages = dict.fromkeys(page_of[page["timestamp"]] for page in found["retrieved_pages"])
            rankings.append(list(pages))
            answerable = question.category != 5 and question.answer
            self._memory.answered(found["retrieval_id"], question.answer if answerable else REFUSAL)
        return rankings
