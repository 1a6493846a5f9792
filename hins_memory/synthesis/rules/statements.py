"""From first-person sentences to statements: who, tense, verb and the rest, where simple rules are certain."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal

from hins_memory.synthesis.rules.verbs import base_form, is_past

__all__ = ["Statement", "sentences", "statements"]

#: How the verb stands: the auxiliary that a question about it is fronted with.
Tense = Literal["present", "past", "perfect", "future", "progressive", "be", "was", "modal"]

_SENTENCE = re.compile(r"(?<=[.!?])\s+")
_OPENING = re.compile(
    r"^(?:(?:well|yes|yeah|yep|no|so|and|but|oh|actually|also|hey|hi|sure|honestly|okay|ok|lately|recently|currently|"
    r"right now|sometimes|usually|personally|me too|wow|hmm|in fact|of course|unfortunately|then|as for me)\b[,.! ]+)+",
    re.I,
)
_SUBJECT = re.compile(
    r"^(?P<subject>I|my (?:\w+ )?(?:mom|mother|dad|father|parents|brother|sister|husband|wife|son|daughter|kids|"
    r"children|family|boyfriend|girlfriend|friend|friends|best friend|dog|dogs|cat|cats|boss|grandmother|grandfather|"
    r"grandma|uncle|aunt|cousin|fiance|partner|roommate))(?P<aux>'m|'ve|'d|'ll|'s)?\s+(?P<rest>.+)$",
    re.I,
)
_FAVORITE = re.compile(r"^my favou?rite (?P<kind>[a-z ]{2,40}?) (?:is|are|was) (?P<what>.+)$", re.I)
_ADVERB = re.compile(
    r"^(?P<adverb>just|also|really|always|often|usually|recently|still|currently|actually|finally|even|only|already|"
    r"absolutely|definitely|mostly|sometimes|probably|especially|have just|both|all|once|now|regularly)\s+",
    re.I,
)
_MODALS = ("can", "could", "would", "should", "might", "may", "must")
#: Verbs that comment on the conversation and say nothing about the speaker.
_EMPTY = frozenset(
    (
        *("agree", "guess", "think", "know", "mean", "hope", "bet", "see", "understand", "feel", "believe", "wonder"),
        *("suppose", "hear", "say", "tell", "wish", "imagine", "figure", "appreciate", "thank", "try", "check", "get"),
    )
)
_NEGATED = re.compile(
    r"\b(?:not|never|n't|don't|didn't|can't|won't|haven't|wasn't|isn't|couldn't|wouldn't)\b", re.IGNORECASE
)
# "I'm sure that ...", "I'll have to check ...": said of the moment, not of the speaker.
_MOOD = re.compile(
    r"^(?:to (?:try|check|look|ask|agree|say|go there|remember)\b|(?:so |very |really |just )?(?:sure|glad|sorry|"
    r"happy (?:to|for|that)|excited (?:to|for)|good|doing|fine|here|curious|not)\b)",
    re.IGNORECASE,
)
_TRAILING = re.compile(
    r"(?:,? (?:too|as well|either|myself|now|though|anyway|sometimes?|actually|again|so much|very much))+$",
    re.IGNORECASE,
)
# "I went to [college name].": a blank that was not filled in.
_BLANK = re.compile(r"[\[\](){}<>]")
_TALK = re.compile(r"\b(?:you|your|yours|that's|there|this|that|it|one)\b", re.IGNORECASE)
_LONGEST_REST = 22
_SHORTEST_SENTENCE = 8


@dataclass(frozen=True, slots=True)
class Statement:
    """A clause about the speaker or the speaker's family.

    `subject` is ``I`` or ``my ...`` in lower case, `verb` the base form, `rest` what follows, as said.
    `auxiliary` is the modal or ``used to`` where there is one; `source` is the sentence. For favourites `verb` is
    ``favorite``, `auxiliary` the kind of thing and `rest` the thing.
    """

    subject: str
    tense: Tense
    verb: str
    rest: str
    source: str
    auxiliary: str = ""


def sentences(text: str) -> list[str]:
    """Split an utterance into its sentences."""
    return [part.strip() for part in _SENTENCE.split(text.strip()) if part.strip()]


def statements(text: str) -> Iterator[Statement]:
    """Yield what an utterance states of its speaker; questions, echoes and small talk give nothing."""
    for sentence in sentences(text):
        if sentence.endswith("?") or len(sentence) < _SHORTEST_SENTENCE or _BLANK.search(sentence):
            continue
        plain = _OPENING.sub("", sentence.replace("’", "'")).rstrip(".!… ").strip()
        clause = re.split(r"[;:]|, (?:but|so|and I|which|because it)\b| but I\b", plain)[0].strip()
        if (found := _favorite(clause) or _plain(clause)) is not None:
            yield replace(found, source=sentence)


def _favorite(clause: str) -> Statement | None:
    found = _FAVORITE.match(clause)
    if found is None or _TALK.search(found["what"]):
        return None
    return Statement("i", "present", "favorite", found["what"], clause, found["kind"].lower())


def _plain(clause: str) -> Statement | None:
    found = _SUBJECT.match(clause)
    if found is None or _NEGATED.search(clause):
        return None
    rest = (found["aux"].replace("'", "") + " " if found["aux"] else "") + found["rest"]
    parsed = _verb(found["subject"].lower(), rest, clause)
    if parsed is None or parsed.verb in _EMPTY or len(parsed.rest.split()) > _LONGEST_REST or _MOOD.match(parsed.rest):
        return None
    parsed = replace(parsed, rest=_TRAILING.sub("", parsed.rest))
    # Questions cannot ask for a sentence that refers to the one before ("I love it!").
    content = [word for word in re.findall(r"[a-z']+", parsed.rest.lower()) if len(word) > 3 and not _TALK.match(word)]
    return parsed if content and not (_TALK.search(parsed.rest) and len(content) < 3) else None


def _verb(subject: str, rest: str, clause: str) -> Statement | None:
    """Read auxiliaries and the verb from the front of `rest`."""
    word, _, after = _cut(rest)
    if word in ("m", "am", "is", "are", "s"):
        return _being(subject, after, clause, "be")
    if word in ("was", "were"):
        return _being(subject, after, clause, "was")
    if word in ("ve", "has") or (word == "have" and _participle_next(after)):
        return _perfect(subject, after, clause)
    if word in ("ll", "will"):
        verb, _, tail = _cut(after)
        return Statement(subject, "future", verb, tail, clause)
    if word == "d":
        verb, _, tail = _cut(after)
        return Statement(subject, "modal", verb, tail, clause, "would")
    if word in _MODALS:
        verb, _, tail = _cut(after)
        return Statement(subject, "modal", verb, tail, clause, word)
    if word == "used" and after.startswith("to "):
        verb, _, tail = _cut(after[3:])
        return Statement(subject, "past", verb, tail, clause)
    if not word.isalpha() or len(word) < 2:
        return None
    return Statement(subject, "past" if is_past(word) else "present", base_form(word), after, clause)


def _cut(text: str) -> tuple[str, str, str]:
    """Return the first word in lower case (adverbs skipped), the adverbs, and what follows."""
    adverbs = ""
    while found := _ADVERB.match(text):
        adverbs += found["adverb"] + " "
        text = text[found.end() :]
    word, _, rest = text.partition(" ")
    return word.lower(), adverbs, rest.strip()


def _participle_next(after: str) -> bool:
    word = _cut(after)[0]
    return word in ("been", "gone", "done", "seen", "taken", "written", "worn", "got", "gotten", "won") or (
        word.endswith("ed") and len(word) > 4
    )


def _perfect(subject: str, after: str, clause: str) -> Statement | None:
    verb, _, tail = _cut(after)
    if verb == "got":
        return Statement(subject, "present", "have", tail, clause)
    if verb == "been":
        following, _, further = _cut(tail)
        if following.endswith("ing") and len(following) > 4:
            return Statement(subject, "perfect", base_form(following), further, clause, "been")
        return Statement(subject, "perfect", "be", tail, clause)
    return Statement(subject, "perfect", base_form(verb), tail, clause) if verb.isalpha() else None


def _being(subject: str, after: str, clause: str, tense: Literal["be", "was"]) -> Statement | None:
    word, _, tail = _cut(after)
    if word == "going" and tail.startswith("to "):
        verb, _, further = _cut(tail[3:])
        if verb not in ("the", "a", "my"):
            return Statement(subject, "future", verb, further, clause)
    if word.endswith("ing") and len(word) > 4 and tail and word not in ("interesting", "amazing", "boring", "exciting"):
        return Statement(subject, "progressive", base_form(word), tail, clause, "was" if tense == "was" else "")
    return Statement(subject, tense, "be", after, clause)
