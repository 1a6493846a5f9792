"""Synthetic conversations by a language model: personas, lives, sessions, memories, questions."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from random import Random
from typing import TYPE_CHECKING, TypeVar

from hins_memory.errors import ConfigError
from hins_memory.llm import BudgetError, ChatClient, LlmError
from hins_memory.synthesis.conversation import Conversation, Item, Query, Utterance
from hins_memory.synthesis.filters import Exclusion
from hins_memory.synthesis.model import prompts
from hins_memory.synthesis.rules.words import FEMALE, MALE

if TYPE_CHECKING:
    from pydantic import BaseModel

    from hins_memory.synthesis.model.schemas import Lives, Memories, Questions

__all__ = ["ModelSettings", "converse_by_model"]

M = TypeVar("M", bound="BaseModel")
Personas = tuple[Sequence[str], Sequence[str]]

logger = logging.getLogger(__name__)

# Sessions of a conversation, and conversations written at once.
_SESSIONS = 4
_PARALLEL = 4
_SHOWN_PERSONAS = 12
# Personas that share at least this part of their words are taken for one person.
_SAME_PERSON = 0.6
_TEMPERATURE = 0.8


@dataclass(frozen=True, slots=True)
class ModelSettings:
    """What a language model is asked for.

    Args:
        personas: how many people are invented, at least 2; those given come first.
        conversations: how many conversations.
        max_requests: requests in all, answered from the endpoint; 0 means no limit.
        seed: of names and pairs.

    Raises:
        ConfigError: a value is out of range.
    """

    personas: int = 20
    conversations: int = 20
    max_requests: int = 0
    seed: int = 0

    def __post_init__(self) -> None:
        if self.personas < 2:
            raise ConfigError(f"personas is {self.personas}.", "A conversation needs 2.")
        if self.conversations < 1 or self.max_requests < 0:
            raise ConfigError("The limit of requests is negative, or there is no conversation.", "Use e.g. 0 and 20.")


def converse_by_model(
    client: ChatClient,
    settings: ModelSettings,
    given: Sequence[Sequence[str]] = (),
    exclusion: Exclusion | None = None,
    failed: Callable[[LlmError], None] = lambda error: None,
) -> Iterator[Conversation]:
    """Yield conversations as they are finished, in order of their numbers.

    The client keeps replies, so that an interrupted run continues where it was. When the budget is used up, all
    finished conversations have been yielded.

    Args:
        client: the language model.
        settings: how many personas, conversations and sessions.
        given: personas, each a list of sentences, that come before invented ones.
        exclusion: names and texts that must not occur.
        failed: called for every conversation that could not be made, and when the budget is used up.

    Raises:
        LlmError: the endpoint refuses every request.
    """
    writer = _Writer(client, settings, exclusion or Exclusion())
    try:
        people = writer.personas(given)
    except BudgetError as error:
        failed(error)
        return
    rng = Random(settings.seed)
    pairs = [tuple(rng.sample(range(len(people)), 2)) for _ in range(settings.conversations)]
    with ThreadPoolExecutor(_PARALLEL) as pool:
        jobs = [
            pool.submit(writer.conversation, number, (people[first], people[second]))
            for number, (first, second) in enumerate(pairs)
        ]
        for job in jobs:
            try:
                yield job.result()
            except LlmError as error:
                if error.refused:
                    pool.shutdown(cancel_futures=True)
                    raise
                failed(error)


class _Writer:
    """Requests one conversation after another from the model."""

    def __init__(self, client: ChatClient, settings: ModelSettings, exclusion: Exclusion) -> None:
        self._client = client
        self._settings = settings
        self._exclusion = exclusion

    def _ask(self, prompt: str, schema: type[M]) -> M:
        limit = self._settings.max_requests
        if limit and self._client.usage.requests >= limit:
            raise BudgetError(
                f"The limit of {limit} requests is reached.", "Run it again with a higher --max-requests."
            )
        message = {"role": "user", "content": prompt}
        return self._client.structured([message], schema, temperature=_TEMPERATURE, seed=self._settings.seed)

    def personas(self, given: Sequence[Sequence[str]]) -> list[Sequence[str]]:
        """Return the personas given, and invented ones up to the number asked for; no two of them similar."""
        from hins_memory.synthesis.model.schemas import Persona

        found: list[Sequence[str]] = []
        for one in given:
            if len(found) < self._settings.personas and self._new(one, found):
                found.append(one)
        tries = 2 * self._settings.personas
        for number in range(tries):
            if len(found) >= self._settings.personas:
                break
            known = [" ".join(one[:2]) for one in found[-_SHOWN_PERSONAS:]]
            try:
                facts = self._ask(prompts.persona(number + 1, known), Persona).facts
            except BudgetError:
                raise
            except LlmError as error:
                if error.refused:
                    raise
                logger.warning("A persona was left out: %s", error)
                continue
            if self._new(facts, found):
                found.append(facts)
        if len(found) < 2:
            raise LlmError("The language model gave fewer than 2 different personas.", "Use another model, or --given.")
        return found

    def _new(self, facts: Sequence[str], known: Sequence[Sequence[str]]) -> bool:
        words = set(" ".join(facts).lower().split())
        if not words or not all(self._exclusion.allows(fact) for fact in facts):
            return False
        others = (set(" ".join(one).lower().split()) for one in known)
        return all(len(words & other) / len(words | other) < _SAME_PERSON for other in others)

    def conversation(self, number: int, personas: Personas) -> Conversation:
        """Return one conversation with its memories and questions."""
        from hins_memory.synthesis.model.schemas import Lives, Memories, Questions, Session

        rng = Random(self._settings.seed * 1_000_003 + number)
        free = [name for name in (*FEMALE, *MALE) if self._exclusion.allows(name)]
        first, second = rng.sample(free, 2)
        names = (first, second)
        plan = self._ask(prompts.lives(names, personas, _SESSIONS), Lives)
        turns: list[Utterance] = []
        items: list[Item] = []
        for session_number in range(1, _SESSIONS + 1):
            begin = len(turns)
            talk = self._ask(
                prompts.session(names, personas, _session_topics(plan, names, session_number), session_number), Session
            )
            turns += [Utterance(names[one.speaker - 1], one.text, session_number - 1) for one in talk.turns]
            shown = list(enumerate(turns))[begin:]
            items += _items(
                self._ask(prompts.memories(names, shown), Memories), names, session_number - 1, range(begin, len(turns))
            )
        asked = self._ask(prompts.questions(names, list(enumerate(turns))), Questions)
        return self._clean(names, turns, items, asked)

    def _clean(
        self, names: tuple[str, str], turns: list[Utterance], items: list[Item], asked: Questions
    ) -> Conversation:
        """Return the conversation without excluded texts, each question with the memories that answer it."""
        allowed = {i for i, turn in enumerate(turns) if self._exclusion.allows(turn.text)}
        new_index = {old: new for new, old in enumerate(sorted(allowed))}
        kept = [
            Item(one.speaker, one.text, one.session, tuple(new_index[turn] for turn in one.turns))
            for one in items
            if allowed.issuperset(one.turns) and self._exclusion.allows(one.text)
        ]
        queries = []
        for one in asked.questions:
            evidence = {new_index[turn] for turn in one.evidence if turn in new_index}
            answers = tuple(i for i, item in enumerate(kept) if evidence.intersection(item.turns))
            if answers and self._exclusion.allows(one.question):
                queries.append(Query(one.question, answers, one.kind, one.answer))
        said = tuple(turns[i] for i in sorted(allowed))
        parts = (*names, *(turn.text for turn in said), *(item.text for item in kept))
        digest = hashlib.sha256("\n".join(parts).encode("utf-8", "surrogatepass")).hexdigest()[:16]
        return Conversation(digest, names, said, tuple(kept), tuple(queries), self._client.settings.model)


def _session_topics(plan: Lives, names: tuple[str, str], session_number: int) -> list[str]:
    topics = [f"both talk about {topic}" for topic in plan.topics[session_number - 1 :: 2][:2]]
    news = [
        f"{name}: {event.text}"
        for name, life in zip(names, (plan.first, plan.second), strict=True)
        for event in life
        if event.session == session_number
    ]
    return [*topics, *news] or [plan.topics[0]]


def _items(found: Memories, names: tuple[str, str], session: int, turns: range) -> list[Item]:
    """Return the memories that name existing turns of the session; a model may invent numbers."""
    return [
        Item(names[one.speaker - 1], one.text, session, tuple(sorted(sources)))
        for one in found.memories
        if (sources := {turn for turn in one.turns if turn in turns})
    ]
