"""How good a ranking is, and the gate: a candidate against what serves, on held-out traffic.

In: evaluation sets and encoders (or rankings). Out: scores per query with intervals, and the gate's report.
"""

from hins_memory.evaluation.evaluate import (
    BootstrapResult,
    EvalQuery,
    EvalSet,
    RankingScores,
    cutoff_shares,
    evaluate_encoder,
    mteb_model,
    ndcg,
    paired_bootstrap,
    recall,
    reciprocal_rank,
    score_rankings,
)

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
]
