"""Questions from statements by rules, naming the speaker as memory queries do."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hins_memory.synthesis.rules.clauses import Person, front, reword, who
from hins_memory.synthesis.rules.statements import Statement
from hins_memory.synthesis.rules.templates import OWN_TEMPLATES, TEMPLATES
from hins_memory.synthesis.rules.verbs import ing_form
from hins_memory.synthesis.rules.words import CLASS_WORDS, SYNONYMS

if TYPE_CHECKING:
    from collections.abc import Iterator
    from random import Random

__all__ = ["Question", "questions"]

#: How often a word that has a synonym is replaced by one.
_SYNONYM_RATE = 0.35
_WHETHER_RATE = 0.5
_WHY_RATE = 0.25
_LIKING = frozenset(("like", "love", "enjoy", "prefer"))
_NOWHERE = _LIKING | {"want", "have"}

_UNITS = "night|week|weekend|month|year|summer|winter|spring|fall|autumn|day|morning|evening|time"
_DAYS = "monday|tuesday|wednesday|thursday|friday|saturday|sunday"
_TIME = re.compile(
    rf"\s*\b(?:(?:last|next|this|every|each|past) (?:\w+ )?(?:{_UNITS}|{_DAYS})s?|yesterday|today|tonight|tomorrow|"
    r"(?:a|\w+) (?:few |couple of )?(?:day|week|month|year)s? ago|recently|when i was [\w ]+|on (?:the )?weekends?|"
    r"in my (?:free|spare) time|for (?:fun|a living)|(?:once|twice|\w+ times) a (?:day|week|month|year)|"
    r"in (?:19|20)\d\d|a lot(?! of))\b",
    re.IGNORECASE,
)
_PLACE = re.compile(
    r"\s*\b(?:in|at|near|from|on the|to(?= (?:the|a|an|my|her|his|[A-Z])))\s+(?:(?:the|a|an|my|her|his)\s+)?[\w' -]+?"
    r"(?=$|[,.]| (?:with|for|and|because|every|when|while|as|since|where|to)\b)"
)
_WITH = re.compile(
    r"\s*\bwith (?:(?:my|her|his) [\w ]+?|(?:a )?friends?)(?=$|[,.]| (?:in|at|to|on|for|and|every|when)\b)",
    re.IGNORECASE,
)
_WHY = re.compile(r"\s*,?\s*\b(?:because|so that|in order to|since it)\b.*$", re.IGNORECASE)
_LONG = re.compile(
    r"\s*\b(?:for (?:(?:about|over|almost|the past) )*\w+ (?:year|month|week)s?|since [\w ]+)\b.*$", re.IGNORECASE
)
_COUNT = re.compile(
    r"^(?:two|three|four|five|six|seven|eight|nine|ten|\d+|twin|several|many|a couple of)\s+"
    r"(?P<noun>(?:\w+ ){0,2}?\w+s|kids|children|people)\b",
    re.IGNORECASE,
)
_TAIL = re.compile(
    r"\s+\b(?:with|at|in|on|to|from|for|about|after|during|every|because|when|while|as|by|of|near|and|so|that|which|"
    r"who|around|since|before|until|into)\b.*$",
    re.IGNORECASE,
)
# What follows the first of things that are listed.
_LIST = re.compile(r",.*$")
_NAMED = re.compile(r"\b(?:named|called)\s+(?P<name>[\w' ]+)$", re.IGNORECASE)
_ARTICLE = re.compile(r"^(?:a|an|one|two|my|pet|the)\s+")
_OLD = re.compile(r"^[\w-]+ years? old", re.IGNORECASE)
_SYNONYM = re.compile(rf"\b(?:{'|'.join(SYNONYMS)})\b")
_CLASSES = {
    name: re.compile(rf"\b(?:{'|'.join(word.replace('-', '[- ]') + 's?' for word in words.split())})\b", re.IGNORECASE)
    for name, words in CLASS_WORDS.items()
}


@dataclass(frozen=True, slots=True)
class Question:
    """A question about a statement; `kind` is the family of rules that it came from."""

    text: str
    kind: str


def questions(statement: Statement, person: Person, rng: Random) -> list[Question]:
    """Return the questions that the rules find for a statement; texts may repeat."""
    builder = _QuestionBuilder(statement, person, rng)
    found = list(builder.special())
    if statement.verb != "favorite":
        found += [*builder.circumstances(), *builder.objects(), *builder.classes()]
    return [Question(_tidy(_with_synonyms(one.text, rng)), one.kind) for one in found]


def _with_synonyms(text: str, rng: Random) -> str:
    def one(found: re.Match[str]) -> str:
        return rng.choice(SYNONYMS[found[0]]) if rng.random() < _SYNONYM_RATE else found[0]

    return _SYNONYM.sub(one, text)


def _tidy(text: str) -> str:
    text = re.sub(r"\s+", " ", text).strip(" ,")
    text = re.sub(r"[\s,]+([?,.])", r"\1", text)
    return text[:1].upper() + text[1:]


def _circumstance(text: str) -> str:
    """Return what follows the object, from its first preposition on; "" where that belongs to the object."""
    tail = _TAIL.search(text)
    return "" if tail is None or re.match(r"\s+(?:of|and|so|that|which|who|by|as)\b", tail[0]) else tail[0]


class _QuestionBuilder:
    """Builds the questions about one statement."""

    def __init__(self, statement: Statement, person: Person, rng: Random) -> None:
        self._said = statement
        self._person = person
        self._rng = rng
        self._who = who(statement, person)
        self._rest = reword(statement.rest, person)
        self._plain = _TIME.sub("", self._rest).strip(" ,")
        auxiliary, self._verb = front(statement) if statement.verb != "favorite" else ("", "")
        self._head = f"{auxiliary} {self._who} {self._verb}".rstrip()

    def _pick(self, occasion: str, kind: str, **fields: str) -> Question:
        wording = self._rng.choice(TEMPLATES[occasion] + OWN_TEMPLATES.get(occasion, ()))
        return Question(wording.format(who=self._who, **fields), kind)

    def special(self) -> Iterator[Question]:
        """Yield questions on favourites, jobs, ages, origins, counts, names, likings and plans."""
        said, rest = self._said, self._rest
        if said.verb == "favorite":
            yield Question(f"What is {self._who}'s favorite {said.auxiliary}?", "preference")
            yield self._pick("favorite", "preference", sort=said.auxiliary, thing=rest)
            return
        if said.tense in ("be", "was") or (said.verb == "work" and rest.startswith("as ")):
            yield from self._identity()
        if said.verb in ("have", "own", "raise") and (counted := _COUNT.match(rest)):
            yield Question(f"How many {counted['noun']} does {self._who} have?", "how many")
        if named := _NAMED.search(said.rest):
            thing = _ARTICLE.sub("", said.rest[: named.start()].strip())
            yield self._pick("named", "what", thing=thing)
        if said.tense == "present" and said.verb == "hate":
            yield self._pick("dislike", "preference")
        elif said.tense == "present" and said.verb in _LIKING:
            yield from self._likings()
        elif said.verb in ("want", "hope", "plan", "dream") and rest.startswith(("to ", "of ")):
            yield self._pick("future", "what")

    def _identity(self) -> Iterator[Question]:
        said, rest = self._said, self._rest
        if _OLD.match(rest):
            yield Question(f"How old {'was' if said.tense == 'was' else 'is'} {self._who}?", "how")
            yield Question(f"What is {self._who}'s age?", "how")
        elif rest.startswith("from "):
            yield self._pick("origin", "where")
        elif _CLASSES["job"].search(rest):
            yield self._pick("job", "what")
        elif rest.startswith(("a ", "an ")) and said.subject == "i":
            yield self._pick("self", "what", oneself=f"{self._person.objective}self")

    def _likings(self) -> Iterator[Question]:
        rest = self._rest
        if rest.startswith("to ") or re.match(r"\w+ing\b", rest):
            yield self._pick("hobby", "preference", whose=self._person.possessive)
            rest = _LIST.sub("", rest)
            first, _, others = rest.removeprefix("to ").partition(" ")
            doing = f"{ing_form(first)} {others}".strip() if rest.startswith("to ") else rest
            yield self._pick("doing", "preference", thing=doing)
        else:
            yield self._pick("taste", "preference")
            if core := _TAIL.sub("", self._plain).strip():
                yield self._pick("thing", "preference", thing=core)

    def circumstances(self) -> Iterator[Question]:
        """Yield questions on when, where, with whom, why and how long."""
        said, rest, plain, head = self._said, self._rest, self._plain, self._head
        if self._verb and said.tense in ("past", "perfect", "future", "progressive"):
            yield Question(f"When {head} {plain}?", "when")
        place = _PLACE.search(plain)
        if place and self._verb and said.verb not in _NOWHERE and not plain.startswith("to "):
            yield Question(f"Where {head} {plain[: place.start()]}{plain[place.end() :]}?", "where")
        elif place and not self._verb and rest.startswith(("in ", "at ")):
            yield Question(f"Where {head}?", "where")
        if self._verb and (company := _WITH.search(rest)):
            yield Question(f"Who {head} {rest[: company.start()]}{rest[company.end() :]} with?", "who")
        if _WHY.search(rest):
            yield Question(f"Why {head} {_WHY.sub('', rest)}?", "why")
        elif self._verb and self._rng.random() < _WHY_RATE:
            yield Question(f"Why {head} {plain}?", "why")
        if self._verb and _LONG.search(rest):
            yield Question(f"How long {head} {_LONG.sub('', rest)}?", "how")

    def objects(self) -> Iterator[Question]:
        """Yield questions whose answer is the object, the infinitive or the whole predicate."""
        if not self._verb:
            return
        said, plain, head = self._said, self._plain, self._head
        if plain.startswith("to "):
            verb, _, others = plain[3:].partition(" ")
            if said.verb not in _LIKING:
                yield Question(f"What {head} to do?", "what")
            if others:
                yield Question(f"What {head} to {verb.rstrip(',')}{_circumstance(f' {others}')}?", "what")
        elif plain:
            yield Question(f"What {head}{_circumstance(plain)}?", "what")
        time = _TIME.search(self._rest)
        when = f" {time[0].strip()}" if time and not time[0].strip().lower().startswith("when") else ""
        if said.tense == "past":
            yield self._pick("past", "what", time=when, verb=said.verb, thing=plain)
        elif said.tense in ("progressive", "future"):
            yield self._pick("coming", "what", time=when)
        if self._rng.random() < _WHETHER_RATE:
            yield Question(f"{head} {plain}?", "whether")

    def classes(self) -> Iterator[Question]:
        """Yield questions that name the class instead of the thing: the instrument for the piano."""
        for name, pattern in _CLASSES.items():
            hit = pattern.search(self._said.rest)
            if hit is None or name == "job":
                continue
            if self._verb:
                after = _TAIL.search(self._said.rest[hit.end() :])
                company = reword(after[0], self._person) if after and after[0].startswith(" with") else ""
                yield self._pick("class", "class", sort=name, head=self._head, after=company)
            yield self._pick("about", "class", sort=name, thing=hit[0])
