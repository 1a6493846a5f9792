"""What keywords are worth beside cosines in Mem0's search, and whether another weight would serve better.

    python benchmarks/fusion.py --encoders stock,starter
    python benchmarks/fusion.py --data sample
    python benchmarks/fusion.py --encoders starter --work WORK --outcomes

Mem0's fused search is replayed over LoCoMo's turns or facts, each conversation in a store of its own: of the 80
memories with the best cosines, those over 0.1 are ordered by a sum. The sums:

alone     the cosine, over all memories
mem0      cosine + sigmoid of BM25, as Mem0 2.2 has it
scaled    a x cosine + sigmoid of BM25: what cosines of another spread would give
linear    cosine + w x BM25, without the sigmoid
weighted  cosine + w x BM25 / the best BM25 of the search: what the adapter for Mem0 serves with a keyword weight w
own       the same with the weight that the encoder comes with, chosen elsewhere
outcomes  the same with w fitted as the loop does: by what was answered, not by labels (--outcomes)

`a` and `w` are taken from a grid by nDCG@10 on the evidence labels of the *other* conversations (--folds), never of
the one that is scored. Entities play no part: Mem0 stores none for memories that are added as they are.
"""

from __future__ import annotations

import hashlib
import io
import sys
import tempfile
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from hins_memory.encoders.encoder import Encoder
from hins_memory.encoders.starter import STARTER
from hins_memory.evaluation import ndcg, paired_bootstrap, recall
from hins_memory.evaluation.evaluate import TIE_DECIMALS
from hins_memory.evaluation.keyword_weight import KEYWORD_WEIGHTS, best_weight
from hins_memory.loop.settings import LoopSettings
from hins_memory.mining.storage.evidence import collect
from parts.agents.hybrid import enable_hybrid
from parts.agents.keywords import POOL, KeywordScores, keyword_scores
from parts.common.command import base_parser, exit_status
from parts.common.files import resolve_data, write_whole
from parts.common.results import write_result
from parts.common.screen import progress, show_table, stage
from parts.datasets.locomo import (
    LOCOMO,
    Conversation,
    Memories,
    conversation_digest,
    documents,
    load_locomo,
    relevant,
    sample_conversations,
)
from parts.locomo.deployment import split_folds
from parts.training.modes import play

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
    parser.add_argument("--work", type=Path, metavar="DIR", help="keeps cosines, keyword scores and traffic")
    parser.add_argument(
        "--outcomes",
        action="store_true",
        help="also fit on what a Mem0 with the starter answers when it plays the conversations; needs --work",
    )
    arguments = parser.parse_args(argv)
    if arguments.outcomes and arguments.work is None:
        parser.error("--outcomes needs --work")
    return exit_status(lambda: _run(arguments))


@dataclass(frozen=True, slots=True)
class Pools:
    """What a search looks at, for the questions of categories 1 to 4 of one conversation; arrays of shape (n, 80).

    Memories below the threshold have no cosine (-inf) in `cosine`. `whole` has the hits of the cosines alone.
    `share` is BM25 as a part of the best one of the search, and `least` of shape (n, 1) what Mem0 can add at least.
    `believed` are hits by the outcomes of captured searches, and `believed_totals` how many there are; 0 where none
    is known.
    """

    cosine: NDArray[np.float64]
    squashed: NDArray[np.float64]
    bm25: NDArray[np.float64]
    hits: NDArray[np.bool_]
    share: NDArray[np.float64]
    least: NDArray[np.float64]
    whole: NDArray[np.bool_]
    totals: NDArray[np.int64]
    believed: NDArray[np.bool_]
    believed_totals: NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Scores:
    """Scores by question, each of shape (n,), 0 to 1."""

    ndcg10: NDArray[np.float64]
    recall10: NDArray[np.float64]


def _run(arguments: Any) -> None:
    data = _load(arguments)
    with tempfile.TemporaryDirectory(prefix="hins-fusion-") as folder:
        parts = enable_hybrid(Path(folder))
        keywords = [_keywords(one, arguments, parts) for one in progress(data, "keywords")]
    outcomes = _outcomes(data, arguments)
    folds = split_folds(data, arguments.folds, arguments.seed)
    number = {one.id: place for place, one in enumerate(data)}
    held_out = [[number[one.id] for one in fold.held_out] for fold in folds]
    rows: list[dict[str, Any]] = []
    reference: Scores | None = None
    for name in arguments.encoders.split(","):
        encoder = Encoder.load(name)
        stage(f"{name}: encoding")
        each = zip(progress(data, name), keywords, outcomes, strict=True)
        pools = [
            pools_of(one, arguments.memories, _cosines(one, arguments, encoder), scores, known)
            for one, scores, known in each
        ]
        found = _sums(pools, held_out, encoder.keyword_weight)
        reference = reference or found["mem0"][0]
        rows += _rows(Path(name).name, found, reference, arguments.seed)
    figures = {f"{row['encoder']}_{row['sum']}_{score}": row[score] for row in rows for score in ("ndcg10", "recall10")}
    names = ["ndcg10", "recall10", "change", "low", "high", "gain", "gain_low", "gain_high", "chosen"]
    show_table(
        "nDCG@10 and recall@10 in percent; change of nDCG@10 from mem0's sum, and gain over that of the first encoder, "
        "with 95% intervals",
        ["", *names],
        [[f"{row['encoder']}, {row['sum']}", *(row[name] for name in names)] for row in rows],
    )
    settings = {name: value for name, value in vars(arguments).items() if name != "json"}
    # Without the folders of encoders.
    settings["encoders"] = ",".join(Path(name).name for name in arguments.encoders.split(","))
    write_result(arguments.json, figures, rows, settings | {"hybrid": parts})


def _load(arguments: Any) -> list[Conversation]:
    is_sample = str(arguments.data) == "sample" and not arguments.data.exists()
    data = sample_conversations() if is_sample else load_locomo(resolve_data(arguments.data, LOCOMO))
    return data[:_QUICK_CONVERSATIONS] if arguments.quick else data


def _keywords(conversation: Conversation, arguments: Any, parts: Mapping[str, str]) -> KeywordScores:
    def make() -> dict[str, NDArray[Any]]:
        texts = [one.text for one in documents(conversation, arguments.memories)]
        return asdict(keyword_scores(texts, [question.text for question in conversation.questions]))

    return KeywordScores(**_kept(conversation, arguments, str(dict(parts)), make))


def _cosines(conversation: Conversation, arguments: Any, encoder: Encoder) -> NDArray[np.float64]:
    """Return the cosines of all questions with all texts, rounded."""

    def make() -> dict[str, NDArray[Any]]:
        queries = encoder.encode([question.text for question in conversation.questions], role="query")
        # (questions, texts)
        vectors = encoder.encode([one.text for one in documents(conversation, arguments.memories)], role="document")
        return {"cosines": np.round(queries @ vectors.T, TIE_DECIMALS)}

    return _kept(conversation, arguments, encoder.version, make)["cosines"].astype(np.float64)


def _kept(
    conversation: Conversation, arguments: Any, made_by: str, make: Callable[[], dict[str, NDArray[Any]]]
) -> dict[str, NDArray[Any]]:
    """Return arrays of a conversation that an earlier run left in the work folder, or make them."""
    if arguments.work is None:
        return make()
    key = "\n".join((conversation_digest(conversation), arguments.memories, made_by))
    path = arguments.work / "scores" / f"{hashlib.sha256(key.encode()).hexdigest()[:16]}.npz"
    if not path.is_file():
        content = io.BytesIO()
        np.savez_compressed(content, allow_pickle=False, **make())
        write_whole(path, content.getvalue())
    with np.load(path) as found:
        return dict(found)


def _outcomes(data: Sequence[Conversation], arguments: Any) -> list[Mapping[str, Collection[str]]]:
    """Return, for each conversation, question -> texts that answered it as far as captured traffic tells."""
    if not arguments.outcomes:
        return [{} for _ in data]
    base = Encoder.load(STARTER)
    traffic = play(data, arguments.memories, STARTER, arguments.work)
    found: list[Mapping[str, Collection[str]]] = []
    for conversation in progress(data, "outcomes"):
        evidence = collect(traffic.logs[conversation.id], base, LoopSettings().mine, None)
        texts = evidence.owner.texts if evidence.owner is not None else ()
        found.append({one.query: {texts[row] for row in one.positives} for one in evidence.queries})
    return found


def pools_of(
    conversation: Conversation,
    memories: Memories,
    cosines: NDArray[np.float64],
    keywords: KeywordScores,
    outcomes: Mapping[str, Collection[str]],
) -> Pools:
    """Return what Mem0's search looks at for each question."""
    stored = documents(conversation, memories)
    names = [one.id for one in stored]
    gold = relevant(conversation, memories)
    questions = conversation.questions
    asked = [row for row, found in enumerate(gold) if found and questions[row].category != 5]
    cosines = cosines[asked]
    order = np.argsort(-cosines, axis=1, kind="stable")[:, :POOL]

    def pooled(values: NDArray[Any]) -> NDArray[Any]:
        return np.take_along_axis(values, order, axis=1)

    cosine = pooled(cosines)
    enough = cosine >= _THRESHOLD
    found = np.array([[name in gold[row] for name in names] for row in asked], dtype=bool)
    texts = [one.text for one in stored]
    by_outcome = [outcomes.get(questions[row].text, ()) for row in asked]
    believed = np.array([[text in known for text in texts] for known in by_outcome], dtype=bool)
    hits = pooled(found)
    best = np.maximum(keywords.bm25[asked].max(axis=1, keepdims=True), 1e-9)
    # An evaluation of the encoder alone orders equal cosines by name.
    by_name = np.argsort(names)
    alone = np.argsort(-cosines[:, by_name], axis=1, kind="stable")[:, :POOL]
    return Pools(
        np.where(enough, cosine, -np.inf),
        pooled(keywords.squashed[asked]),
        pooled(keywords.bm25[asked]),
        hits & enough,
        pooled(np.where(keywords.squashed[asked] > 0, keywords.bm25[asked] / best, 0.0)),
        keywords.least[asked][:, None],
        np.take_along_axis(found[:, by_name], alone, axis=1),
        np.array([len(gold[row]) for row in asked], dtype=np.int64),
        pooled(believed) & enough,
        believed.sum(axis=1),
    )


#: A sum: the scores of a pool for a number that is to be chosen.
Sum = Callable[[Pools, float], "NDArray[np.float64]"]


def mem0_sum(pools: Pools, factor: float) -> NDArray[np.float64]:
    """Return Mem0's scores, its cosines times a factor; its division by a constant changes no order."""
    return factor * pools.cosine + pools.squashed


def linear_sum(pools: Pools, weight: float) -> NDArray[np.float64]:
    """Return the cosines and BM25 times a weight."""
    return pools.cosine + weight * pools.bm25


def weighted_sum(pools: Pools, weight: float) -> NDArray[np.float64]:
    """Return the cosines and what the adapter for Mem0 adds with a keyword weight (`hins_adapter_mem0.keywords`)."""
    added = weight * pools.share
    return pools.cosine + np.where(added > pools.least, added, 0.0)


def _scored(hits: NDArray[np.bool_], totals: NDArray[np.int64]) -> Scores:
    ideal = (np.arange(10)[None, :] < totals[:, None]).astype(np.float64)
    return Scores(ndcg(hits, ideal, 10), recall(hits, totals, 10))


def ranked(pools: Pools, scores: NDArray[np.float64]) -> Scores:
    """Score the order that a sum gives; equal sums stay in the order of their cosines."""
    order = np.argsort(-scores, axis=1, kind="stable")
    return _scored(np.take_along_axis(pools.hits, order, axis=1), pools.totals)


def _joined(scores: Sequence[Scores]) -> Scores:
    return Scores(np.concatenate([one.ndcg10 for one in scores]), np.concatenate([one.recall10 for one in scores]))


def _believed(pools: Pools, scores: NDArray[np.float64]) -> Scores:
    """Score the order that a sum gives by outcomes, over the questions whose outcome is known."""
    order = np.argsort(-scores, axis=1, kind="stable")
    known = pools.believed_totals > 0
    return _scored(np.take_along_axis(pools.believed, order, axis=1)[known], pools.believed_totals[known])


def fitted(
    pools: Sequence[Pools],
    held_out: Sequence[Sequence[int]],
    made: Sum,
    grid: Sequence[float],
    *,
    by_outcomes: bool = False,
) -> tuple[Scores, list[float] | None]:
    """Score every conversation with the number that is best on those outside of its fold.

    Args:
        pools: what searches look at, by conversation.
        held_out: the places of the conversations of each fold.
        made: the sum.
        grid: the numbers; those of `KEYWORD_WEIGHTS` are chosen from as the loop does.
        by_outcomes: whether the number is chosen by outcomes, in the place of labels.

    Returns:
        The scores in the order of the conversations, and the number of each fold.
    """
    each = {number: [ranked(one, made(one, number)) for one in pools] for number in grid}
    seen = {number: [_believed(one, made(one, number)) for one in pools] for number in grid} if by_outcomes else each
    scores: dict[int, Scores] = {}
    chosen = []
    for members in held_out:
        others = [place for place in range(len(pools)) if place not in members]
        mean = {number: float(_joined([seen[number][place] for place in others]).ndcg10.mean()) for number in grid}
        smooth = grid == KEYWORD_WEIGHTS
        chosen.append(best_weight(list(mean.values())) if smooth else max(mean, key=mean.__getitem__))
        scores |= {place: each[chosen[-1]][place] for place in members}
    return _joined([scores[place] for place in range(len(pools))]), chosen


#: The scores of each sum, with the number chosen in each fold where one was.
Sums = dict[str, tuple[Scores, list[float] | None]]


def _sums(pools: Sequence[Pools], held_out: Sequence[Sequence[int]], weight: float | None) -> Sums:
    sums: Sums = {
        "alone": (_joined([_scored(one.whole, one.totals) for one in pools]), None),
        "mem0": (_joined([ranked(one, mem0_sum(one, 1.0)) for one in pools]), None),
        "scaled": fitted(pools, held_out, mem0_sum, _COSINE_FACTORS),
        "linear": fitted(pools, held_out, linear_sum, _BM25_WEIGHTS),
        "weighted": fitted(pools, held_out, weighted_sum, KEYWORD_WEIGHTS),
    }
    if weight is not None:
        sums["own"] = (_joined([ranked(one, weighted_sum(one, weight)) for one in pools]), [weight])
    if any(one.believed_totals.any() for one in pools):
        sums["outcomes"] = fitted(pools, held_out, weighted_sum, KEYWORD_WEIGHTS, by_outcomes=True)
    return sums


def _rows(name: str, sums: Sums, reference: Scores, seed: int) -> list[dict[str, Any]]:
    own = sums["mem0"][0]
    rows = []
    for label, (scores, chosen) in sums.items():
        change = paired_bootstrap(100 * scores.ndcg10, 100 * own.ndcg10, seed=seed)
        means = {"ndcg10": 100 * float(scores.ndcg10.mean()), "recall10": 100 * float(scores.recall10.mean())}
        gain = paired_bootstrap(100 * scores.ndcg10, 100 * reference.ndcg10, seed=seed)
        interval = {"change": change.difference, "low": change.low, "high": change.high}
        interval |= {"gain": gain.difference, "gain_low": gain.low, "gain_high": gain.high}
        told = None if chosen is None else " ".join(f"{number:g}" for number in chosen)
        rows.append({"encoder": name, "sum": label, "questions": len(own.ndcg10), **means, **interval, "chosen": told})
    return rows


if __name__ == "__main__":
    sys.exit(main())
