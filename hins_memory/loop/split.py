"""Which conversations are held out: the latest ones, left out of training, for the gate."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import overload

from hins_memory.evaluation import EvalQuery, EvalSet
from hins_memory.evaluation.as_served import SearchReplay
from hins_memory.mining.owner.vectors import VectorFolder
from hins_memory.mining.positives.evidence import QueryEvidence
from hins_memory.mining.storage.evidence import EvidenceStore, OwnerEvidence
from hins_memory.plugins.protocols import Agent, ranking_of
from hins_memory.types import Scope

__all__ = [
    "HeldOutSets",
    "LabelledConversation",
    "conversation_digest",
    "labelled",
    "latest",
    "search_replay",
    "without",
]


@dataclass(frozen=True, slots=True)
class LabelledConversation:
    """A conversation with queries whose positive memories lie in it.

    Attributes:
        owner: the key of the scope whose conversation it is.
        digest: identifies it without its name (see `conversation_digest`).
        time: of its last turn or memory, in seconds since the Unix epoch (UTC).
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


def labelled(evidence: Iterable[OwnerEvidence]) -> list[LabelledConversation]:
    """Return the conversations that have queries with known positives, in the order of the owners."""
    found: list[LabelledConversation] = []
    for one in evidence:
        if one.scope.synthetic:
            # Synthetic questions are not evidence of what users ask.
            continue
        for name, queries in _by_conversation(one).items():
            retrievals = {positive.retrieval_id for query in queries for positive in query.positives.values()}
            digest = conversation_digest(one.scope, name)
            time = one.conversations[name]
            found.append(LabelledConversation(one.scope.owner.key, digest, time, frozenset(retrievals), len(queries)))
    return found


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
    """

    def __init__(self, store: EvidenceStore, conversations: Collection[LabelledConversation]) -> None:
        self._store = store
        # Owner by owner, so that each is read once in a pass.
        self._conversations = sorted(conversations, key=lambda one: one.owner)
        self._owner: str | None = None
        self._sets: dict[str, EvalSet] = {}

    def __len__(self) -> int:
        return len(self._conversations)

    @overload
    def __getitem__(self, index: int) -> EvalSet: ...

    @overload
    def __getitem__(self, index: slice) -> list[EvalSet]: ...

    def __getitem__(self, index: int | slice) -> EvalSet | list[EvalSet]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        conversation = self._conversations[index]
        if conversation.owner != self._owner:
            self._owner, self._sets = conversation.owner, _sets(self._store.get(conversation.owner))
        return self._sets[conversation.digest]


def _sets(evidence: OwnerEvidence) -> dict[str, EvalSet]:
    """Return the evaluation set of each labelled conversation of an owner, by its digest."""
    owner, key = evidence.owner, evidence.scope.owner.key
    if owner is None:
        return {}
    documents = {memory.id: text for memory, text in zip(owner.memories, owner.texts, strict=True)}
    found = {}
    for name, queries in _by_conversation(evidence).items():
        asked = tuple(
            EvalQuery(query.query, frozenset(owner.memories[row].id for row in query.positives), key)
            for query in queries
        )
        found[conversation_digest(evidence.scope, name)] = EvalSet(f"{key} {name}", documents, asked)
    return found


def search_replay(agent: Agent) -> SearchReplay | None:
    """Return the search of an agent's framework over the queries of `HeldOutSets`; None if it ranks by cosine alone."""
    ranking = ranking_of(agent)
    if ranking is None:
        return None
    return SearchReplay(
        agent.name,
        ranking.signals,
        ranking.candidates,
        lambda group, query, found: ranking.rank(Scope.from_key(group), query, found),
    )


def latest(
    conversations: Collection[LabelledConversation], share: float, min_queries: int
) -> list[LabelledConversation]:
    """Return the latest conversations of each owner, as few as hold the share, or the number, of labelled queries.

    Of each owner, the latest conversations with the share of its own queries are held out, and at least one is left to
    train on. Owners with a single conversation form one group, of which the latest are held out. If that is too few
    queries, the latest of the other conversations follow. At least one conversation is left to train on.
    """
    groups: dict[str, list[LabelledConversation]] = {}
    for one in _by_time(conversations):
        groups.setdefault(one.owner, []).append(one)
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


def without(evidence: OwnerEvidence, held: Collection[LabelledConversation], folder: VectorFolder) -> OwnerEvidence:
    """Return an owner's evidence without its held-out conversations.

    Args:
        evidence: the owner's.
        held: which of its conversations are held out.
        folder: where the vectors of very many memories go.
    """
    digests = {one.digest for one in held}
    gone = {name for name in evidence.conversations if conversation_digest(evidence.scope, name) in digests}
    return evidence.without(gone, {retrieval for one in held for retrieval in one.retrievals}, folder)
