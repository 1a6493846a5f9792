"""How right the miner is on LoCoMo: answer attribution, false negatives, topics. Evidence labels only score.

    python benchmarks/attribution.py --data locomo10.json --json result.json

A memory is one turn written ``Speaker: text``; the stock encoder's cosine top 20 of the question's own conversation
stands for the agent's search. Coverage: the share of the questions of categories 1-4 that get at least one positive.
Precision: the share of all positives, second and third ones of a question included, that are evidence turns.
"""

from __future__ import annotations

import argparse
import itertools
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hins_memory.data.sample_conversations import load_sample
from hins_memory.encoders.encoder import Encoder
from hins_memory.evaluation import paired_bootstrap
from hins_memory.mining import MineSettings, mine
from hins_memory.mining.negatives import filters
from hins_memory.mining.negatives.filters import RESTATED_WORDS
from hins_memory.mining.positives.attribution import (
    MODEL,
    SIGNALS,
    AttributionModel,
    attribute,
    choose_sources,
    supports,
    unretrieved_source,
)
from hins_memory.mining.positives.find import MAX_POSITIVES
from hins_memory.types import ScopeLog
from parts.common.command import base_parser, exit_status
from parts.common.files import resolve_data
from parts.common.results import write_result
from parts.common.screen import progress, show_table, stage
from parts.datasets.locomo import LOCOMO, load_locomo
from parts.mining.attribution_fit import fit
from parts.mining.constants import replaced
from parts.mining.evidence_logs import TOP_K, Case, cases, followups, locomo_scopes, sample_scope, scope_log

_QUICK_CONVERSATIONS = 2
_COVERAGES = (0.3, 0.4, 0.5, 0.55)
_MOST = MAX_POSITIVES
# The baseline: words of the answer, weighted by rarity, plus words of the question; the search's order breaks ties.
_BAG_OF_WORDS = AttributionModel((1.0, 0.0, 0.3, 0.0, 0.0, 0.0, 0.0), 0.0, (1.0, 0.0, 0.001, 0.0), 0.0, (1.0, 0.0))


def _precision(
    found: Sequence[Case], confidence: Sequence[NDArray[np.float64]], coverage: float, most: int
) -> dict[str, float] | None:
    """Return precision where `coverage` of the questions get a positive, or None where fewer can get one."""
    best = np.asarray([values[case.ranked].max() for case, values in zip(found, confidence, strict=True)])
    wanted = int(np.ceil(coverage * len(found)))
    threshold = float(np.sort(best)[::-1][wanted - 1])
    if threshold <= 0:
        return None
    right = pairs = first = questions = 0
    for case, values in zip(found, confidence, strict=True):
        chosen = choose_sources(values, case.ranked, threshold, most)
        pairs += len(chosen)
        right += int(case.gold[chosen].sum())
        questions += bool(chosen)
        first += bool(chosen) and bool(case.gold[chosen[0]])
    return {
        "coverage": 100 * questions / len(found),
        "precision": 100 * right / pairs,
        "precision_first": 100 * first / questions,
        "pairs": pairs,
        "threshold": threshold,
    }


def _coverage_at(found: Sequence[Case], confidence: Sequence[NDArray[np.float64]], precision: float) -> float:
    """Return the largest coverage, in percent, at which the precision is still reached."""
    steps = np.arange(0.01, 1.0, 0.005)
    reached = [0.0]
    for step in steps:
        result = _precision(found, confidence, float(step), _MOST)
        if result is not None and result["precision"] >= precision:
            reached.append(result["coverage"])
    return max(reached)


def _models() -> dict[str, AttributionModel]:
    """Return the model, the model without each signal in turn, and the bag-of-words baseline."""
    models = {"all signals": MODEL}
    groups = {"words": (0, 1, 2), "cosine": (3, 4), "speaker": (5,), "date": (6,)}
    for name, members in groups.items():
        support = tuple(0.0 if place in members else weight for place, weight in enumerate(MODEL.support))
        models[f"without {name}"] = replace(MODEL, support=support)
    models["bag of words"] = _BAG_OF_WORDS
    return models


def _attribution_rows(found: Sequence[Case], seed: int) -> tuple[list[dict[str, Any]], dict[str, float]]:
    rows: list[dict[str, Any]] = []
    figures: dict[str, float] = {}
    for name, model in _models().items():
        support = [supports(case.owner, case.question, model) for case in found]
        confidence = [attribute(values, case.ranked, model) for case, values in zip(found, support, strict=True)]
        # The baseline gives one memory an answer, as it always did.
        most = 1 if model is _BAG_OF_WORDS else _MOST
        for coverage in _COVERAGES:
            result = _precision(found, confidence, coverage, most)
            if result is not None:
                rows.append({"table": "attribution", "model": name, **result})
                if coverage == 0.5 and model is MODEL:
                    figures["precision_at_50"] = result["precision"]
                    figures["precision_first_at_50"] = result["precision_first"]
                if coverage == 0.5 and model is _BAG_OF_WORDS:
                    figures["baseline_precision_at_50"] = result["precision"]
        if model is MODEL:
            figures["coverage_at_85"] = _coverage_at(found, confidence, 85.0)
            rows += _calibration(found, confidence)
            rows += _unretrieved(found, support)
            at_half = next(row for row in rows if row["table"] == "unretrieved" and row["from"] == 0.5)
            figures |= {f"unretrieved_{name}": at_half[name] for name in ("coverage", "precision")}
            rows += followups(found, confidence, MineSettings().min_confidence, seed)
            figures["first_rank_precision"] = 100 * float(np.mean([case.gold[case.ranked[0]] for case in found]))
    return rows, figures


def _calibration(found: Sequence[Case], confidence: Sequence[NDArray[np.float64]]) -> list[dict[str, Any]]:
    """Return, by band of confidence, how sure the model was and how often it was right."""
    sure = np.concatenate([values[case.ranked] for case, values in zip(found, confidence, strict=True)])
    right = np.concatenate([case.gold[case.ranked] for case in found])
    rows = []
    for low, high in itertools.pairwise((0.0, 0.1, 0.2, 0.4, 0.6, 0.8, 0.9, 1.01)):
        band = (sure >= low) & (sure < high)
        if band.any():
            row = {"said": 100 * float(sure[band].mean()), "right": 100 * float(right[band].mean())}
            rows.append({"table": "calibration", "from": low, "pairs": int(band.sum()), **row})
    return rows


def _unretrieved(found: Sequence[Case], support: Sequence[NDArray[np.float64]]) -> list[dict[str, Any]]:
    """Return, by how sure the model must be, for how many questions a memory that was not returned is named."""
    named = [unretrieved_source(values, case.ranked) for case, values in zip(found, support, strict=True)]
    pairs = [(one[1], bool(case.gold[one[0]])) for case, one in zip(found, named, strict=True) if one is not None]
    sure, right = (np.asarray(values) for values in zip(*pairs, strict=True))
    rows = []
    for least in (0.3, 0.5, 0.7, 0.9):
        kept = sure >= least
        shares = {"coverage": 100 * float(kept.sum()) / len(found), "precision": 100 * float(right[kept].mean())}
        rows.append({"table": "unretrieved", "from": least, "pairs": int(kept.sum()), **shares})
    return rows


def _false_negatives(
    logs: Sequence[ScopeLog], gold: Mapping[tuple[str, str], frozenset[str]], encoder: Encoder, seed: int
) -> dict[str, Any]:
    """Return the share of evidence turns that are negatives of their own question, without and with the filters."""
    public = [turn.text for one in load_sample() for turn in one.turns]
    share = {}
    unfiltered = MineSettings(seed=seed, guard=None, max_plausible=1.0, duplicate_similarity=1.0)
    # Nothing has more than all of the rare words, so that nothing counts as restated.
    for name, options, words in (("before", unfiltered, 1.1), ("after", MineSettings(seed=seed), RESTATED_WORDS)):
        with replaced(filters, "RESTATED_WORDS", words):
            result = mine(logs, encoder, options, public)
        keys = {(example.scope.user, example.positive.query) for example in result.examples}
        hit = {
            (example.scope.user, example.positive.query, negative.memory_id)
            for example in result.examples
            for negative in example.negatives
            if negative.memory_id in gold[(example.scope.user, example.positive.query)]
        }
        share[name] = 100 * len(hit) / max(1, sum(len(gold[key]) for key in keys))
    right = [one.positive.memory_id in gold[(one.scope.user, one.positive.query)] for one in result.examples]
    return {
        **share,
        "examples": len(right),
        "precision": 100 * float(np.mean(right)) if right else None,
        "report": result.report.to_dict(),
    }


def _topics(found: Sequence[Case], seed: int) -> tuple[list[dict[str, Any]], dict[str, float]]:
    """Compare topics with fixed windows: how often two evidence turns of one question share one.

    Larger parts hold more pairs by chance, so each conversation is cut into windows of the size at which two of its
    turns share a window by chance at least as often as they share a topic.
    """
    rows = {"topics": _Together(), "windows": _Together()}
    for case in found:
        members = np.flatnonzero(case.gold).tolist()
        pairs = list(itertools.combinations(members, 2))
        if not pairs:
            continue
        topics = case.owner.topics
        for name, codes in (("topics", topics), ("windows", _windows(len(topics), _by_chance(topics)))):
            rows[name].shares.append(float(np.mean([codes[one] == codes[other] for one, other in pairs])))
            rows[name].chance.append(_by_chance(codes))
    gap = paired_bootstrap(np.asarray(rows["topics"].shares), np.asarray(rows["windows"].shares), seed=seed)
    table: list[dict[str, Any]] = [
        {
            "table": "topics",
            "method": name,
            "questions": len(one.shares),
            "together": 100 * float(np.mean(one.shares)),
            "by_chance": 100 * float(np.mean(one.chance)),
            "lift": float(np.mean(one.shares) / np.mean(one.chance)),
        }
        for name, one in rows.items()
    ]
    figures = {
        "topic_lift": table[0]["lift"],
        "window_lift": table[1]["lift"],
        "topic_together_diff": 100 * gap.difference,
        "topic_together_diff_ci_low": 100 * gap.low,
    }
    return table, figures


@dataclass(slots=True)
class _Together:
    """For each question: the share of its pairs of evidence turns in one part, and the chance of any pair."""

    shares: list[float] = field(default_factory=list)
    chance: list[float] = field(default_factory=list)


def _by_chance(codes: NDArray[np.int64]) -> float:
    """Return the share of all pairs of a conversation that are in one part."""
    sizes = np.bincount(codes).astype(np.float64)
    return float((sizes * (sizes - 1)).sum() / (len(codes) * (len(codes) - 1)))


def _windows(count: int, chance: float) -> NDArray[np.int64]:
    """Return codes of the smallest fixed windows whose pairs are at least that share of all."""
    place = np.arange(count)
    return next(place // size for size in range(1, count + 1) if _by_chance(place // size) >= chance)


def _show(rows: Sequence[Mapping[str, Any]], false_negatives: Mapping[str, Any]) -> None:
    columns = {
        "attribution": ("model", "coverage", "precision", "precision_first", "pairs"),
        "calibration": ("from", "pairs", "said", "right"),
        "unretrieved": ("from", "pairs", "coverage", "precision"),
        "follow-ups": ("from", "searches", "said_wrong", "was_wrong"),
        "topics": ("method", "questions", "together", "by_chance", "lift"),
    }
    for table, names in columns.items():
        show_table(table, names, [[row[name] for name in names] for row in rows if row["table"] == table])
    names = ("before", "after", "examples", "precision")
    show_table("false negatives, % of evidence turns", names, [[false_negatives[name] for name in names]])


def _run(arguments: argparse.Namespace) -> None:
    encoder = Encoder.load()
    if arguments.fit:
        model = fit(cases(*sample_scope(), encoder))
        show_table(
            "fitted", ("signal", "weight"), [(name, f"{w:.2f}") for name, w in zip(SIGNALS, model.support, strict=True)]
        )
        show_table(
            "logistic",
            ("of", "intercept", "weights"),
            [
                ("returned", f"{model.intercept:.2f}", " ".join(f"{w:.2f}" for w in model.weights)),
                (
                    "unretrieved",
                    f"{model.unretrieved_intercept:.2f}",
                    " ".join(f"{w:.2f}" for w in model.unretrieved_weights),
                ),
            ],
        )
        return
    path = resolve_data(arguments.data, LOCOMO)
    conversations = load_locomo(path)[: _QUICK_CONVERSATIONS if arguments.quick else None]
    found: list[Case] = []
    logs: list[ScopeLog] = []
    gold: dict[tuple[str, str], frozenset[str]] = {}
    stage(f"searching {len(conversations)} conversations by the stock encoder's cosine, top {TOP_K}")
    for log, asked in progress(list(locomo_scopes(conversations)), "encoding"):
        here = cases(log, asked, encoder)
        found += here
        logs.append(scope_log(log, asked, here))
        gold.update({(log.scope.user, one.text): one.evidence for one in asked})
    stage("scoring attribution, topics and false negatives")
    rows, figures = _attribution_rows(found, arguments.seed)
    topic_rows, topic_figures = _topics(found, arguments.seed)
    rows += topic_rows
    figures |= topic_figures
    false_negatives = _false_negatives(logs, gold, encoder, arguments.seed)
    figures["false_negative_share_before"] = false_negatives["before"]
    figures["false_negative_share"] = false_negatives["after"]
    _show(rows, false_negatives)
    rows.append({"table": "mine", **false_negatives["report"]})
    settings = {"data": path, "seed": arguments.seed, "quick": arguments.quick, "questions": len(found)}
    write_result(arguments.json, figures, rows, settings)
    show_table("figures", ("figure", "value"), [(name, float(value)) for name, value in figures.items()])


def main() -> None:
    """Parse the arguments and run."""
    parser = base_parser(str(__doc__).splitlines()[0])
    parser.add_argument("--data", type=Path, metavar="FILE", help="a file in LoCoMo's format (default: downloaded)")
    parser.add_argument("--fit", action="store_true", help="fit the model on the packaged sample and print it")
    arguments = parser.parse_args()
    _run(arguments)


if __name__ == "__main__":
    sys.exit(exit_status(main))
