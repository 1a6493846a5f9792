"""Packaged facts in a conversation: in which form they are stored, about whom, when, and how they are asked for."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Literal

from hins_memory.data.seed_facts import SeedFacts
from hins_memory.synthesis.conversation import Item, Query
from hins_memory.synthesis.rules.own_words import as_said, asked_by

__all__ = ["ASSISTANT", "USER", "Form", "PlacedFacts", "placed", "rival"]

#: How a conversation is stored: as facts in the third person, as turns of two people, or as a user's exchanges with
#: an assistant.
Form = Literal["facts", "turns", "assistant"]
USER, ASSISTANT = "User", "Assistant"
#: Says a text of a person as turns are said, with what stands around it: (text, the other's name).
Saying = Callable[[str, str], str]

_DAY = re.compile(r"^\[[\d-]+\] ")
_RELATIVES = (
    *("sister", "brother", "mother", "father", "husband", "wife", "daughter", "son", "cousin", "flatmate", "neighbour"),
    *("best friend", "boss", "colleague", "uncle", "aunt", "grandmother", "niece", "nephew", "stepfather", "godmother"),
)
_REPLIES = (
    *("Noted.", "Got it, I'll keep that in mind.", "Thanks for telling me.", "Understood.", "I'll remember that."),
    *("Good to know!", "That makes sense. Is there anything else I should know?", "All right, I've saved it."),
    *("Thanks, that helps me to give you better suggestions.", "I see. Would you like me to set a reminder?"),
    *("Interesting! Tell me more when you have time.", "Okay. I'll take it into account from now on."),
    *("I've added this to what I know of you.", "Thank you for sharing that with me.", "Sounds good."),
)
# Half of what a user says is stored with the assistant's reply.
_REPLIED = 0.5


@dataclass(slots=True)
class PlacedFacts:
    """Packaged facts in a conversation.

    Attributes:
        kind: of the questions.
        told: who says each fact, or whom it is about, and the text as it is stored.
        asked: the questions, with the indexes in `told` of what answers them.
        sessions: the session in which each fact is stored.
        indexes: of the facts in the items, once they are stored.
    """

    kind: str
    told: Sequence[tuple[str, str]]
    asked: Sequence[tuple[str, tuple[int, ...]]]
    sessions: Sequence[int]
    indexes: list[int] = field(default_factory=list)

    def store(self, session: int, items: list[Item]) -> None:
        """Add the facts of a session to the items."""
        for (who, text), when in zip(self.told, self.sessions, strict=True):
            if when == session:
                self.indexes.append(len(items))
                items.append(Item(who, text, session))

    def queries(self) -> Iterator[Query]:
        """Yield the questions about the facts, after all of them are stored."""
        for text, answers in self.asked:
            yield Query(text, tuple(self.indexes[answer] for answer in answers), self.kind)


def placed(
    seed: SeedFacts, names: tuple[str, str], sessions: int, form: Form, say: Saying, rng: Random
) -> PlacedFacts | None:
    """Return packaged facts about two people in a form, spread over the sessions in their order of time.

    Returns:
        None where a fact has no such form, or nothing is asked in it.
    """
    told: Sequence[tuple[str, str]] | None
    asked: Sequence[tuple[str, tuple[int, ...]]] = seed.questions_about(names)
    if form == "facts":
        told = None if seed.kind == "advice" else seed.facts_about(names)
    elif form == "turns":
        told = _as_turns(seed, names, say)
    else:
        told = _as_exchanges(seed, rng)
        own = [(text if "{" not in text else asked_by(text), answers) for text, answers in seed.questions]
        asked = [(text, answers) for text, answers in own if text is not None]
    if told is None or not asked:
        return None
    return PlacedFacts(seed.kind, told, asked, sorted(rng.choices(range(sessions), k=len(told))))


def _as_turns(seed: SeedFacts, names: tuple[str, str], say: Saying) -> list[tuple[str, str]] | None:
    found = []
    for fact in seed.facts:
        who = 1 if "{1}" in fact else 0
        said = None if "{0}" in fact and who else as_said(_DAY.sub("", fact).replace("{1}", "{0}"))
        if said is None:
            return None
        found.append((names[who], f"{names[who]}: {say(said, names[1 - who])}"))
    return found


def _as_exchanges(seed: SeedFacts, rng: Random) -> list[tuple[str, str]] | None:
    if seed.kind == "advice":
        return [(USER, fact) for fact in seed.facts]
    found = []
    relative = f"my {rng.choice(_RELATIVES)}"
    for fact in seed.facts:
        bare = _DAY.sub("", fact)
        said = _of(bare.replace("{1}", "{0}"), relative) if "{1}" in bare else as_said(bare)
        if said is None or ("{0}" in bare and "{1}" in bare):
            return None
        reply = f"\n{ASSISTANT}: {rng.choice(_REPLIES)}" if rng.random() < _REPLIED else ""
        found.append((USER, f"{USER}: {said}{reply}"))
    return found


def rival(
    seed: SeedFacts, names: tuple[str, str], sessions: int, form: Form, say: Saying, rng: Random
) -> PlacedFacts | None:
    """Return the first fact of a preference as that of a relative of the first person, and what is asked of it.

    What the person likes in the same matter is not to be found by a question about the relative, nor the other way.
    """
    fact, question = seed.facts[0], seed.questions[-1][0]
    relative = rng.choice(_RELATIVES)
    theirs = _of(fact, f"my {relative}")
    whose = f"my {relative}" if form == "assistant" else f"{names[0]}'s {relative}"
    told = {
        "facts": (names[0], _of(fact, whose)),
        "turns": (names[0], f"{names[0]}: {say(theirs, names[1])}"),
        "assistant": (USER, f"{USER}: {theirs}"),
    }[form]
    return PlacedFacts(seed.kind, [told], [(_of(question, whose), (0,))], [rng.randrange(sessions)])


def _of(text: str, whose: str) -> str:
    """Return a text about ``{0}`` as one about a relative or friend of theirs."""
    text = text.replace("{0}", whose)
    return text[0].upper() + text[1:]
