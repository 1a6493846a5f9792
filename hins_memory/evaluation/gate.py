"""The gate: candidate against incumbent on held-out conversations; all of its named rules must hold before a swap."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from hins_memory.common.renamed import old_names
from hins_memory.errors import ConfigError, NotEnoughDataError
from hins_memory.evaluation.as_served import SearchReplay, score_as_served
from hins_memory.evaluation.evaluate import RankingScores, evaluate_encoders
from hins_memory.evaluation.metrics import BootstrapResult, cutoff_shares, paired_bootstrap

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from hins_memory.encoders.encoder import Encoder
    from hins_memory.evaluation.evaluate import EvalSet

__all__ = ["MIN_CUTOFF_SHARE", "GateEvidence", "GateReport", "GateRule", "GateSettings", "K", "evaluate_gate"]

#: The rank that nDCG is cut at: about as many memories as a framework puts into a prompt.
K = 10
#: A share below this counts as this in a relative change: a few results near a rarely reached threshold do not decide.
MIN_CUTOFF_SHARE = 0.01
# Coverage of the bootstrap intervals; the usual one.
_CONFIDENCE = 0.95
# Resamples of the bootstrap.
_SAMPLES = 10_000
# A scope with at least this many held-out queries is a large one: no large scope may get significantly worse, whatever
# the others gain.
_MIN_SCOPE_QUERIES = 20
# Fixed, so that the same scores always get the same verdict.
_SEED = 0

# Training may use this share of the general loss that the gate allows.
_TRAINING_SHARE = 0.9


@dataclass(frozen=True, slots=True)
class GateSettings:
    """Settings of the gate.

    Args:
        held_out_share: the loop holds out at least this share of all labelled queries, over 0 and below 1.
        min_queries: and at least this many, if there are. With fewer held-out queries the gate gives an error.
        max_general_loss: how much nDCG@10 general retrieval may lose, 0 to 1 (0.01 is one point). Training in a loop
            keeps less of what was learned where more than nine tenths of it would be lost.
        max_cutoff_shift: by how much the share of results that reach a cut-off may change, relative to the
            incumbent's share (0.05 is five percent). A larger change counts only where the interval of the change
            lies wholly beyond the limit: a few dozen queries cannot tell such small changes apart.

    Raises:
        ConfigError: a value is out of range.
    """

    held_out_share: float = 0.25
    min_queries: int = 20
    max_general_loss: float = 0.01
    max_cutoff_shift: float = 0.05

    @property
    def general_loss_in_training(self) -> float:
        """How much training may lose: less than the gate allows, because the gate measures the saved model."""
        return min(_TRAINING_SHARE * self.max_general_loss, 1.0)

    def __post_init__(self) -> None:
        if not 0 < self.held_out_share < 1:
            raise ConfigError(f"held_out_share is {self.held_out_share}.", "Use a share over 0 and below 1.")
        if self.min_queries < 1:
            raise ConfigError(f"min_queries is {self.min_queries}.", "Use at least 1.")
        for name in ("max_general_loss", "max_cutoff_shift"):
            if not getattr(self, name) >= 0:
                raise ConfigError(f"{name} is {getattr(self, name)}.", "Use 0 or more.")


@dataclass(frozen=True, slots=True)
class GateRule:
    """One rule's verdict.

    Attributes:
        name: e.g. ``held_out_gain``.
        value: what was measured; None when the rule was skipped.
        limit: what it was compared with.
        passed: whether the rule holds; True when skipped.
        sentence: the verdict in words.
    """

    name: str
    value: float | None
    limit: float
    passed: bool
    sentence: str


@dataclass(frozen=True, slots=True)
class GateEvidence:
    """The scores behind a verdict, query by query. It holds what users wrote, and is left out of all JSON.

    Attributes:
        candidate: the candidate's scores of every held-out query.
        incumbent: the incumbent's, in the same order.
        held_out: the sets that the queries are from, in the same order; the loop's sets can be read only as long as the
            evidence of the round is there.
    """

    candidate: RankingScores
    incumbent: RankingScores
    held_out: Sequence[EvalSet]


@dataclass(frozen=True, slots=True)
class GateReport:
    """The gate's verdict on a candidate.

    Attributes:
        candidate: the candidate's encoder version.
        incumbent: the incumbent's encoder version.
        settings: the limits of the rules.
        gain: the paired difference of nDCG@k on held-out queries.
        rules: every rule's verdict.
        held_out: candidate and incumbent -> metric -> mean over held-out queries, 0 to 1.
        groups: candidate and incumbent -> group of queries -> metric -> mean.
        general: candidate and incumbent -> metric -> mean on general retrieval; empty when skipped.
        served: the same of held-out queries as the agent's search ranks; empty when that was not replayed.
        served_gain: the paired difference of nDCG@k as served; None when that was not replayed.
        evidence: the scores of every query.
    """

    candidate: str
    incumbent: str
    settings: GateSettings
    gain: BootstrapResult
    rules: tuple[GateRule, ...]
    held_out: Mapping[str, Mapping[str, float]]
    groups: Mapping[str, Mapping[str, Mapping[str, float]]]
    general: Mapping[str, Mapping[str, float]]
    served: Mapping[str, Mapping[str, float]]
    served_gain: BootstrapResult | None
    evidence: GateEvidence = field(repr=False, compare=False)

    @property
    def passed(self) -> bool:
        """Whether the candidate may be promoted: every rule holds."""
        return all(rule.passed for rule in self.rules)

    @property
    def failures(self) -> tuple[GateRule, ...]:
        """The rules that refuse the candidate."""
        return tuple(rule for rule in self.rules if not rule.passed)

    def verdict(self) -> dict[str, Any]:
        """Return the part that is recorded with a version: JSON values, without anything that users wrote."""
        return {
            "passed": self.passed,
            "incumbent": self.incumbent,
            "gain": self.gain.difference,
            "failures": [rule.name for rule in self.failures],
            "ndcg": (self.served or self.held_out)["candidate"][f"ndcg@{K}"],
            "queries": self.gain.queries,
        }

    def to_dict(self) -> dict[str, Any]:
        """Return the report as JSON-able values, with ``passed`` in it."""
        values = {name: getattr(self, name) for name in self.__slots__ if name != "evidence"}
        constants = {"k": K, "confidence": _CONFIDENCE, "samples": _SAMPLES, "min_scope_queries": _MIN_SCOPE_QUERIES}
        settings = asdict(self.settings) | constants
        values |= {"settings": settings, "gain": asdict(self.gain), "rules": [*map(asdict, self.rules)]}
        values["served_gain"] = self.served_gain and asdict(self.served_gain)
        return {"passed": self.passed, **values}


def evaluate_gate(
    candidate: Encoder,
    incumbent: Encoder,
    held_out: Sequence[EvalSet],
    general: EvalSet | None,
    cutoffs: Sequence[float],
    settings: GateSettings | None = None,
    replay: SearchReplay | None = None,
) -> GateReport:
    """Compare a candidate encoder with the one that serves, and apply the rules.

    Args:
        candidate: the encoder that is to serve.
        incumbent: the encoder that serves.
        held_out: one set a conversation (its memories, and labelled queries), not trained on.
        general: a general-retrieval set, to measure forgetting; None skips that rule.
        cutoffs: the cosine values that the agent's framework uses as thresholds.
        settings: the rules' limits.
        replay: the search of the agent's framework; None where it is not known, or ranks by cosine alone.

    Raises:
        NotEnoughDataError: there are fewer held-out queries than `settings.min_queries`.
    """
    settings = settings or GateSettings()
    count = sum(len(one.queries) for one in held_out)
    if count < settings.min_queries:
        raise NotEnoughDataError(
            f"The gate needs at least {settings.min_queries} held-out queries with a known outcome; there are {count} "
            f"in {len(held_out)} conversations.",
            f"Record {settings.min_queries - count} more retrievals with their answers or feedback in conversations "
            "that are not trained on.",
        )
    ks = tuple(sorted({1, 5, K}))
    depth = replay.candidates if replay else 0
    # The incumbent first: it embeds the documents of both where they have the same vectors, and knows many already.
    old, new = evaluate_encoders((incumbent, candidate), held_out, ks=ks, candidates=depth)
    gain = _gain(new, old)
    served, served_gain = {}, None
    weights = [encoder.keyword_weight for encoder in (candidate, incumbent)]
    if replay is not None:
        served_new, served_old = score_as_served(replay, held_out, (new, old), weights, ks=ks)
        served = {"candidate": served_new.mean(), "incumbent": served_old.mean()}
        served_gain = _gain(served_new, served_old)
    rules = [_gain_rule(gain), _served_rule(served_gain, replay, weights), _scope_rule(new, old)]
    general_table: dict[str, dict[str, float]] = {}
    if general is not None:
        both = evaluate_encoders((incumbent, candidate), [general], ks=ks)
        general_table = {role: scores.mean() for role, scores in zip(("incumbent", "candidate"), both, strict=True)}
    rules.append(_general_rule(general_table, settings))
    rules += _cutoff_rules(new, old, cutoffs, settings)
    return GateReport(
        candidate=candidate.version,
        incumbent=incumbent.version,
        settings=settings,
        gain=gain,
        rules=tuple(rules),
        held_out={"candidate": new.mean(), "incumbent": old.mean()},
        groups={"candidate": new.by_group(), "incumbent": old.by_group()},
        general=general_table,
        served=served,
        served_gain=served_gain,
        evidence=GateEvidence(new, old, held_out),
    )


def _gain(new: RankingScores, old: RankingScores) -> BootstrapResult:
    return paired_bootstrap(new.ndcg[K], old.ndcg[K], samples=_SAMPLES, seed=_SEED, confidence=_CONFIDENCE)


def _gain_rule(gain: BootstrapResult) -> GateRule:
    passed = gain.low > 0
    return GateRule(
        name="held_out_gain",
        value=gain.low,
        limit=0.0,
        passed=passed,
        sentence=(
            f"Held-out nDCG@{K} changes by {100 * gain.difference:+.1f} points over {gain.queries} queries; "
            f"the {100 * _CONFIDENCE:g}% interval over queries, {100 * gain.low:+.1f} to {100 * gain.high:+.1f}"
            f", {'is' if passed else 'is not'} above zero."
        ),
    )


def _served_rule(
    gain: BootstrapResult | None, replay: SearchReplay | None, weights: Sequence[float | None]
) -> GateRule:
    """Test that the agent's own search gets not significantly worse: its other signals may absorb what was gained."""
    if gain is None or replay is None:
        sentence = "Not replayed as served: no agent was given, or its framework ranks by cosine alone."
        return GateRule("as_served", None, 0.0, True, sentence)
    passed = gain.high >= 0
    after, before = ("its own sum" if weight is None else f"{weight:g}" for weight in weights)
    said = f" (keyword weight: {after}, before: {before})" if replay.takes_weight else ""
    sentence = (
        f"As {replay.agent} serves it, with {' and '.join(replay.signals)} beside the cosine{said}, held-out nDCG@{K} "
        f"changes by {100 * gain.difference:+.1f} points; the {100 * _CONFIDENCE:g}% interval over queries, "
        f"{100 * gain.low:+.1f} to {100 * gain.high:+.1f}, {'is not' if passed else 'is'} below zero."
    )
    return GateRule("as_served", gain.high, 0.0, passed, sentence)


def _scope_rule(new: RankingScores, old: RankingScores) -> GateRule:
    """Test that no large scope gets significantly worse: a paired bootstrap each, with Bonferroni's correction.

    Without the correction, one of many scopes would look worse by chance, and no candidate would ever pass. The
    correction needs very small p-values, at which the bootstrap of a few dozen queries finds differences too easily;
    so the paired t-test, which allows for the number of queries, has to find them as well.
    """
    after, before = new.ndcg[K], old.ndcg[K]
    rows: dict[str, list[int]] = {}
    for row, group in enumerate(new.groups):
        rows.setdefault(group, []).append(row)
    large = {group: members for group, members in rows.items() if len(members) >= _MIN_SCOPE_QUERIES}
    if not large:
        sentence = f"No scope has {_MIN_SCOPE_QUERIES} held-out queries, so that no scope was tested by itself."
        return GateRule("scopes", None, 0.0, True, sentence)
    level = (1 - _CONFIDENCE) / len(large)
    worse: dict[str, BootstrapResult] = {}
    for group, members in large.items():
        if after[members].mean() >= before[members].mean():
            continue
        if _t_test(after[members], before[members]) > level:
            continue
        # The smallest p-value that this number of samples can give has to be below the level.
        samples = max(_SAMPLES, math.ceil(4 / level))
        change = paired_bootstrap(after[members], before[members], samples=samples, seed=_SEED)
        if change.p_value <= level:
            worse[group] = change
    which = f"scopes with at least {_MIN_SCOPE_QUERIES} queries"
    sentence = f"None of the {len(large)} {which} got significantly worse."
    if worse:
        worst, change = min(worse.items(), key=lambda item: item[1].difference)
        sentence = (
            f"{len(worse)} of {len(large)} {which} got worse, most "
            f"{worst or 'the one without a name'}: {100 * change.difference:+.1f} points over {change.queries} queries "
            f"(p {change.p_value:.2g}, {level:.2g} or less counts)."
        )
    return GateRule("scopes", float(len(worse)), 0.0, not worse, sentence)


def _t_test(after: NDArray[np.float64], before: NDArray[np.float64]) -> float:
    """Return the two-sided p-value of the paired t-test; 0 where every pair differs by the same, nan for one pair."""
    from scipy.stats import ttest_rel

    with warnings.catch_warnings():
        # It warns of equal differences, which are valid here.
        warnings.simplefilter("ignore", RuntimeWarning)
        return float(ttest_rel(after, before).pvalue)


def _general_rule(table: Mapping[str, Mapping[str, float]], settings: GateSettings) -> GateRule:
    limit = settings.max_general_loss
    if not table:
        sentence = "General retrieval was not measured, because no general set was given."
        return GateRule("general_retrieval", None, limit, True, sentence)
    name = f"ndcg@{K}"
    before, after = table["incumbent"][name], table["candidate"][name]
    loss = before - after
    # The tolerance is for rounding: a loss of exactly the limit passes.
    passed = loss <= limit + 1e-9
    sentence = (
        f"General retrieval goes from {100 * before:.1f} to {100 * after:.1f} nDCG@{K}; "
        f"a loss of {100 * limit:g} points is allowed{'' if passed else ', so too much was forgotten'}."
    )
    return GateRule("general_retrieval", loss, limit, passed, sentence)


def _cutoff_rules(
    new: RankingScores, old: RankingScores, cutoffs: Sequence[float], settings: GateSettings
) -> list[GateRule]:
    """Return a rule for each threshold: frameworks compare scores with fixed cosines, so their scale must stay."""
    after, before = (cutoff_shares(scores.top_scores[:, :K], cutoffs) for scores in (new, old))
    rules = []
    for cutoff in after:
        usual = max(before[cutoff], MIN_CUTOFF_SHARE)
        shift = abs(after[cutoff] - before[cutoff]) / usual
        at_least = _shift_at_least(new, old, cutoff) / usual
        passed = min(shift, at_least) <= settings.max_cutoff_shift + 1e-9
        unsure = passed and shift > settings.max_cutoff_shift
        sentence = (
            f"The share of top-{K} results that reach the cut-off {cutoff:g} goes from "
            f"{100 * before[cutoff]:.1f}% to {100 * after[cutoff]:.1f}% ({100 * shift:.1f}% relative, "
            f"{100 * settings.max_cutoff_shift:g}% allowed"
            f"{', not significant with this number of queries' if unsure else ''})."
        )
        rules.append(
            GateRule(
                name=f"cutoff_{cutoff:g}",
                value=shift,
                limit=settings.max_cutoff_shift,
                passed=passed,
                sentence=sentence,
            )
        )
    return rules


def _shift_at_least(new: RankingScores, old: RankingScores, cutoff: float) -> float:
    """Return by how much a share has changed at least: the end of its interval that is nearer to 0."""
    reached = []
    for scores in (new, old):
        top = scores.top_scores[:, :K]
        present = np.isfinite(top)
        # (queries,): the share of each query's own results
        reached.append(((top >= cutoff) & present).sum(axis=1) / np.maximum(present.sum(axis=1), 1))
    change = paired_bootstrap(
        reached[0],
        reached[1],
        samples=_SAMPLES,
        seed=_SEED,
        confidence=_CONFIDENCE,
    )
    return max(change.low, -change.high, 0.0)


__getattr__ = old_names(__name__, {"judge": ("evaluate_gate", evaluate_gate)})
