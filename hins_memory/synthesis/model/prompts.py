"""The prompts of each step of the synthesis by a language model."""

from __future__ import annotations

from collections.abc import Sequence

from hins_memory.synthesis.conversation import Utterance

__all__ = ["lives", "memories", "persona", "questions", "session"]


def persona(number: int, known: Sequence[str]) -> str:
    """Ask for one invented person, unlike those that are known."""
    shown = "\n".join(f"- {one}" for one in known) or "- nobody yet"
    return (
        f"Invent an everyday person, number {number}: six short first-person facts on family, work, home, tastes, "
        f"health and plans. Concrete and unusual rather than typical; no names of living people.\n"
        f"Unlike these, who exist already:\n{shown}"
    )


def lives(names: tuple[str, str], personas: tuple[Sequence[str], Sequence[str]], sessions: int) -> str:
    """Ask for shared topics, and for events and changing preferences of both people."""
    return (
        f"{_people(names, personas)}\n\nThey will talk in {sessions} sittings over a year. Give topics that both care "
        f"about, though the facts differ between them (both have a pet, but not the same one). Then give, for each, "
        f"events of that year and preferences that change, each with the sitting (1 to {sessions}) before which it "
        f"happens. Some must contradict an earlier one."
    )


def session(
    names: tuple[str, str], personas: tuple[Sequence[str], Sequence[str]], news: Sequence[str], number: int
) -> str:
    """Ask for the turns of one sitting; `news` are the topics and what happened to each since the last one."""
    shown = "\n".join(f"- {one}" for one in news)
    return (
        f"{_people(names, personas)}\n\nWrite sitting {number} of their long friendship, 10 to 20 turns, as chat. "
        f"Speaker 1 is {names[0]}, speaker 2 is {names[1]}. They mention, in passing and with details:\n{shown}\n"
        f"Facts of the one must not become facts of the other."
    )


def memories(names: tuple[str, str], turns: Sequence[tuple[int, Utterance]]) -> str:
    """Ask for what a memory agent would extract of one sitting."""
    return (
        f"{_shown(turns)}\n\nExtract what a personal memory agent should remember: one short fact each, in the third "
        f"person and with the name ({names[0]} is 1, {names[1]} is 2), with the numbers of the turns it comes from."
    )


def questions(names: tuple[str, str], turns: Sequence[tuple[int, Utterance]]) -> str:
    """Ask for questions of five kinds about the whole conversation."""
    return (
        f"{_shown(turns)}\n\nWrite questions that {names[0]}, {names[1]} or their assistant may ask months later, "
        f"naming whom they are about: single-hop (one turn answers), multi-hop (several turns together), temporal "
        f"(when, in which order, what is true now), open (needs judgement), preference (what somebody would like). "
        f"About four of each kind. In other words than the turns. Give the answer in a few words, and the numbers of "
        f"all turns that are needed."
    )


def _people(names: tuple[str, str], personas: tuple[Sequence[str], Sequence[str]]) -> str:
    return "\n".join(f"{name}: {' '.join(facts)}" for name, facts in zip(names, personas, strict=True))


def _shown(turns: Sequence[tuple[int, Utterance]]) -> str:
    return "\n".join(f"[{number}] {said.speaker}: {said.text}" for number, said in turns)
