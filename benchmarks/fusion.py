"""What keywords are worth beside cosines in Mem0's search, and whether another weight would serve better.

    python benchmarks/fusion.py --encoders stock,starter
    python benchmarks/fusion.py --data sample

Mem0's fused search is replayed over LoCoMo's turns or facts, each conversation in a store of its own: of the 80
memories with the best cosines, those over 0.1 are ordered by a sum. The sums:

alone     the cosine, over all memories
mem0      cosine + sigmoid of BM25, as Mem0 2.2 has it
scaled    a x cosine + sigmoid of BM25: what cosines of another spread would give
linear    cosine + w x BM25, without the sigmoid

`a` and `w` are taken from a grid by nDCG@10 on the evidence labels of the *other* conversations (--folds), never of
the one that is scored. Entities play no part: Mem0 stores none for memories that are added as they are.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from hins_memory.encoders.encoder import Encoder
from hins_memory.evaluation import ndcg, paired_bootstrap, recall
from hins_memory.evaluation.evaluate import TIE_DECIMALS
from parts.agents.hybrid import enable_hybrid
from parts.agents.keywords import POOL, KeywordScores, keyword_scores
from parts.common.command import base_parser, exit_status
from parts.common.files import resolve_data
from parts.common.results import write_result
from parts.common.screen import progress, show_table, stage
from parts.datasets.locomo import LOCOMO, Conversation, Memories, documents, load_locomo, relevant, sample_conversations
from parts.locomo.deployment import split_folds

if TYPE_CHECKING:
    from numpy.typing import NDArray

# Mem0's threshold: memories with smaller cosines are left out.
_THRESHOLD = 0.1
_COSINE_FACTORS = (0.5, 0.75, 1.0, 1.25, 1.5, 2.0, 3.0, 4.0, 6.0, 10.0)
_BM25_WEIGHTS = (0.0, 0.001, 0.002, 0.003, 0.005, 0.007, 0.01, 0.015, 0.02, 0.03, 0.05)
_QUICK_CONVERSATIONS = 2


def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmark and return the exit status."""
    parser = base_parser("Keywords beside cosines in Mem0's search, in several sums.")
    parser.add_argument("--data", type=Path, metavar="FILE", help="locomo10.json, a file of its format, or sample")
    parser.add_argument("--memories", choices=["turns", "facts"], default="turns", help="what is stored")
    parser.add_argument("--encoders", default="stock,starter", metavar="NAME,...", help="default stock,starter")
    parser.add_argument("--folds", type=int, default=5, help="folds by conversation that a weight is fitted in")
    arguments = parser.parse_args(argv)
    return exit_status(lambda: _run(arguments))


@dataclass(frozen=True, slots=True)
class Pools:
    """What a search looks at, for the questions of categories 1 to 4 of one conversation; arrays of shape (n, 80).

    Memories below the threshold have no cosine (-inf) in `cosine`. `whole` has the hits of the cosines alone.
    """

    cosine: NDArray[np.float64]
    squashed: NDArray[np.float64]
    bm25: NDArray[np.float64]
    hits: NDArray[np.bool_]
    whole: NDArray[np.bool_]
    totals: NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Scores:
    """Scores by question, each of shape (n,), 0 to 1."""

    ndcg10: NDArray[np.float64]
    recall10: NDArray[np.float64]


def _run(arguments: Any) -> None:
    data = _load(arguments)
    with tempfile.TemporaryDirectory(prefix="hins-fusion-") as folder:
        parts = enable_hybrid(Path(folder))
        keywords = [_keywords(one, arguments.memories) for one in progress(data, "keywords")]
    folds = split_folds(data, arguments.folds, arguments.seed)
    number = {one.id: place for place, one in enumerate(data)}
    held_out = [[number[one.id] for one in fold.held_out] for fold in folds]
    rows: list[dict[str, Any]] = []
    for name in arguments.encoders.split(","):
        encoder = Encoder.load(name)
        stage(f"{name}: encoding")
        both = zip(progress(data, name), keywords, strict=True)
        pools = [pools_of(one, arguments.memories, encoder, scores) for one, scores in both]
        rows += _rows(name, pools, held_out, arguments.seed)
    figures = {f"{row['encoder']}_{row['sum']}_{score}": row[score] for row in rows for score in ("ndcg10", "recall10")}
    names = ["ndcg10", "recall10", "change", "low", "high", "chosen"]
    show_table(
        "nDCG@10 and recall@10 in percent; change of nDCG@10 from mem0's sum, with its 95% interval",
        ["", *names],
        [[f"{row['encoder']}, {row['sum']}", *(row[name] for name in names)] for row in rows],
    )
    settings = {name: value for name, value in vars(arguments).items() if name != "json"}
    write_result(arguments.json, figures, rows, settings | {"hybrid": parts})


def _load(arguments: Any) -> list[Conversation]:
    is_sample = str(arguments.data) == "sample" and not arguments.data.exists()
    data = sample_conversations() if is_sample else load_locomo(resolve_data(arguments.data, LOCOMO))
    return data[:_QUICK_CONVERSATIONS] if arguments.quick else data


def _keywords(conversation: Conversation, memories: Memories) -> KeywordScores:
    texts = [one.text for one in documents(conversation, memories)]
    return keyword_scores(texts, [question.text for question in conversation.questions])


def pools_of(conversation: Conversation, memories: Memories, encoder: Encoder, keywords: KeywordScores) -> Pools:
    """Return what Mem0's search looks at for each question."""
    stored = documents(conversation, memories)
    names = [one.id for one in stored]
    gold = relevant(conversation, memories)
    questions = conversation.questions
    asked = [row for row, found in enumerate(gold) if found and questions[row].category != 5]
    queries = encoder.encode([questions[row].text for row in asked], role="query")
    # (questions, texts)
    vectors = encoder.encode([one.text for one in stored], role="document")
    cosines = np.round(queries @ vectors.T, TIE_DECIMALS).astype(np.float64)
    order = np.argsort(-cosines, axis=1, kind="stable")[:, :POOL]

    def pooled(values: NDArray[Any]) -> NDArray[Any]:
        return np.take_along_axis(values, order, axis=1)

    cosine = pooled(cosines)
    enough = cosine >= _THRESHOLD
    found = np.array([[name in gold[row] for name in names] for row in asked], dtype=bool)
    hits = pooled(found)
    # An evaluation of the encoder alone orders equal cosines by name.
    by_name = np.argsort(names)
    alone = np.argsort(-cosines[:, by_name], axis=1, kind="stable")[:, :POOL]
    return Pools(
        np.where(enough, cosine, -np.inf),
        pooled(keywords.squashed[asked]),
        pooled(keywords.bm25[asked]),
        hits & enough,
        np.take_along_axis(found[:, by_name], alone, axis=1),
        np.array([len(gold[row]) for row in asked], dtype=np.int64),
    )


#: A sum: the scores of a pool for a number that is to be chosen.
Sum = Callable[[Pools, float], "NDArray[np.float64]"]


def mem0_sum(pools: Pools, factor: float) -> NDArray[np.float64]:
    """Return Mem0's scores, its cosines times a factor; its division by a constant changes no order."""
    return factor * pools.cosine + pools.squashed


def linear_sum(pools: Pools, weight: float) -> NDArray[np.float64]:
    """Return the cosines and BM25 times a weight."""
    return pools.cosine + weight * pools.bm25


def _scored(hits: NDArray[np.bool_], totals: NDArray[np.int64]) -> Scores:
    ideal = (np.arange(10)[None, :] < totals[:, None]).astype(np.float64)
    return Scores(ndcg(hits, ideal, 10), recall(hits, totals, 10))


def ranked(pools: Pools, scores: NDArray[np.float64]) -> Scores:
    """Score the order that a sum gives; equal sums stay in the order of their cosines."""
    order = np.argsort(-scores, axis=1, kind="stable")
    return _scored(np.take_along_axis(pools.hits, order, axis=1), pools.totals)


def _joined(scores: Sequence[Scores]) -> Scores:
    return Scores(np.concatenate([one.ndcg10 for one in scores]), np.concatenate([one.recall10 for one in scores]))


def fitted(
    pools: Sequence[Pools], held_out: Sequence[Sequence[int]], made: Sum, grid: Sequence[float]
) -> tuple[Scores, list[float]]:
    """Score every conversation with the number that is best on those outside of its fold.

    Returns:
        The scores in the order of the conversations, and the number of each fold.
    """
    each = {number: [ranked(one, made(one, number)) for one in pools] for number in grid}
    scores: dict[int, Scores] = {}
    chosen = []
    for members in held_out:
        others = [place for place in range(len(pools)) if place not in members]
        mean = {number: float(_joined([each[number][place] for place in others]).ndcg10.mean()) for number in grid}
        chosen.append(max(mean, key=mean.__getitem__))
        scores |= {place: each[chosen[-1]][place] for place in members}
    return _joined([scores[place] for place in range(len(pools))]), chosen


def _rows(name: str, pools: Sequence[Pools], held_out: Sequence[Sequence[int]], seed: int) -> list[dict[str, Any]]:
    own = _joined([ranked(one, mem0_sum(one, 1.0)) for one in pools])
    scaled, factors = fitted(pools, held_out, mem0_sum, _COSINE_FACTORS)
    linear, weights = fitted(pools, held_out, linear_sum, _BM25_WEIGHTS)
    sums = {
        "alone": (_joined([_scored(one.whole, one.totals) for one in pools]), None),
        "mem0": (own, None),
        "scaled": (scaled, factors),
        "linear": (linear, weights),
    }
    rows = []
    for label, (scores, chosen) in sums.items():
        change = paired_bootstrap(100 * scores.ndcg10, 100 * own.ndcg10, seed=seed)
        means = {"ndcg10": 100 * float(scores.ndcg10.mean()), "recall10": 100 * float(scores.recall10.mean())}
        interval = {"change": change.difference, "low": change.low, "high": change.high}
        told = None if chosen is None else " ".join(f"{number:g}" for number in chosen)
        rows.append({"encoder": name, "sum": label, "questions": len(own.ndcg10), **means, **interval, "chosen": told})
    return rows


if __name__ == "__main__":
    sys.exit(main())
