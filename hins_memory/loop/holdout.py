"""Which conversations a candidate is judged on: the latest ones, kept out of training altogether."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from hins_memory.errors import ConfigError
from hins_memory.evaluation.evaluate import EvalQuery, EvalSet
from hins_memory.mining.owner.owner import build_owner
from hins_memory.mining.positives.find import find_positives
from hins_memory.mining.settings import MineSettings
from hins_memory.types import ScopeLog

if TYPE_CHECKING:
    from hins_memory.encoders.encoder import Encoder

__all__ = ["HoldoutSettings", "JudgedConversation", "conversation_digest", "judged", "latest", "without"]


@dataclass(frozen=True, slots=True)
class HoldoutSettings:
    """How much is held out.

    Args:
        share: at least this share of all judged queries is held out, over 0 and below 1.
        min_queries: and at least this many.

    Raises:
        ConfigError: a value is out of range.
    """

    share: float = 0.25
    min_queries: int = 20

    def __post_init__(self) -> None:
        if not 0 < self.share < 1 or self.min_queries < 1:
            raise ConfigError(
                f"share={self.share}, min_queries={self.min_queries}.",
                "Hold out a share over 0 and below 1, and at least 1 query.",
            )


@dataclass(frozen=True, slots=True)
class JudgedConversation:
    """A conversation with the queries whose positive memories lie in it.

    Attributes:
        digest: stands for it wherever its name must not (see `conversation_digest`).
        time: of its last turn or memory, in seconds since the Unix epoch (UTC).
        retrievals: the ids of the retrievals that belong to it.
        evaluation: its queries over all memories of its owner.
    """

    digest: str
    time: float
    retrievals: frozenset[str]
    evaluation: EvalSet

    @property
    def owner(self) -> str:
        """Whose conversation it is, as the group of its queries; "" where they have none."""
        return self.evaluation.queries[0].group if self.evaluation.queries else ""


def conversation_digest(log: ScopeLog, conversation: str) -> str:
    """Return 16 hexadecimal digits that stand for a conversation of an owner, without naming either."""
    return hashlib.sha256(f"{log.scope.owner.key}\n{conversation}".encode()).hexdigest()[:16]


def judged(logs: Iterable[ScopeLog], encoder: Encoder, settings: MineSettings) -> list[JudgedConversation]:
    """Return the conversations that have queries with known positives, in the order of the logs.

    Args:
        logs: what the log holds of each owner.
        encoder: the encoder that attribution compares answers and memories with.
        settings: the miner's; they decide what counts as a positive.
    """
    found: list[JudgedConversation] = []
    for log in logs:
        if log.scope.synthetic:
            # What was made up proves nothing of what users ask.
            continue
        found += _judged_owner(log, encoder, settings)
    return found


def _judged_owner(log: ScopeLog, encoder: Encoder, settings: MineSettings) -> list[JudgedConversation]:
    owner = build_owner(log, encoder, settings.max_chars, Counter())
    documents = {memory.id: text for memory, text in zip(owner.memories, owner.texts, strict=True)}
    queries: dict[str, list[EvalQuery]] = {}
    retrievals: dict[str, set[str]] = {}
    for evidence in find_positives(log, owner, encoder, settings, Counter()):
        if not evidence.positives:
            continue
        surest = max(evidence.positives, key=lambda row: evidence.positives[row].confidence)
        conversation = owner.memories[surest].conversation
        relevant = frozenset(owner.memories[row].id for row in evidence.positives)
        queries.setdefault(conversation, []).append(EvalQuery(evidence.query, relevant, log.scope.owner.key))
        retrievals.setdefault(conversation, set()).update(p.retrieval_id for p in evidence.positives.values())
    last = log.conversations()
    return [
        JudgedConversation(
            digest=conversation_digest(log, conversation),
            time=last[conversation],
            retrievals=frozenset(retrievals[conversation]),
            evaluation=EvalSet(f"{log.scope.owner.key} {conversation}", documents, tuple(asked)),
        )
        for conversation, asked in queries.items()
    ]


def latest(conversations: Collection[JudgedConversation], settings: HoldoutSettings) -> list[JudgedConversation]:
    """Return the latest conversations of each owner, so many that together they hold enough judged queries.

    Each owner gives the latest that hold the share of its own queries, and keeps at least one to train on. Owners with
    a single conversation give it or keep it, whole: as one group, the latest of them. If all that is too little, the
    latest of the rest follow. At least one conversation is left to train on.
    """
    groups: dict[str, list[JudgedConversation]] = {}
    for one in _by_time(conversations):
        groups.setdefault(one.owner, []).append(one)
    single = [found[0] for found in groups.values() if len(found) == 1]
    several = [found for found in groups.values() if len(found) > 1]
    # Where everybody has one, the group of the single ones is all there is, and has to leave one.
    offered = [found[:-1] for found in several] + [single if several else single[:-1]]
    held: list[JudgedConversation] = []
    for found, whole in zip(offered, [*several, single], strict=True):
        _take(held, found, settings.share * _queries(whole))
    taken = {one.digest for one in held}
    rest = [one for one in _by_time(conversations) if one.digest not in taken]
    wanted = max(settings.share * _queries(conversations), settings.min_queries)
    _take(held, rest[:-1], wanted - _queries(held))
    return _by_time(held)


def _take(held: list[JudgedConversation], found: Iterable[JudgedConversation], wanted: float) -> None:
    """Move conversations into `held`, in their order, until they have as many queries as wanted."""
    for one in found:
        if wanted <= 0:
            return
        held.append(one)
        wanted -= len(one.evaluation.queries)


def _by_time(conversations: Iterable[JudgedConversation]) -> list[JudgedConversation]:
    """Return the latest first; the digest decides where times are equal, so that nothing depends on the order."""
    return sorted(conversations, key=lambda one: (one.time, one.digest), reverse=True)


def _queries(conversations: Iterable[JudgedConversation]) -> int:
    return sum(len(one.evaluation.queries) for one in conversations)


def without(log: ScopeLog, held: Collection[JudgedConversation]) -> ScopeLog:
    """Return an owner's log without the turns, memories and retrievals of the held-out conversations."""
    digests = {one.digest for one in held}
    gone = {name for name in log.conversations() if conversation_digest(log, name) in digests}
    if not gone:
        return log
    asked = {retrieval for one in held for retrieval in one.retrievals}
    return replace(
        log,
        turns=tuple(turn for turn in log.turns if turn.conversation not in gone),
        memories=tuple(memory for memory in log.memories if memory.conversation not in gone),
        retrievals=tuple(one for one in log.retrievals if one.id not in asked),
    )
