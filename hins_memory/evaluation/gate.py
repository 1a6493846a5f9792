"""The gate: candidate against incumbent on held-out conversations; all of its named rules must hold before a swap."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

from hins_memory.common.renamed import old_names
from hins_memory.errors import NotEnoughDataError
from hins_memory.evaluation.as_served import SearchReplay, score_as_served
from hins_memory.evaluation.evaluate import RankingScores, evaluate_encoders
from hins_memory.evaluation.gate_rules import (
    CONFIDENCE,
    MIN_CUTOFF_SHARE,
    MIN_SCOPE_QUERIES,
    SAMPLES,
    GateRule,
    GateSettings,
    K,
    cutoff_rules,
    gain_of,
    gain_rule,
    general_rule,
    scope_rule,
    served_rule,
    skills_rule,
)
from hins_memory.evaluation.metrics import BootstrapResult

if TYPE_CHECKING:
    from hins_memory.encoders.encoder import Encoder
    from hins_memory.evaluation.evaluate import EvalSet

__all__ = ["MIN_CUTOFF_SHARE", "GateEvidence", "GateReport", "GateRule", "GateSettings", "K", "evaluate_gate"]


_Table = TypeVar("_Table")


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
        skills: candidate and incumbent -> memory skill -> metric -> mean; empty when skipped.
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
    skills: Mapping[str, Mapping[str, Mapping[str, float]]]
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
        constants = {"k": K, "confidence": CONFIDENCE, "samples": SAMPLES, "min_scope_queries": MIN_SCOPE_QUERIES}
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
    skills: Sequence[EvalSet] = (),
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
        skills: sets of other questions about memories, the kind of a question as its group; without any that rule is
            skipped.

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
    gain = gain_of(new, old)
    served_new = served_old = served_gain = None
    weights = [encoder.keyword_weight for encoder in (candidate, incumbent)]
    if replay is not None:
        served_new, served_old = score_as_served(replay, held_out, (new, old), weights, ks=ks)
        served_gain = gain_of(served_new, served_old)

    def compared(sets: Sequence[EvalSet]) -> Sequence[RankingScores | None]:
        return evaluate_encoders((incumbent, candidate), sets, ks=ks) if sets else (None, None)

    old_general, new_general = compared([general] if general else [])
    old_skills, new_skills = compared(skills)
    rules = (
        gain_rule(gain),
        served_rule(served_gain, replay, weights),
        scope_rule(new, old),
        general_rule(new_general, old_general, settings),
        skills_rule(new_skills, old_skills, settings),
        *cutoff_rules(new, old, cutoffs, settings),
    )
    return GateReport(
        candidate=candidate.version,
        incumbent=incumbent.version,
        settings=settings,
        gain=gain,
        rules=rules,
        held_out=_by_role(new, old, RankingScores.mean),
        groups=_by_role(new, old, RankingScores.by_group),
        general=_by_role(new_general, old_general, RankingScores.mean),
        skills=_by_role(new_skills, old_skills, RankingScores.by_group),
        served=_by_role(served_new, served_old, RankingScores.mean),
        served_gain=served_gain,
        evidence=GateEvidence(new, old, held_out),
    )


def _by_role(
    new: RankingScores | None, old: RankingScores | None, table: Callable[[RankingScores], _Table]
) -> dict[str, _Table]:
    """Return a table of the candidate's scores and of the incumbent's, or nothing where they were not measured."""
    return {role: table(scores) for role, scores in (("candidate", new), ("incumbent", old)) if scores is not None}


__getattr__ = old_names(__name__, {"judge": ("evaluate_gate", evaluate_gate)})
