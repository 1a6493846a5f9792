"""Ranking metrics, and the gate: a candidate against the encoder that serves, on held-out conversations.

In: evaluation sets and encoders (or rankings). Out: scores per query with intervals, and the gate's report.
"""

from hins_memory.evaluation.evaluate import EvalQuery, EvalSet, RankingScores, evaluate_encoder, score_rankings
from hins_memory.evaluation.metrics import (
    BootstrapResult,
    cutoff_shares,
    ndcg,
    paired_bootstrap,
    recall,
    reciprocal_rank,
)
from hins_memory.evaluation.mteb import mteb_model
from hins_memory.evaluation.skills import skill_names, skill_sets

__all__ = [
    "BootstrapResult",
    "EvalQuery",
    "EvalSet",
    "RankingScores",
    "cutoff_shares",
    "evaluate_encoder",
    "mteb_model",
    "ndcg",
    "paired_bootstrap",
    "recall",
    "reciprocal_rank",
    "score_rankings",
    "skill_names",
    "skill_sets",
]
