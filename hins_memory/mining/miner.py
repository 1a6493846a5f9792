"""The miner: owner by owner from the log to tiered examples. By default, owners are not mixed."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hins_memory.common.chunks import chunks_of
from hins_memory.mining.negatives.example_builder import ExampleBuilder, count_ranked, near_rows
from hins_memory.mining.negatives.pool import (
    PartialExample,
    TextPool,
    make_pool,
    owner_rng,
    pool_negatives,
    pool_priority,
)
from hins_memory.mining.negatives.ratio import RatioEstimate, estimate_ratio
from hins_memory.mining.negatives.tiers import PAPER_TIERS
from hins_memory.mining.owner.owner import OwnerMemories
from hins_memory.mining.owner.vectors import VectorFolder, few_threads
from hins_memory.mining.positives.evidence import QueryEvidence
from hins_memory.mining.report import MineReport
from hins_memory.mining.settings import MineSettings
from hins_memory.mining.storage.evidence import OwnerEvidence, collect, content_digest, digest_of
from hins_memory.mining.storage.mining_store import MiningStore
from hins_memory.types import Ratio, Scope, ScopeLog, Tier, TieredExample

if TYPE_CHECKING:
    import numpy as np

    from hins_memory.encoders.encoder import Encoder

__all__ = ["MineResult", "MinedPart", "MinerRun", "mine"]

_log = logging.getLogger(__name__)
# The report lists the ratios of at most this many owners.
_OWNERS_LISTED = 50
# Examples that are written at a time.
_WRITTEN = 1_000
# The store's name in a run's folder.
_JOURNAL = "journal.db"
# Part of a store's identity: a store that an older miner wrote is not continued.
_VERSION = 6


@dataclass(frozen=True, slots=True)
class MineResult:
    """The examples, in order of the owners in the log, and the report."""

    examples: list[TieredExample]
    report: MineReport


@dataclass(frozen=True, slots=True)
class MinedPart:
    """Owners that another `MinerRun` of the same encoder, settings and public texts has mined and kept in a folder."""

    folder: Path


def mine(
    logs: Iterable[ScopeLog | OwnerEvidence],
    encoder: Encoder,
    settings: MineSettings | None = None,
    public: Sequence[str] | None = None,
) -> MineResult:
    """Turn captured interactions into tiered training examples, in memory.

    Args:
        logs: what the log holds of each owner, or the evidence that was made of it; read once, one owner at a time.
        encoder: the current encoder: what it ranks high decides the ratio and which negatives are near.
        settings: what is kept and how it is sampled.
        public: texts that belong to no user, for easy negatives of owners with too few conversations.

    Returns:
        The examples and a report. A log without positives gives no examples and a report that says why.
        The same input and seed give the same examples.

    Raises:
        EncoderError: the encoder cannot encode.
    """
    run = MinerRun(encoder, settings or MineSettings(), public or ())
    with run:
        for owner in logs:
            run.add(owner)
        examples = list(run.examples())
        return MineResult(examples, run.report())


class MinerRun:
    """One run of the miner: owners in, one at a time, then examples out. `mine` and `mine_to_parquet` share it.

    Args:
        encoder: the current encoder.
        settings: the miner's settings.
        public: texts that belong to no user.
        folder: where the store is, so that a killed run can be continued; None keeps it in memory.
    """

    def __init__(
        self,
        encoder: Encoder,
        settings: MineSettings,
        public: Sequence[str],
        folder: Path | None = None,
    ) -> None:
        self._encoder = encoder
        self._settings = settings
        self._public = public
        self._durable = folder is not None
        self._vectors = VectorFolder(settings, folder)
        identity = digest_of([repr(settings), str(encoder.version), str(_VERSION), *public])
        self._store = MiningStore(folder / _JOURNAL if folder else None, identity, settings.memory_budget)
        self._report = MineReport()
        self._skipped: Counter[str] = Counter()

    def __enter__(self) -> MinerRun:
        return self

    def __exit__(self, *_: object) -> None:
        self._store.close()

    def keep(self) -> None:
        """Make what the owners gave so far durable, for a run that adds this one's folder as a `MinedPart`."""
        self._store.commit(now=True)

    def add(self, owner: ScopeLog | OwnerEvidence | MinedPart) -> None:
        """Mine one owner; an owner with the same content that an earlier run finished is skipped."""
        if isinstance(owner, MinedPart):
            self._store.adopt(owner.folder / _JOURNAL)
            return
        content = ""
        if self._durable:
            content = owner.content if isinstance(owner, OwnerEvidence) else content_digest(owner)
        if self._store.known(owner.scope, content):
            return
        number = self._store.add(owner.scope, content)
        with self._vectors.owner():
            if isinstance(owner, ScopeLog):
                owner = collect(owner, self._encoder, self._settings, self._vectors)
            with few_threads(owner.memories):
                summary = self._mine(owner, number)
        self._store.finish(number, summary)

    def _mine(self, evidence: OwnerEvidence, number: int) -> dict[str, Any]:
        settings, owner = self._settings, evidence.owner
        skipped = evidence.skipped.copy()
        summary: dict[str, Any] = {
            "deleted": evidence.deleted,
            "memories": evidence.memories,
            "conversations": len(evidence.conversations),
        }
        if owner is not None:
            if settings.share_scopes:
                self._offer(evidence.scope.owner.key, number, owner)
            summary |= {
                "memories": len(owner.texts),
                "conversations": owner.conversation_count,
                "topics": len(set(owner.topics.tolist())),
                "queries": len(evidence.queries),
            }
            summary |= self._examples_of(evidence.scope, owner, evidence.queries, number, skipped)
        return summary | {"skipped": {reason: count for reason, count in skipped.items() if count}}

    def _examples_of(
        self,
        scope: Scope,
        owner: OwnerMemories,
        queries: Sequence[QueryEvidence],
        number: int,
        skipped: Counter[str],
    ) -> dict[str, Any]:
        """Choose the negatives of one owner's positives; return their numbers for its summary."""
        settings = self._settings
        answered = [query for query in queries if query.positives]
        if not answered:
            return {}
        vectors = self._vectors.encode(self._encoder, [query.query for query in answered], "query")
        near = near_rows(owner, answered, vectors, settings)
        counts = count_ranked(owner, answered, vectors, near)
        ratio = settings.ratio
        if not isinstance(ratio, Ratio):
            ratio = estimate_ratio(counts).ratio
        outside = bool(self._public) or settings.share_scopes
        builder = ExampleBuilder(scope, owner, ratio, settings, outside)
        # Chosen before the store is asked: an error in choosing them is not one of the store.
        for some in chunks_of(_numbered(builder.examples(answered, vectors, near), skipped), _WRITTEN):
            self._store.add_examples(number, some)
        shares = [ratio.easy, ratio.medium, ratio.hard, ratio.source, ratio.count]
        return {"ranked": [counts[tier] for tier in PAPER_TIERS], "ratio": shares}

    def _offer(self, key: str, number: int, owner: OwnerMemories) -> None:
        chosen = []
        for row, memory in enumerate(owner.memories):
            priority = pool_priority(key, memory.id, self._settings.seed)
            if self._store.wanted(priority):
                chosen.append((priority, memory.id, owner.texts[row], row))
        entries = [(priority, memory, text) for priority, memory, text, _ in chosen]
        self._store.add_to_pool(number, entries, [owner.vectors[row] for *_, row in chosen])

    def examples(self) -> Iterator[TieredExample]:
        """Limit each owner's share, add negatives from outside, and yield the examples that have any; called once."""
        store, settings, report = self._store, self._settings, self._report
        store.drop_absent()
        store.commit()
        self._add_summaries()
        self._limit_owner_share()
        shared = store.pool() if settings.share_scopes else None
        public: TextPool | None = None
        current, rng, short = -1, None, 0
        for number, partial in store.examples():
            example = partial.example
            if partial.missing_negatives:
                if number != current:
                    current, rng = number, owner_rng(example.scope, settings.seed + 1)
                assert rng is not None
                if public is None and self._public:
                    public = make_pool(self._encoder, self._public)
                with few_threads(0):
                    example = _with_missing_negatives(partial, shared, public, settings, rng)
            if not example.negatives:
                self._skipped["positives without any negative"] += 1
                continue
            short += len(example.negatives) < settings.negatives
            report.add_example(example)
            yield example
        if short:
            report.notes.append(f"{short} example(s) have fewer than {settings.negatives} negatives: no more passed.")

    def report(self) -> MineReport:
        """Return the report; complete once `examples` has been read to its end."""
        self._report.skipped = {reason: count for reason, count in sorted(self._skipped.items()) if count}
        _log.info("mined %d examples from %d owners", self._report.examples, self._report.owners)
        return self._report

    def _add_summaries(self) -> None:
        """Add up the owners' summaries."""
        report, ranked = self._report, Counter[Tier]()
        for key, summary in self._store.summaries():
            report.owners += 1
            for name in ("memories", "conversations", "topics", "queries", "deleted"):
                setattr(report, name, getattr(report, name) + summary.get(name, 0))
            self._skipped.update(summary["skipped"])
            if "ratio" not in summary:
                continue
            ranked.update(dict(zip(PAPER_TIERS, summary["ranked"], strict=True)))
            if len(report.owner_ratios) < _OWNERS_LISTED:
                report.owner_ratios[key] = Ratio(*summary["ratio"])
        report.ranked = {tier.value: ranked[tier] for tier in PAPER_TIERS}
        if isinstance(self._settings.ratio, Ratio):
            report.set_ratio(RatioEstimate(self._settings.ratio, {}))
        else:
            report.set_ratio(estimate_ratio(ranked))

    def _limit_owner_share(self) -> None:
        """Cut each owner's examples so that none has more than its share; those with the lowest confidence go first."""
        share, counts = self._settings.max_owner_share, self._store.counts()
        if not counts or max(counts) <= share * sum(size * owners for size, owners in counts.items()):
            return
        if sum(counts.values()) * share <= 1:
            note = f"No owner can be held to {share:.0%} of the examples: only {counts.total()} owner(s) have any."
            self._report.notes.append(note)
            return
        low, high = 1, max(counts)
        # The largest owner's share of min(count, cap) grows with the cap.
        while low < high:
            cap = (low + high + 1) // 2
            if cap <= share * sum(min(size, cap) * owners for size, owners in counts.items()):
                low = cap
            else:
                high = cap - 1
        self._skipped["examples over the owner's share"] += self._store.cut(low)


def _numbered(examples: Iterable[PartialExample], skipped: Counter[str]) -> Iterator[tuple[int, PartialExample]]:
    """Yield the examples that have negatives, or may get some from outside, with their places among all."""
    for place, partial in enumerate(examples):
        if partial.example.negatives or partial.missing_negatives:
            yield place, partial
        else:
            skipped["positives without any negative"] += 1


def _with_missing_negatives(
    partial: PartialExample,
    shared: TextPool | None,
    public: TextPool | None,
    settings: MineSettings,
    rng: np.random.Generator,
) -> TieredExample:
    """Return the example with its missing negatives: of other owners where they may be used, else public texts."""
    if shared is not None and bool((shared.owners != partial.example.scope.owner.key).any()):
        return pool_negatives(partial, shared, settings, rng)
    return pool_negatives(partial, public, settings, rng) if public is not None else partial.example
