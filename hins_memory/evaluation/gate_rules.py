"""The rules that a candidate has to hold to, each with its limit and its verdict in words."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from hins_memory.errors import ConfigError
from hins_memory.evaluation.metrics import BootstrapResult, cutoff_shares, paired_bootstrap
from hins_memory.evaluation.skills import skill_names

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from hins_memory.evaluation.as_served import SearchReplay
    from hins_memory.evaluation.evaluate import RankingScores

__all__ = [
    "CONFIDENCE",
    "MIN_CUTOFF_SHARE",
    "MIN_SCOPE_QUERIES",
    "SAMPLES",
    "GateRule",
    "GateSettings",
    "K",
    "cutoff_rules",
    "gain_of",
    "gain_rule",
    "general_rule",
    "scope_rule",
    "served_rule",
    "skills_rule",
]

#: The rank that nDCG is cut at: about as many memories as a framework puts into a prompt.
K = 10
#: A share below this counts as this in a relative change: a few results near a rarely reached threshold do not decide.
MIN_CUTOFF_SHARE = 0.01
#: Coverage of the bootstrap intervals; the usual one.
CONFIDENCE = 0.95
#: Resamples of the bootstrap.
SAMPLES = 10_000
#: A scope with at least this many held-out queries is a large one: no large scope may get significantly worse, whatever
# the others gain.
MIN_SCOPE_QUERIES = 20
# Fixed, so that the same scores always get the same verdict.
_SEED = 0

# Differences below this are of rounding: a loss of exactly the limit passes.
_ROUNDING = 1e-9
# Training may use this share of the general loss that the gate allows.
_TRAINING_SHARE = 0.9


@dataclass(frozen=True, slots=True)
class GateSettings:
    """Settings of the gate.

    Args:
        held_out_share: the loop holds out at least this share of all labelled queries, over 0 and below 1.
        min_queries: and at least this many, if there are. With fewer held-out queries the gate gives an error.
        max_general_loss: how much nDCG@10 general retrieval may lose, and the memory skills, 0 to 1 (0.01 is one
            point). Training in a loop keeps less of what was learned where more than nine tenths of it would be lost,
            by questions of its own. In the gate a larger loss counts only where it cannot be chance.
        max_cutoff_shift: by how much the share of results that reach a cut-off may change, relative to the
            incumbent's share (0.05 is five percent). A larger change counts only where the interval of the change
            lies wholly beyond the limit: a few dozen queries cannot tell such small changes apart.
        skills: the memory skills that must not get worse, of `hins_memory.evaluation.skill_names`; None means all,
            which take half a minute of a processor core; an empty list none.

    Raises:
        ConfigError: a value is out of range, or there is no such skill.
    """

    held_out_share: float = 0.25
    min_queries: int = 20
    max_general_loss: float = 0.01
    max_cutoff_shift: float = 0.05
    skills: tuple[str, ...] | None = None

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
        known = skill_names() if self.skills else ()
        if unknown := [name for name in self.skills or () if name not in known]:
            raise ConfigError(f"There is no skill {unknown[0]!r}.", f"Skills: {', '.join(known)}.")


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


def gain_of(new: RankingScores, old: RankingScores) -> BootstrapResult:
    """Return the paired difference of nDCG@K over all queries."""
    return paired_bootstrap(new.ndcg[K], old.ndcg[K], samples=SAMPLES, seed=_SEED, confidence=CONFIDENCE)


def gain_rule(gain: BootstrapResult) -> GateRule:
    """Test that the candidate finds more in held-out traffic."""
    passed = gain.low > 0
    return GateRule(
        name="held_out_gain",
        value=gain.low,
        limit=0.0,
        passed=passed,
        sentence=(
            f"Held-out nDCG@{K} changes by {100 * gain.difference:+.1f} points over {gain.queries} queries; "
            f"the {100 * CONFIDENCE:g}% interval over queries, {100 * gain.low:+.1f} to {100 * gain.high:+.1f}"
            f", {'is' if passed else 'is not'} above zero."
        ),
    )


def served_rule(gain: BootstrapResult | None, replay: SearchReplay | None, weights: Sequence[float | None]) -> GateRule:
    """Test that the agent's own search gets not significantly worse: its other signals may absorb what was gained."""
    if gain is None or replay is None:
        sentence = "Not replayed as served: no agent was given, or its framework ranks by cosine alone."
        return GateRule("as_served", None, 0.0, True, sentence)
    passed = gain.high >= 0
    after, before = ("its own sum" if weight is None else f"{weight:g}" for weight in weights)
    said = f" (keyword weight: {after}, before: {before})" if replay.takes_weight else ""
    sentence = (
        f"As {replay.agent} serves it, with {' and '.join(replay.signals)} beside the cosine{said}, held-out nDCG@{K} "
        f"changes by {100 * gain.difference:+.1f} points; the {100 * CONFIDENCE:g}% interval over queries, "
        f"{100 * gain.low:+.1f} to {100 * gain.high:+.1f}, {'is not' if passed else 'is'} below zero."
    )
    return GateRule("as_served", gain.high, 0.0, passed, sentence)


def scope_rule(new: RankingScores, old: RankingScores) -> GateRule:
    """Test that no large scope gets significantly worse."""
    large, worse, level = _worse_groups(new, old, MIN_SCOPE_QUERIES)
    if not large:
        sentence = f"No scope has {MIN_SCOPE_QUERIES} held-out queries, so that no scope was tested by itself."
        return GateRule("scopes", None, 0.0, True, sentence)
    which = f"scopes with at least {MIN_SCOPE_QUERIES} queries"
    sentence = f"None of the {large} {which} got significantly worse."
    if worse:
        sentence = f"{len(worse)} of {large} {which} got worse, most {_worst(worse, level)}."
    return GateRule("scopes", float(len(worse)), 0.0, not worse, sentence)


def _worse_groups(new: RankingScores, old: RankingScores, least: int) -> tuple[int, dict[str, BootstrapResult], float]:
    """Test each group of at least `least` queries: a paired bootstrap each, with Bonferroni's correction.

    Without the correction, one of many groups would look worse by chance, and no candidate would ever pass. The
    correction needs very small p-values, at which the bootstrap of a few dozen queries finds differences too easily;
    so the paired t-test, which allows for the number of queries, has to find them as well.

    Returns:
        How many groups were tested; those that got significantly worse; the level, 0 to 1, that a p-value has to reach.
    """
    after, before = new.ndcg[K], old.ndcg[K]
    rows: dict[str, list[int]] = {}
    for row, group in enumerate(new.groups):
        rows.setdefault(group, []).append(row)
    large = {group: members for group, members in rows.items() if len(members) >= least}
    level = (1 - CONFIDENCE) / max(1, len(large))
    worse: dict[str, BootstrapResult] = {}
    for group, members in large.items():
        if after[members].mean() >= before[members].mean():
            continue
        if _t_test(after[members], before[members]) > level:
            continue
        # The smallest p-value that this number of samples can give has to be below the level.
        samples = max(SAMPLES, math.ceil(4 / level))
        change = paired_bootstrap(after[members], before[members], samples=samples, seed=_SEED)
        if change.p_value <= level:
            worse[group] = change
    return len(large), worse, level


def _worst(worse: Mapping[str, BootstrapResult], level: float) -> str:
    group, change = min(worse.items(), key=lambda item: item[1].difference)
    return (
        f"{group or 'the one without a name'}: {100 * change.difference:+.1f} points over {change.queries} queries "
        f"(p {change.p_value:.2g}, {level:.2g} or less counts)"
    )


def _t_test(after: NDArray[np.float64], before: NDArray[np.float64]) -> float:
    """Return the two-sided p-value of the paired t-test; 0 where every pair differs by the same, nan for one pair."""
    from scipy.stats import ttest_rel

    with warnings.catch_warnings():
        # It warns of equal differences, which are valid here.
        warnings.simplefilter("ignore", RuntimeWarning)
        return float(ttest_rel(after, before).pvalue)


def general_rule(new: RankingScores | None, old: RankingScores | None, settings: GateSettings) -> GateRule:
    """Test that general retrieval loses no more than is allowed; None stands for scores that were not measured."""
    limit = settings.max_general_loss
    if new is None or old is None:
        sentence = "General retrieval was not measured, because no general set was given."
        return GateRule("general_retrieval", None, limit, True, sentence)
    change = gain_of(new, old)
    before, after = (scores.mean()[f"ndcg@{K}"] for scores in (old, new))
    said = f"General retrieval goes from {100 * before:.1f} to {100 * after:.1f} nDCG@{K}; {_allowed(change, limit)}."
    return GateRule("general_retrieval", -change.difference, limit, _kept(change, limit), said)


def skills_rule(new: RankingScores | None, old: RankingScores | None, settings: GateSettings) -> GateRule:
    """Test that no kind of question about memories is lost: all together as general retrieval, and each by itself."""
    limit = settings.max_general_loss
    if new is None or old is None:
        return GateRule("skills", None, limit, True, "The memory skills were not measured: none were chosen.")
    change = gain_of(new, old)
    number, fallen, level = _worse_groups(new, old, 1)
    worse = {skill: one for skill, one in fallen.items() if -one.difference > limit + _ROUNDING}
    before, after = (scores.mean()[f"ndcg@{K}"] for scores in (old, new))
    sentence = (
        f"Over {number} memory skills, the packaged kinds of questions, nDCG@{K} goes from {100 * before:.1f} to "
        f"{100 * after:.1f}; {_allowed(change, limit)}. "
    )
    sentence += (
        f"{len(worse)} of them got worse, most {_worst(worse, level)}."
        if worse
        else "None of them got significantly worse."
    )
    return GateRule("skills", -change.difference, limit, _kept(change, limit) and not worse, sentence)


def _kept(change: BootstrapResult, limit: float) -> bool:
    """Whether no more is lost than is allowed; a larger loss counts only where it cannot be chance."""
    return -change.difference <= limit + _ROUNDING or change.high >= 0


def _allowed(change: BootstrapResult, limit: float) -> str:
    said = f"a loss of {100 * limit:g} points is allowed"
    if not _kept(change, limit):
        return f"{said}, so too much was forgotten"
    return said if -change.difference <= limit + _ROUNDING else f"{said}, and this one may be chance"


def cutoff_rules(
    new: RankingScores, old: RankingScores, cutoffs: Sequence[float], settings: GateSettings
) -> list[GateRule]:
    """Return a rule for each threshold: frameworks compare scores with fixed cosines, so their scale must stay."""
    after, before = (cutoff_shares(scores.top_scores[:, :K], cutoffs) for scores in (new, old))
    rules = []
    for cutoff in after:
        usual = max(before[cutoff], MIN_CUTOFF_SHARE)
        shift = abs(after[cutoff] - before[cutoff]) / usual
        at_least = _shift_at_least(new, old, cutoff) / usual
        passed = min(shift, at_least) <= settings.max_cutoff_shift + _ROUNDING
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
        samples=SAMPLES,
        seed=_SEED,
        confidence=CONFIDENCE,
    )
    return max(change.low, -change.high, 0.0)
