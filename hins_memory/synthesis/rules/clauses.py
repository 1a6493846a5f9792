"""Statements in the third person: as facts, and as the parts that questions are built of."""

from __future__ import annotations

import re
from dataclasses import dataclass

from hins_memory.synthesis.rules.statements import Statement
from hins_memory.synthesis.rules.verbs import base_form, ing_form, third_person

__all__ = ["Person", "fact", "front", "reword", "who"]

_FORMS = {
    "i": "{s}", "i'm": "{s} is", "i've": "{s} has", "i'd": "{s} would", "i'll": "{s} will", "my": "{p}", "me": "{o}",
    "mine": "{p}", "myself": "{o}self", "am": "is", "we": "they", "we're": "they are", "we've": "they have",
    "our": "their", "us": "them", "ourselves": "themselves",
}  # fmt: skip
_WORD = re.compile(r"\b[A-Za-z]+(?:'(?:m|ve|d|ll|re))?\b")
_PLURAL = frozenset(("parents", "kids", "children", "friends", "dogs", "cats"))


@dataclass(frozen=True, slots=True)
class Person:
    """A speaker: a first name and the pronouns that fit it, e.g. ``she``, ``her``, ``her``."""

    name: str
    subject: str
    possessive: str
    objective: str


def reword(text: str, person: Person) -> str:
    """Return first-person text in the third person."""

    def one(found: re.Match[str]) -> str:
        form = _FORMS.get(found[0].lower())
        return form.format(s=person.subject, p=person.possessive, o=person.objective) if form else found[0]

    return _WORD.sub(one, text)


def who(statement: Statement, person: Person) -> str:
    """Return whom a statement is about by name, e.g. ``Ana`` or ``Ana's mother``."""
    return person.name if statement.subject == "i" else f"{person.name}'s {statement.subject[3:]}"


def fact(statement: Statement, person: Person) -> str:
    """Return a statement as an extracted memory reads, e.g. ``Ana has two dogs.``."""
    subject, rest = who(statement, person), reword(statement.rest, person)
    if statement.verb == "favorite":
        return f"{subject}'s favorite {statement.auxiliary} is {rest}."
    if statement.tense == "present":
        finite = statement.verb if _plural(statement) else third_person(statement.verb)
    elif statement.tense == "past":
        finite = _said(statement)
    elif statement.tense == "future":
        finite = f"plans to {statement.verb}"
    else:
        auxiliary, verb = front(statement)
        finite = f"{auxiliary} {verb}".rstrip()
    return f"{subject} {finite} {rest}".rstrip() + "."


def front(statement: Statement) -> tuple[str, str]:
    """Return the auxiliary that a question begins with, and the verb form behind the subject ("" for ``be``)."""
    plural, verb = _plural(statement), statement.verb
    be, was, have, do = ("are", "were", "have", "do") if plural else ("is", "was", "has", "does")
    progressive = was if statement.auxiliary == "was" else be
    forms = {
        "be": (be, ""),
        "was": (was, ""),
        "past": ("did", verb),
        "future": (be, f"planning to {verb}"),
        "progressive": (progressive, ing_form(verb)),
        "modal": (statement.auxiliary, verb),
        "present": (do, verb),
    }
    if statement.tense != "perfect":
        return forms[statement.tense]
    if verb == "be":
        return have, "been"
    return have, f"been {ing_form(verb)}" if statement.auxiliary else _said(statement)


def _plural(statement: Statement) -> bool:
    return statement.subject.split()[-1] in _PLURAL


def _said(statement: Statement) -> str:
    """Return the past form or participle as it was said: the word of the source whose base is the verb."""
    for word in re.findall(r"[a-z]+", statement.source.lower()):
        if base_form(word) == statement.verb:
            return f"used to {word}" if word == statement.verb and "used to" in statement.source.lower() else word
    return statement.verb
