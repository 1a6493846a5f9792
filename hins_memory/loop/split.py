"""Which conversations are held out: the latest ones, left out of training, for the gate.

For a tower of one scope, which may have a single conversation, the latest queries of each owner are held out instead:
documents keep their vectors, so that later questions about the same memories are what it is judged on.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal, overload

from hins_memory.evaluation import EvalQuery, EvalSet
from hins_memory.evaluation.as_served import SearchReplay
from hins_memory.mining.owner.vectors import VectorFolder
from hins_memory.mining.positives.evidence import QueryEvidence
from hins_memory.mining.storage.evidence import EvidenceStore, OwnerEvidence, digest_of
from hins_memory.plugins.protocols import Agent, ranking_of
from hins_memory.types import Scope

__all__ = [
    "HeldOutSets",
    "LabelledConversation",
    "Unit",
    "by_owner",
    "conversation_digest",
    "labelled",
    "latest",
    "newest",
    "query_digest",
    "search_replay",
    "trained_digests",
    "without",
]

#: What is held out or trained on as a whole: a conversation with its memories, or a single query.
Unit = Literal["conversation", "query"]


@dataclass(frozen=True, slots=True)
class LabelledConversation:
    """A conversation with queries whose positive memories lie in it; or one query, where queries are held out.

    Attributes:
        owner: the key of the scope whose conversation it is.
        digest: identifies it without its name (see `conversation_digest`, `query_digest`).
        time: of its last turn or memory, in seconds since the Unix epoch (UTC); of a query, its place among those of
            its owner, over 0 and up to 1, in the order in which they were first asked.
        retrievals: the ids of the retrievals that belong to it.
        queries: how many of its queries have a known positive.
    """

    owner: str
    digest: str
    time: float
    retrievals: frozenset[str]
    queries: int


def conversation_digest(owner: Scope, conversation: str) -> str:
    """Return 16 hexadecimal digits that identify a conversation of an owner, without naming either."""
    # A name may hold a line break; without this, the rest of it would count as part of the conversation's name.
    key = owner.owner.key.replace("\n", "%0A")
    return hashlib.sha256(f"{key}\n{conversation}".encode()).hexdigest()[:16]


def query_digest(owner: Scope, query: str) -> str:
    """Return 16 hexadecimal digits that identify a query of an owner, without its text."""
    # No conversation's digest is of three lines.
    return conversation_digest(owner, f"query\n{query}")


def labelled(evidence: Iterable[OwnerEvidence], unit: Unit = "conversation") -> list[LabelledConversation]:
    """Return the conversations, or the queries, that have known positives, in the order of the owners."""
    found: list[LabelledConversation] = []
    for one in evidence:
        if one.scope.synthetic:
            # Synthetic questions are not evidence of what users ask.
            continue
        if unit == "query":
            found += _labelled_queries(one)
            continue
        for name, queries in _by_conversation(one).items():
            retrievals = {positive.retrieval_id for query in queries for positive in query.positives.values()}
            digest = conversation_digest(one.scope, name)
            time = one.conversations[name]
            found.append(LabelledConversation(one.scope.owner.key, digest, time, frozenset(retrievals), len(queries)))
    return found


def _labelled_queries(evidence: OwnerEvidence) -> list[LabelledConversation]:
    # The evidence has the queries in the order in which they were first asked.
    asked = [query for query in evidence.queries if query.positives]
    return [
        LabelledConversation(
            evidence.scope.owner.key,
            query_digest(evidence.scope, query.query),
            place / len(asked),
            frozenset(positive.retrieval_id for positive in query.positives.values()),
            1,
        )
        for place, query in enumerate(asked, 1)
    ]


def _by_conversation(evidence: OwnerEvidence) -> dict[str, list[QueryEvidence]]:
    """Return the queries with positives, by the conversation of the positive with the highest confidence."""
    found: dict[str, list[QueryEvidence]] = {}
    if evidence.owner is None:
        return found
    for query in evidence.queries:
        if query.positives:
            best = max(query.positives, key=lambda row: query.positives[row].confidence)
            found.setdefault(evidence.owner.memories[best].conversation, []).append(query)
    return found


class HeldOutSets(Sequence[EvalSet]):
    """The evaluation sets of labelled conversations, each read from the evidence when it is asked for.

    A set has the queries of one conversation over all memories of its owner. Sets of one owner share their documents.
    Where single queries are held out, an owner has one set, of all of them.
    """

    def __init__(
        self, store: EvidenceStore, conversations: Collection[LabelledConversation], unit: Unit = "conversation"
    ) -> None:
        self._store = store
        # Owner by owner, so that each is read once in a pass.
        ordered = sorted(conversations, key=lambda one: one.owner)
        self._parts = [(one.owner, one.digest) for one in ordered]
        self._held = frozenset(one.digest for one in ordered) if unit == "query" else None
        if unit == "query":
            self._parts = [(owner, owner) for owner in dict.fromkeys(one.owner for one in ordered)]
        self._owner: str | None = None
        self._sets: dict[str, EvalSet] = {}

    def __len__(self) -> int:
        return len(self._parts)

    @overload
    def __getitem__(self, index: int) -> EvalSet: ...

    @overload
    def __getitem__(self, index: slice) -> list[EvalSet]: ...

    def __getitem__(self, index: int | slice) -> EvalSet | list[EvalSet]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        owner, part = self._parts[index]
        if owner != self._owner:
            self._owner, self._sets = owner, _sets(self._store.get(owner), self._held)
        return self._sets[part]


def _sets(evidence: OwnerEvidence, held: frozenset[str] | None) -> dict[str, EvalSet]:
    """Return the evaluation set of each labelled conversation of an owner, by its digest.

    With the digests of the queries that are held out, it is the set of those, by the owner's key.
    """
    owner, key = evidence.owner, evidence.scope.owner.key
    if owner is None:
        return {}
    documents = {memory.id: text for memory, text in zip(owner.memories, owner.texts, strict=True)}

    def made(name: str, queries: Iterable[QueryEvidence]) -> EvalSet:
        asked = tuple(
            EvalQuery(query.query, frozenset(owner.memories[row].id for row in query.positives), key)
            for query in queries
        )
        return EvalSet(name, documents, asked)

    if held is not None:
        return {key: made(key, (one for one in evidence.queries if query_digest(evidence.scope, one.query) in held))}
    return {
        conversation_digest(evidence.scope, name): made(f"{key} {name}", queries)
        for name, queries in _by_conversation(evidence).items()
    }


def search_replay(agent: Agent | None) -> SearchReplay | None:
    """Return the search of an agent's framework over the queries of `HeldOutSets`; None if it ranks by cosine alone."""
    ranking = None if agent is None else ranking_of(agent)
    if agent is None or ranking is None:
        return None
    return SearchReplay(
        agent.name,
        ranking.signals,
        ranking.candidates,
        ranking.takes_keyword_weight,
        lambda group, query, found, weights: ranking.rank(Scope.from_key(group), query, found, weights),
    )


def latest(
    conversations: Collection[LabelledConversation], share: float, min_queries: int
) -> list[LabelledConversation]:
    """Return the latest conversations of each owner, as few as hold the share, or the number, of labelled queries.

    Of each owner, the latest conversations with the share of its own queries are held out, and at least one is left to
    train on. Owners with a single conversation form one group, of which the latest are held out. If that is too few
    queries, the latest of the other conversations follow. At least one conversation is left to train on.
    """
    groups = by_owner(_by_time(conversations))
    single = [found[0] for found in groups.values() if len(found) == 1]
    several = [found for found in groups.values() if len(found) > 1]
    # If every owner has a single conversation, one of these has to be left to train on.
    offered = [found[:-1] for found in several] + [single if several else single[:-1]]
    held: list[LabelledConversation] = []
    for found, whole in zip(offered, [*several, single], strict=True):
        _take(held, found, share * _queries(whole))
    taken = {one.digest for one in held}
    rest = [one for one in _by_time(conversations) if one.digest not in taken]
    wanted = max(share * _queries(conversations), min_queries)
    _take(held, rest[:-1], wanted - _queries(held))
    return _by_time(held)


def newest(
    conversations: Collection[LabelledConversation], share: float, queries: tuple[int, int], limit: float
) -> list[LabelledConversation]:
    """Return the newest conversations of all owners together that hold a share of the labelled queries.

    Args:
        conversations: the conversations.
        share: the share, over 0 and below 1.
        queries: how many they are to hold at least, and how many are enough.
        limit: the largest share that may be taken; there is none where more would be needed.
    """
    total, (least, enough) = _queries(conversations), queries
    found: list[LabelledConversation] = []
    _take(found, _by_time(conversations), min(max(share * total, least), enough))
    return found if least <= _queries(found) <= limit * total else []


def by_owner(conversations: Iterable[LabelledConversation]) -> dict[str, list[LabelledConversation]]:
    """Return the conversations by their owner's key, in their order."""
    found: dict[str, list[LabelledConversation]] = {}
    for one in conversations:
        found.setdefault(one.owner, []).append(one)
    return found


def _take(held: list[LabelledConversation], found: Iterable[LabelledConversation], wanted: float) -> None:
    """Move conversations into `held`, in their order, until they have as many queries as wanted."""
    for one in found:
        if wanted <= 0:
            return
        held.append(one)
        wanted -= one.queries


def _by_time(conversations: Iterable[LabelledConversation]) -> list[LabelledConversation]:
    """Return the latest first; the digest decides where times are equal, so that nothing depends on the order."""
    return sorted(conversations, key=lambda one: (one.time, one.digest), reverse=True)


def _queries(conversations: Iterable[LabelledConversation]) -> int:
    return sum(one.queries for one in conversations)


def trained_digests(evidence: OwnerEvidence, unit: Unit = "conversation") -> list[str]:
    """Return what identifies the conversations, or the queries, of an owner's evidence."""
    if unit == "query":
        return sorted(query_digest(evidence.scope, query.query) for query in evidence.queries)
    return sorted(conversation_digest(evidence.scope, name) for name in evidence.conversations)


def without(
    evidence: OwnerEvidence,
    held: Collection[LabelledConversation],
    folder: VectorFolder,
    unit: Unit = "conversation",
) -> OwnerEvidence:
    """Return an owner's evidence without its held-out conversations, or without its held-out queries.

    Args:
        evidence: the owner's.
        held: which of its conversations, or queries, are held out.
        folder: where the vectors of very many memories go.
        unit: which of the two they are; memories stay where queries go.
    """
    digests = {one.digest for one in held}
    if unit == "query":
        left = tuple(one for one in evidence.queries if query_digest(evidence.scope, one.query) not in digests)
        return replace(evidence, queries=left, content=digest_of([evidence.content, *sorted(digests)]))
    gone = {name for name in evidence.conversations if conversation_digest(evidence.scope, name) in digests}
    return evidence.without(gone, {retrieval for one in held for retrieval in one.retrievals}, folder)
