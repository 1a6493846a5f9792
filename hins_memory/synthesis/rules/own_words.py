"""Packaged facts and questions in the words of the person: ``{0} has a dog.`` becomes ``I have a dog.``."""

from __future__ import annotations

import re

from hins_memory.synthesis.rules.verbs import base_form, is_past

__all__ = ["as_said", "asked_by"]


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_ADVERB = re.compile(r"(?:never|always|often|only|still|now|once|also|hardly|seldom|sometimes|already|\w+ly)$")
_FORMS = {"is": "am", "has": "have", "does": "do", "isn't": "am not", "hasn't": "haven't", "doesn't": "don't"}
# Verbs with the same form for every person.
_SAME = _words("was wasn't had hadn't did didn't cannot can can't could will won't would should must used")
# Past forms that no table has.
_UNCHANGED = _words("bet cut fed hit hung hurt let put quit read set shut swept wept")
# Verbs that packaged facts have behind a conjunction; other words there that end in s are mostly nouns.
_SECOND = _words(
    "adds answers apologises arrives asks avoids bakes begins begs binges blames blushes books brings calls carries "
    "checks cheers climbs comes complains confuses considers cooks counts declines deletes despises detests "
    "disapproves dislikes distrusts does doesn't dreads drifts drinks drops eats enjoys expects falls fears feeds "
    "feels fills finds finishes flees follows forgets freezes gargles gets gives goes grieves has hates hides hopes "
    "hosts hums insists is isn't keeps kneads knits knows learns leaves lets lies likes listens lives looks loses "
    "loves makes meditates meets misses mistrusts mourns mutes needs objects owes owns pays picks plays polishes "
    "practises prefers proposes puts reads regrets reheats rehearses releases relies remembers rents repairs "
    "repeats replaces rests returns rewinds rides rises runs says sees sells sends shares shouts shuts sits skips "
    "sleeps speaks spends squeezes starts stays sticks stores studies sulks supports swears takes talks tells texts "
    "thanks thinks throws travels turns uses volunteers wakes walks wants wears works writes"
)
_JOINED = re.compile(r"((?:\band|\bbut|\bor|\bthen|,) (?:never |always |only |still |now |hardly )?)([a-z']+)")
_INVERTED = {"does": "do", "is": "am", "has": "have", "doesn't": "don't", "isn't": "am I not", "hasn't": "haven't"}
_BEFORE_SUBJECT = re.compile(
    r"\b(does|doesn't|did|didn't|is|has|was|had|can|could|should|would|will|might|must|may) \{0\}(?!')", re.IGNORECASE
)
_BEFORE_OBJECT = re.compile(
    r"\b(for|to|with|of|about|from|by|at|on|give|let|make|help|tell|invite|suit|find) \{0\}(?!')"
)


def as_said(fact: str) -> str | None:
    """Return a fact about ``{0}`` in the first person; None where its form is not known."""
    words = fact.split()
    if "{1}" in fact or fact.count("{0}") > fact.count("{0}'s") + (words[0] == "{0}"):
        return None
    if words[0] == "{0}":
        place = 1
        while place < len(words) - 1 and _ADVERB.match(words[place]):
            place += 1
        verb = _own(words[place])
        if verb is None:
            return None
        rest = _JOINED.sub(_second, " ".join(words[place + 1 :]))
        fact = " ".join(("I", *words[1:place], verb, rest))
    elif words[0] != "{0}'s":
        return None
    fact = fact.replace("{0}'s", "my")
    return fact[0].upper() + fact[1:]


def _own(verb: str) -> str | None:
    if verb in _FORMS:
        return _FORMS[verb]
    if verb in _SAME or is_past(verb):
        return verb
    if verb.endswith("s") and verb.isalpha():
        return base_form(verb)
    return verb if verb in _UNCHANGED else None


def _second(found: re.Match[str]) -> str:
    return found[1] + ((_own(found[2]) or found[2]) if found[2] in _SECOND else found[2])


def asked_by(question: str) -> str | None:
    """Return a question about ``{0}`` as they ask it of themself; None where its form is not known."""

    def subject(found: re.Match[str]) -> str:
        verb = found[1].lower()
        own = _INVERTED.get(verb, verb)
        own = own if " " in own else f"{own} I"
        return own[0].upper() + own[1:] if found[1][0].isupper() else own

    question = _BEFORE_SUBJECT.sub(subject, question)
    question = _BEFORE_OBJECT.sub(r"\1 me", question).replace("{0}'s", "my")
    if "{" in question or re.search(r"\bme (?:and|[a-z]+s)\b", question):
        return None
    return question[0].upper() + question[1:]
