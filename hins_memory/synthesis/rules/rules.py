"""Synthetic conversations by rules alone: dialogues joined into long conversations, with questions on what was said."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from random import Random

from hins_memory.data.seed_facts import Kind, SeedFacts, seed_facts
from hins_memory.errors import ConfigError
from hins_memory.synthesis.conversation import Conversation, Item, Query, Utterance
from hins_memory.synthesis.filters import Exclusion
from hins_memory.synthesis.rules.changes import changes
from hins_memory.synthesis.rules.clauses import Person, fact
from hins_memory.synthesis.rules.corpus import Dialogue
from hins_memory.synthesis.rules.placing import ASSISTANT, USER, Form, PlacedFacts, placed, rival
from hins_memory.synthesis.rules.questions import questions
from hins_memory.synthesis.rules.statements import Statement, sentences, statements
from hins_memory.synthesis.rules.words import FEMALE, MALE

__all__ = ["SESSIONS", "RuleSettings", "generate_conversations"]

#: Dialogues that one conversation consists of.
SESSIONS = 6
# Shares of the turns: those that address the other speaker by name; those that get small talk in front, or at the end.
_ADDRESSED, _PADDED = 0.35, 0.4
# Share of the statements in the past or future tense that get a time.
_DATED = 0.5
_PAST_TIMES = (
    *("yesterday", "last week", "last weekend", "last month", "two days ago", "last Friday", "a few days ago"),
    *("last Tuesday", "last summer", "two weeks ago", "last night", "this morning", "last year", "on Sunday"),
)
_COMING_TIMES = ("next month", "next week", "this weekend", "tomorrow", "next summer", "on Saturday", "soon")
_GREETINGS = ("Hey {}!", "Hi {}!", "{}!", "Wow, {}!", "Thanks, {}!", "Hey {}, how are you?", "Good to hear, {}.")
_CLOSINGS = ("How about you, {}?", "What about you, {}?", "What do you think, {}?", "Thanks for asking, {}!")
_GREETING_SHARE = 0.7
# Weights of the families of questions when one is chosen; other families have the weight 1.
_WEIGHTS = {
    **{"what": 2.0, "when": 2.0, "who": 3.0, "how": 3.0, "how many": 3.0},
    **{"where": 1.5, "preference": 0.8, "whether": 0.3},
}
_SMALL_TALK_FROM = 400
_SMALL_TALK_WORDS = (2, 9)
_FIRST_PERSON = re.compile(r"\b(?:my|I|I'm|I've|we|named?)\b|[\[{]")
# How many dialogues are searched for one whose personas share no fact with those chosen.
_LOOKAHEAD = 60
_MIN_QUESTION_WORDS = 3
# Packaged preferences at most so far from each other are mostly about the same matter.
_SAME_MATTER = 3
# Packaged exchanges in a conversation with an assistant.
_ADVICE = 12
# At most this many questions about one turn or fact; more would repeat each other.
_MAX_PER_ITEM = 2


@dataclass(frozen=True, slots=True)
class RuleSettings:
    """How conversations and questions are made.

    Args:
        facts: share of the conversations, 0 to 1, that are stored as extracted facts instead of turns.
        preferences: how many packaged preferences (data/seed_facts.py) are added to the facts of a conversation.
        events: how many packaged events are added.
        threads: how many packaged threads, each seven to ten facts about one topic, are added.
        changes: how many packaged changes, each two or three facts of which the last holds, are added.
        told: how many of the preferences, events and changes are added to conversations that are stored as turns, as a
            share, 0 to 1.
        rivals: share of the preferences, 0 to 1, beside which a relative of the person has another one in the matter.
        assistants: share of the conversations, 0 to 1, that are a user's exchanges with an assistant.
        seed: of everything that is drawn.

    Raises:
        ConfigError: a value is out of range.
    """

    facts: float = 0.5
    preferences: int = 16
    events: int = 16
    threads: int = 8
    changes: int = 8
    told: float = 0.5
    rivals: float = 0.5
    assistants: float = 0.15
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("preferences", "events", "threads", "changes"):
            if getattr(self, name) < 0:
                raise ConfigError(f"{name} is {getattr(self, name)}.", "Use 0 or more.")
        for name in ("facts", "told", "rivals", "assistants"):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(f"{name} is {getattr(self, name)}.", "Use a share from 0 to 1.")


def generate_conversations(
    dialogues: Sequence[Dialogue],
    settings: RuleSettings,
    exclusion: Exclusion | None = None,
    sessions: int | None = None,
) -> Iterator[Conversation]:
    """Yield conversations made of the dialogues, each dialogue used once; the same input and seed give the same.

    Args:
        dialogues: what was said.
        settings: how conversations are made.
        exclusion: what must not occur in them.
        sessions: dialogues that one conversation consists of; None is `SESSIONS`.

    Raises:
        ConfigError: there are fewer dialogues than one conversation needs.
    """
    count = SESSIONS if sessions is None else sessions
    if len(dialogues) < count:
        raise ConfigError(
            f"There are {len(dialogues)} dialogues; a conversation needs {count}.", "Give a larger corpus."
        )
    rng = Random(settings.seed)
    order = list(dialogues)
    rng.shuffle(order)
    builder = _ConversationBuilder(settings, exclusion or Exclusion(), _small_talk(order), rng)
    while len(order) >= count:
        yield builder.build(_compatible(order, count))


def _compatible(order: list[Dialogue], count: int) -> list[Dialogue]:
    """Remove and return dialogues from the end, preferring those whose personas share no fact."""
    chosen = [order.pop()]
    known: set[str] = set()
    while len(chosen) < count:
        known.update(*chosen[-1].facts)
        near = range(len(order) - 1, max(-1, len(order) - 1 - _LOOKAHEAD), -1)
        index = next((n for n in near if known.isdisjoint(order[n].facts[0] + order[n].facts[1])), len(order) - 1)
        chosen.append(order.pop(index))
    return chosen


def _small_talk(dialogues: Sequence[Dialogue]) -> list[str]:
    """Return short sentences of the corpus that say nothing about the speaker."""
    minimum, maximum = _SMALL_TALK_WORDS
    found: dict[str, None] = {}
    for dialogue in dialogues[:_SMALL_TALK_FROM]:
        for _, text in dialogue.turns:
            for sentence in sentences(text):
                if minimum <= len(sentence.split()) <= maximum and not _FIRST_PERSON.search(sentence):
                    found[sentence] = None
    return list(found)


def _people(rng: Random, exclusion: Exclusion) -> tuple[Person, Person]:
    people: list[Person] = []
    while len(people) < 2:
        female = rng.random() < 0.5
        taken = {one.name for one in people}
        free = [name for name in (FEMALE if female else MALE) if name not in taken and exclusion.allows(name)]
        if not free:
            raise ConfigError("Every known first name is excluded.", "Exclude fewer names.")
        pronouns = ("she", "her", "her") if female else ("he", "his", "him")
        people.append(Person(rng.choice(free), *pronouns))
    return people[0], people[1]


class _ConversationBuilder:
    """Builds conversations from chosen dialogues."""

    def __init__(self, settings: RuleSettings, exclusion: Exclusion, small_talk: Sequence[str], rng: Random) -> None:
        self._settings = settings
        self._exclusion = exclusion
        self._small_talk = [one for one in small_talk if exclusion.allows(one)]
        self._packaged: dict[Kind, list[SeedFacts]] = {
            kind: [one for one in found if all(map(exclusion.allows, one.texts))]
            for kind, found in seed_facts().items()
        }
        self._rng = rng

    def build(self, chosen: Sequence[Dialogue]) -> Conversation:
        """Return one conversation of the dialogues, in their order; with an assistant it has packaged facts alone."""
        people = _people(self._rng, self._exclusion)
        names = (people[0].name, people[1].name)
        form = self._form()
        turns: list[Utterance] = []
        items: list[Item] = []
        queries: list[Query] = []
        packaged = self._place_facts(names, len(chosen), form)
        for session, dialogue in enumerate(chosen):
            for facts in packaged:
                facts.store(session, items)
            for who, template in dialogue.turns if form != "assistant" else ():
                text = template.replace("{0}", names[0]).replace("{1}", names[1])
                if not self._exclusion.allows(text):
                    continue
                stated = list(statements(text))
                said = Utterance(names[who], self._with_context(text, stated, names[1 - who]), session)
                source = (len(turns),)
                turns.append(said)
                if form == "facts":
                    for one in stated:
                        queries += self._questions([one], people[who], len(items))
                        items.append(Item(said.speaker, fact(one, people[who]), session, source))
                    continue
                queries += self._questions(stated, people[who], len(items))
                items.append(Item(said.speaker, f"{said.speaker}: {said.text}", session, source))
        queries += [query for facts in packaged for query in facts.queries()]
        speakers = (USER, ASSISTANT) if form == "assistant" else names
        parts = (*speakers, *(item.text for item in items), *(query.text for query in queries))
        digest = hashlib.sha256("\n".join(parts).encode("utf-8", "surrogatepass")).hexdigest()[:16]
        return Conversation(digest, speakers, tuple(turns), tuple(items), tuple(queries), "rules")

    def _form(self) -> Form:
        if self._rng.random() < self._settings.assistants:
            return "assistant"
        return "facts" if self._rng.random() < self._settings.facts else "turns"

    def _place_facts(self, names: tuple[str, str], sessions: int, form: Form) -> list[PlacedFacts]:
        """Choose packaged facts for two people, and the session in which each is stored."""
        settings, rng = self._settings, self._rng
        share = settings.told if form == "turns" else 1.0
        counts: dict[Kind, int] = {
            "preference": round(share * settings.preferences),
            "event": round(share * settings.events),
            "thread": settings.threads if form == "facts" else 0,
            "advice": _ADVICE if form == "assistant" else 0,
        }
        found: list[PlacedFacts | None] = []
        for kind, count in counts.items():
            known = self._packaged[kind]
            for place in rng.sample(range(len(known)), min(count, len(known))):
                ordered = rng.choice((names, names[::-1]))
                found.append(placed(known[place], ordered, sessions, form, self._said, rng))
                if kind == "preference" and found[-1] and rng.random() < settings.rivals:
                    # Packaged preferences are in order of their matter.
                    other = known[place - rng.randint(1, _SAME_MATTER)]
                    found.append(rival(other, ordered, sessions, form, self._said, rng))
        for change in rng.sample(changes(), min(round(share * settings.changes), len(changes()))):
            seed = change.seed(rng)
            if all(map(self._exclusion.allows, seed.texts)):
                ordered = rng.choice((names, names[::-1]))
                found.append(placed(seed, ordered, sessions, form, self._said, rng))
        facts = [one for one in found if one is not None]
        rng.shuffle(facts)
        return facts

    def _said(self, text: str, other: str) -> str:
        return self._with_context(text, (), other)

    def _questions(self, stated: Sequence[Statement], person: Person, item: int) -> list[Query]:
        """Return questions about an item, each of another family."""
        asked = [question for one in stated for question in questions(one, person, self._rng)]
        by_kind: dict[str, list[str]] = {}
        for question in asked:
            if len(question.text.split()) >= _MIN_QUESTION_WORDS:
                by_kind.setdefault(question.kind, []).append(question.text)
        # Weighted sampling without replacement (Efraimidis and Spirakis 2006).
        keys = {kind: self._rng.random() ** (1 / _WEIGHTS.get(kind, 1.0)) for kind in by_kind}
        chosen = sorted(by_kind, key=lambda kind: keys[kind], reverse=True)[:_MAX_PER_ITEM]
        return [Query(self._rng.choice(by_kind[kind]), (item,), kind) for kind in chosen]

    def _with_context(self, text: str, stated: Sequence[Statement], other: str) -> str:
        """Return a turn with what longer chats have: times, small talk and the other speaker's name."""
        rng = self._rng
        for one in stated:
            times = _PAST_TIMES if one.tense == "past" else _COMING_TIMES if one.tense == "future" else ()
            if times and "used to" not in one.source and rng.random() < _DATED:
                bare = one.source.rstrip(".!")
                text = text.replace(one.source, f"{bare} {rng.choice(times)}{one.source[len(bare) :]}")
        parts = [text]
        if self._small_talk and rng.random() < _PADDED:
            parts.insert(0, rng.choice(self._small_talk))
        if self._small_talk and rng.random() < _PADDED:
            parts.append(rng.choice(self._small_talk))
        if rng.random() < _ADDRESSED:
            if rng.random() < _GREETING_SHARE:
                parts.insert(0, rng.choice(_GREETINGS).format(other))
            else:
                parts.append(rng.choice(_CLOSINGS).format(other))
        return " ".join(parts)
