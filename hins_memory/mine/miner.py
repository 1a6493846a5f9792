"""The miner: owner by owner from the log to tiered examples. Nothing of one owner reaches another by default."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hins_memory.mine.draft import Draft, TextPool, count_ranked, draft_examples, make_pool, owner_rng, pool_negatives
from hins_memory.mine.owner import OwnerMemories, build_owner
from hins_memory.mine.positives import find_positives
from hins_memory.mine.ratio import RatioEstimate, estimate_ratio
from hins_memory.mine.report import MineReport
from hins_memory.mine.settings import MineSettings
from hins_memory.types import Ratio, ScopeLog, Tier, TieredExample

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from hins_memory.encoder import Encoder

__all__ = ["MineResult", "mine"]

_log = logging.getLogger(__name__)
# With share_scopes, so many texts of all owners together are kept to draw easy negatives from.
_RESERVOIR = 5000
# The report lists the ratios of so many owners.
_OWNERS_LISTED = 50


@dataclass(frozen=True, slots=True)
class MineResult:
    """The examples, in order of the owners in the log, and the report."""

    examples: list[TieredExample]
    report: MineReport


def mine(
    logs: Iterable[ScopeLog],
    encoder: Encoder,
    settings: MineSettings | None = None,
    public: Sequence[str] | None = None,
) -> MineResult:
    """Turn captured interactions into tiered training examples.

    Args:
        logs: what the log holds of each owner; read once, one owner at a time.
        encoder: the current encoder: what it ranks high decides the ratio and which negatives are near.
        settings: what is kept and how it is sampled.
        public: texts that belong to nobody, for easy negatives of owners with too few conversations.

    Returns:
        The examples and a report. A log without positives gives no examples and a report that says why.
        The same input and seed give the same examples.

    Raises:
        EncoderError: the encoder cannot encode.
    """
    run = _Run(encoder, settings or MineSettings(), public or ())
    for log in logs:
        run.add(log)
    return run.finish()


class _Run:
    """One run of the miner: what is accumulated over the owners."""

    def __init__(self, encoder: Encoder, settings: MineSettings, public: Sequence[str]) -> None:
        self._encoder = encoder
        self._settings = settings
        self._public = public
        self._public_pool: TextPool | None = None
        self._report = MineReport()
        self._skipped: Counter[str] = Counter()
        self._ranked: Counter[Tier] = Counter()
        self._drafts: dict[str, list[Draft]] = {}
        self._shared = _Reservoir(settings.seed)
        self._all_single = True

    def add(self, log: ScopeLog) -> None:
        """Mine one owner."""
        if not log.retrievals and not self._settings.share_scopes and not self._settings.provenance:
            # Encoding is what costs: nothing can come of an owner who never asked.
            self._skipped["owners without retrievals"] += 1
            self._report.owners += 1
            self._report.deleted += log.deleted
            self._report.memories += len(log.memories)
            self._report.conversations += len({memory.conversation for memory in log.memories})
            return
        owner = build_owner(log, self._encoder, self._settings.max_chars, self._skipped)
        report = self._report
        report.owners += 1
        report.deleted += log.deleted
        report.memories += len(owner.texts)
        report.conversations += owner.conversation_count
        report.topics += len(set(owner.topics.tolist()))
        if self._settings.share_scopes:
            self._shared.add(log.scope.owner.key, owner)
        evidence = find_positives(log, owner, self._encoder, self._settings, self._skipped)
        report.queries += sum(one.asked for one in evidence)
        evidence = [one for one in evidence if one.positives]
        if not evidence:
            return
        vectors = self._encoder.encode([one.query for one in evidence], role="query")
        self._all_single = self._all_single and owner.conversation_count == 1
        self._ranked += count_ranked(owner, evidence, vectors, self._settings)
        outside = bool(self._public) or self._settings.share_scopes
        drafts, ratio = draft_examples(log.scope, owner, evidence, vectors, self._settings, outside)
        self._drafts.setdefault(log.scope.owner.key, []).extend(drafts)
        if len(report.owner_ratios) < _OWNERS_LISTED:
            report.owner_ratios[log.scope.owner.key] = ratio

    def finish(self) -> MineResult:
        """Fill in negatives from outside, hold each owner to its share, and report."""
        settings, report = self._settings, self._report
        _hold_share(self._drafts, settings.max_owner_share, self._skipped, report)
        examples: list[TieredExample] = []
        for drafts in self._drafts.values():
            rng = owner_rng(drafts[0].example.scope, settings.seed + 1) if drafts else None
            for draft in drafts:
                assert rng is not None
                examples.append(self._filled(draft, rng))
        whole = [example for example in examples if example.negatives]
        self._skipped["positives without any negative"] += len(examples) - len(whole)
        if short := sum(len(example.negatives) < settings.negatives for example in whole):
            report.notes.append(f"{short} example(s) have fewer than {settings.negatives} negatives: no more passed.")
        report.ranked = {tier.value: self._ranked[tier] for tier in Tier}
        if isinstance(settings.ratio, Ratio):
            report.set_ratio(RatioEstimate(settings.ratio, {}))
        else:
            report.set_ratio(estimate_ratio(self._ranked, one_conversation=self._all_single))
        report.add_examples(whole)
        report.skipped = {reason: count for reason, count in sorted(self._skipped.items()) if count}
        _log.info("mined %d examples from %d owners", report.examples, report.owners)
        return MineResult(whole, report)

    def _filled(self, draft: Draft, rng: np.random.Generator) -> TieredExample:
        if not draft.lacking:
            return draft.example
        pool = self._shared.pool() if self._settings.share_scopes else None
        if pool is not None and any(owner != draft.example.scope.owner.key for owner in pool.owners):
            return pool_negatives(draft, pool, self._settings, rng)
        if not self._public:
            return draft.example
        if self._public_pool is None:
            self._public_pool = make_pool(self._encoder, self._public)
        return pool_negatives(draft, self._public_pool, self._settings, rng)


class _Reservoir:
    """A uniform sample of all owners' memories, of bounded size (reservoir sampling)."""

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._seen = 0
        self._rows: list[tuple[str, str, str, NDArray[np.float32]]] = []
        self._pool: TextPool | None = None

    def add(self, key: str, owner: OwnerMemories) -> None:
        import numpy as np

        rng = np.random.default_rng([self._seed, self._seen])
        for row, memory in enumerate(owner.memories):
            self._seen += 1
            entry = (owner.texts[row], memory.id, key, owner.vectors[row])
            if len(self._rows) < _RESERVOIR:
                self._rows.append(entry)
            elif (place := int(rng.integers(self._seen))) < _RESERVOIR:
                self._rows[place] = entry
        self._pool = None

    def pool(self) -> TextPool | None:
        import numpy as np

        if self._pool is None and self._rows:
            texts, ids, owners, vectors = zip(*self._rows, strict=True)
            self._pool = TextPool(texts, ids, owners, np.stack(vectors))
        return self._pool


def _hold_share(drafts: dict[str, list[Draft]], share: float, skipped: Counter[str], report: MineReport) -> None:
    """Cut each owner's drafts so that none has more than its share; the least sure ones go first."""
    counts = [len(found) for found in drafts.values() if found]
    if not counts or max(counts) <= share * sum(counts):
        return
    if len(counts) * share <= 1:
        report.notes.append(
            f"No owner can be held to {share:.0%} of the examples: only {len(counts)} owner(s) have any."
        )
        return
    low, high = 1, max(counts)
    # The largest owner's share of min(count, cap) grows with the cap.
    while low < high:
        cap = (low + high + 1) // 2
        if cap <= share * sum(min(count, cap) for count in counts):
            low = cap
        else:
            high = cap - 1
    for key, found in drafts.items():
        if len(found) > low:
            skipped["examples over the owner's share"] += len(found) - low
            sure = sorted(range(len(found)), key=lambda place: -found[place].example.positive.confidence)[:low]
            drafts[key] = [found[place] for place in sorted(sure)]
