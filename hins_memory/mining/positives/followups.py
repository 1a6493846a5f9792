"""Follow-up signals: the user repeats or corrects a question soon after, so what was found first was not right.

Two kinds. *Repeated*: nearly the same query again (by meaning, by words, and about the same speakers) in the same
scope within minutes, but not within two seconds, which is a program's own retry. *Corrected*: a user's turn like
"no, I meant ..." after the answer, or a next query like it.

The probability that a memory was wrong comes from Bayes' rule. Before the follow-up a memory was relevant with
probability c: from attribution, or, where nothing was attributed, how often the first result of a search is right. A
follow-up is L times as likely after a wrong memory as after a right one, so the memory is wrong with probability
L (1 - c) / (L (1 - c) + c). No public log gives L for the two kinds, so both start as assumptions about users. The
owner's explicit feedback updates them: how often a search was followed up where a person said that it was wrong, and
where a person said that it was right (`likelihood_ratios`).
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

from hins_memory.mining.owner.owner import OwnerMemories
from hins_memory.mining.owner.text import normalized, words
from hins_memory.mining.positives.evidence import QueryEvidence, ResolvedRetrieval
from hins_memory.mining.settings import MineSettings
from hins_memory.types import FOLLOWUP_SECONDS, Scope, ScopeLog, Turn

if TYPE_CHECKING:
    from hins_memory.encoders.encoder import Encoder

__all__ = [
    "FIRST_RANK_PRECISION",
    "FOLLOWUP_RATES",
    "FOLLOWUP_SECONDS",
    "FollowUp",
    "apply_followups",
    "find_followups",
    "is_correction",
    "likelihood_ratios",
]

Kind = Literal["repeated", "corrected"]

#: Assumed: how often a user follows up after a wrong memory, and after a right one.
FOLLOWUP_RATES: Mapping[Kind, tuple[float, float]] = {"repeated": (0.4, 0.1), "corrected": (0.2, 0.01)}
# The prior of each rate weighs as much as this many searches with feedback.
_RATE_COUNT = 20
#: How often the first result of a search is relevant, where no answer says more (stock encoder on LoCoMo: 0.18).
FIRST_RANK_PRECISION = 0.25

_SAME_QUERY = 0.85
# Of the shorter query's words.
_SAME_WORDS = 0.75
_RETRY_SECONDS = 2.0
_AGENTS = frozenset({"assistant", "system", "agent", "bot", "ai", "tool"})
_CORRECTION = re.compile(
    r"^(?:no|nope|nah|sorry|wait|actually|hmm)\b[\s,.!:;-]*(?:but |that['’]s |it['’]s )?"
    r"(?:i (?:meant|mean|was asking|asked|said)\b|not (?:that|this|what|him|her|them)\b|the other\b"
    r"|wrong\b|incorrect\b)"
    r"|\bnot what i (?:asked|meant|wanted|was looking for)\b"
    r"|^(?:i meant|i was asking about|i was talking about)\b"
    r"|\b(?:that|this|it)(?:['’]s| is| was) (?:wrong|incorrect|not (?:right|correct|true|it))\b"
    r"|\byou (?:got|have) (?:that|it|this) wrong\b|^(?:wrong|incorrect)\b|^try again\b"
    r"|\bich meinte\b|\bquise decir\b|\bme refer[ií]a a\b|\bje voulais dire\b|我是说|我的意思是|我说的是",
    re.IGNORECASE,
)
_CORRECTION_CHARS = 300


@dataclass(frozen=True, slots=True)
class FollowUp:
    """A search that was followed up, how, and the search that came after it, if one did."""

    first: ResolvedRetrieval
    kind: Kind
    second: ResolvedRetrieval | None


def is_correction(text: str) -> bool:
    """Return whether a user's words say that the answer before was not what they asked for."""
    return len(text) <= _CORRECTION_CHARS and _CORRECTION.search(normalized(text)) is not None


def find_followups(
    log: ScopeLog, resolved: Sequence[ResolvedRetrieval], owner: OwnerMemories, encoder: Encoder
) -> list[FollowUp]:
    """Return the searches of an owner that were followed up, each once.

    A search that was both repeated and corrected counts as corrected.
    """
    ordered = sorted(resolved, key=lambda search: search.retrieval.time)
    pairs = list(_next_searches(ordered, FOLLOWUP_SECONDS))
    followed = {id(first): FollowUp(first, "repeated", second) for first, second in _repeated(pairs, owner, encoder)}
    for first, second in pairs:
        if is_correction(second.retrieval.query):
            followed[id(first)] = FollowUp(first, "corrected", second)
    after = {id(first): second for first, second in pairs}
    for first in _corrected_by_turns(log.turns, ordered, FOLLOWUP_SECONDS):
        followed[id(first)] = FollowUp(first, "corrected", after.get(id(first)))
    return list(followed.values())


def _may_be_one_session(one: Scope, other: Scope) -> bool:
    """Return whether two scopes of one owner may be the same session."""
    return one.run == other.run or not one.run or not other.run


def _next_searches(
    ordered: Sequence[ResolvedRetrieval], seconds: float
) -> Iterator[tuple[ResolvedRetrieval, ResolvedRetrieval]]:
    """Yield each search with the next one of the same scope, where that came within the time and is not a retry."""
    last: dict[Scope, ResolvedRetrieval] = {}
    for search in ordered:
        scope, time = search.retrieval.scope, search.retrieval.time
        first = last.get(scope)
        if first is not None and _RETRY_SECONDS <= time - first.retrieval.time <= seconds:
            yield first, search
        last[scope] = search


def _repeated(
    pairs: Sequence[tuple[ResolvedRetrieval, ResolvedRetrieval]], owner: OwnerMemories, encoder: Encoder
) -> Iterator[tuple[ResolvedRetrieval, ResolvedRetrieval]]:
    import numpy as np

    similar = [pair for pair in pairs if _same_words(pair[0].key, pair[1].key, owner.name_stems)]
    if not similar:
        return
    ends = [encoder.encode([pair[end].retrieval.query for pair in similar], role="query") for end in (0, 1)]
    near = np.einsum("nd,nd->n", ends[0], ends[1]) >= _SAME_QUERY
    yield from (pair for pair, same in zip(similar, near.tolist(), strict=True) if same)


def _same_words(one: str, other: str, names: frozenset[str]) -> bool:
    """Return whether two queries share most words: "what did Ann paint" is not a repetition of "what did Bo paint"."""
    first, second = set(words(one)), set(words(other))
    if first & names != second & names:
        return False
    return len(first & second) >= _SAME_WORDS * max(1, min(len(first), len(second)))


def _corrected_by_turns(
    turns: Sequence[Turn], ordered: Sequence[ResolvedRetrieval], seconds: float
) -> Iterator[ResolvedRetrieval]:
    """Yield the search behind each answer that a user's turn corrects.

    A turn may be recorded after the search that it caused, so the corrected search is the last one before the turn
    that it replies to, not the last one before itself.
    """
    times = [search.retrieval.time for search in ordered]
    before: dict[str, Turn] = {}
    for turn in sorted(turns, key=lambda turn: turn.time):
        answer = before.get(turn.conversation)
        before[turn.conversation] = turn
        if answer is None or answer.speaker == turn.speaker or turn.speaker.casefold() in _AGENTS:
            continue
        if not is_correction(turn.text):
            continue
        for position in range(bisect_right(times, answer.time) - 1, -1, -1):
            if turn.time - times[position] > seconds:
                break
            if _may_be_one_session(ordered[position].retrieval.scope, turn.scope):
                yield ordered[position]
                break


def likelihood_ratios(
    followups: Sequence[FollowUp], resolved: Sequence[ResolvedRetrieval], evidence: Mapping[str, QueryEvidence]
) -> dict[Kind, float]:
    """Return how many times as likely each kind of follow-up is after a wrong memory as after a right one.

    Counted over the searches that a person judged, with `FOLLOWUP_RATES` as the prior of both rates: a search is right
    where a memory that it returned got positive feedback, wrong where one was rejected and none was right. At least 1,
    because a follow-up is never a sign that the search was right.

    Args:
        followups: the searches that were followed up.
        resolved: all searches of the owner.
        evidence: what explicit feedback said of each query, before any follow-up changes it.
    """
    kinds = {id(followup.first): followup.kind for followup in followups}
    judged = [0, 0]
    followed: Counter[tuple[Kind, int]] = Counter()
    for search in resolved:
        query = evidence[search.key]
        confirmed = {row for row, positive in query.positives.items() if positive.source == "feedback"}
        right = not confirmed.isdisjoint(search.rows)
        if not right and query.rejected.isdisjoint(search.rows):
            continue
        judged[right] += 1
        if (kind := kinds.get(id(search))) is not None:
            followed[kind, right] += 1
    ratios: dict[Kind, float] = {}
    for kind, prior in FOLLOWUP_RATES.items():
        wrong, right_rate = (
            (followed[kind, right] + _RATE_COUNT * prior[right]) / (judged[right] + _RATE_COUNT)
            for right in (False, True)
        )
        ratios[kind] = max(1.0, wrong / right_rate)
    return ratios


def apply_followups(
    followups: Sequence[FollowUp],
    ratios: Mapping[Kind, float],
    evidence: Mapping[str, QueryEvidence],
    settings: MineSettings,
    skipped: Counter[str],
) -> None:
    """Lower the confidence of a followed-up search's positives, or reject them; explicit feedback is not changed.

    `ratios` are those of `likelihood_ratios`.
    """
    for followup in followups:
        query = evidence[followup.first.key]
        attributed = [
            row
            for row, positive in query.positives.items()
            if positive.source == "answer" and positive.retrieval_id == followup.first.retrieval.id
        ]
        kept: set[int] = set()
        if followup.second is not None and followup.second.key != followup.first.key:
            # A memory that the next search was answered from is unlikely to be wrong for this one.
            next_evidence = evidence[followup.second.key]
            kept = set(next_evidence.positives) | next_evidence.plausible
        for row in attributed or followup.first.rows[:1]:
            positive = query.positives.get(row)
            if row in kept or (positive is not None and row not in attributed):
                continue
            before = positive.confidence if positive is not None else FIRST_RANK_PRECISION
            ratio = ratios[followup.kind]
            wrong = ratio * (1 - before) / (ratio * (1 - before) + before)
            _lower_confidence(query, row, wrong, settings)
            skipped[f"first choices of searches that the user {followup.kind}"] += 1


def _lower_confidence(query: QueryEvidence, row: int, wrong: float, settings: MineSettings) -> None:
    positive = query.positives.get(row)
    if wrong >= max(settings.min_confidence, 0.5):
        query.positives.pop(row, None)
        query.rejected.add(row)
    elif positive is not None:
        query.positives[row] = replace(positive, confidence=1 - wrong)
        if 1 - wrong < settings.min_confidence:
            del query.positives[row]
