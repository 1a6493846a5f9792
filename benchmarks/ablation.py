"""Do the tiers earn their place? The same pairs, steps and number of negatives, with negatives chosen in eight ways.

On LoCoMo by conversation folds: an encoder is trained on the traffic of the other conversations (questions, answers and
what a search with the stock encoder returned, never the evidence labels) and scored on conversations never seen. Rows:

in_batch     no mined negatives
random       uniform over all memories of the training conversations
hard         the paper's hard tier alone (same conversation and topic, other speaker), uniform
medium       the paper's medium tier alone (same conversation, other topic), uniform
topk         sampled from the top 20 of the ranking, whatever else is known of them
topk_margin  the same among what scores under 95% of the positive's score (NV-Retriever, arXiv 2407.15831)
paper        the paper's three tiers (arXiv 2601.14857) in the empirical ratio, uniform within a tier
hins         ours: the same tiers and ratio, near ones first, without what the answer may have come from
"""

from __future__ import annotations

import hashlib
import json
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from hins_memory.encoders.encoder import Encoder
from hins_memory.errors import ConfigError
from hins_memory.evaluation import evaluate_encoder, paired_bootstrap
from hins_memory.mining import MineSettings, mine
from hins_memory.mining.negatives import pool
from hins_memory.training import TrainSettings, train_encoder
from hins_memory.types import Negative, Ratio, ScopeLog, Tier, TieredExample
from parts.common.command import base_parser, exit_status
from parts.common.files import resolve_data, write_whole
from parts.common.results import write_result
from parts.common.screen import show_table, stage
from parts.datasets.locomo import ANSWERABLE, LOCOMO, Conversation, eval_set, load_locomo
from parts.mining.constants import replaced
from parts.mining.evidence_logs import cases, locomo_scopes, scope_log

if TYPE_CHECKING:
    from numpy.typing import NDArray

K = 10
OURS = "hins"
# Positives are what the search returned, in every row.
_OURS = MineSettings(share_scopes=True, unretrieved=False)
# The paper's rule alone: every memory of a tier is as good as any other, and nothing is guarded.
_PLAIN = replace(_OURS, guard=None, max_plausible=1.0, duplicate_similarity=1.0)
# More than there are of any tier.
_WHOLE_TIER = 100_000
_MINED: dict[str, MineSettings] = {
    "in_batch": _PLAIN,
    "random": _PLAIN,
    "hard": replace(_PLAIN, ratio=Ratio(easy=0, medium=0, hard=1)),
    "medium": replace(_PLAIN, ratio=Ratio(easy=0, medium=1, hard=0)),
    "topk": _PLAIN,
    "topk_margin": _PLAIN,
    "paper": _PLAIN,
    OURS: _OURS,
}
_TOP_K = 20
_MARGINS = {"topk": None, "topk_margin": 0.05}


@dataclass(frozen=True, slots=True)
class Fold:
    """The traffic to train on, and the conversations to score."""

    number: int
    logs: tuple[ScopeLog, ...]
    held_out: tuple[Conversation, ...]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmark and return the exit status."""
    parser = base_parser("Ablation of the negatives: eight ways to choose them, all else equal, on LoCoMo.")
    parser.add_argument("--data", type=Path, metavar="FILE", help="locomo10.json or a file of its format")
    parser.add_argument("--folds", type=int, default=2, help="folds by conversation (default 2)")
    parser.add_argument("--seeds", type=int, default=3, help="how many seeds, from --seed on (default 3)")
    parser.add_argument(
        "--rows", nargs="+", choices=list(_MINED), default=list(_MINED), help="which rows (default all)"
    )
    parser.add_argument("--negatives", type=int, default=3, help="mined negatives a query, the same in every row")
    parser.add_argument("--epochs", type=float, default=4.0, help="passes over the pairs, the same in every row")
    parser.add_argument("--work", type=Path, metavar="DIR", help="keep the scores of each training there, and resume")
    return exit_status(lambda: _run(parser.parse_args(argv)))


def _run(arguments: Any) -> None:
    if arguments.folds < 2 or arguments.seeds < 1:
        raise ConfigError(f"{arguments.folds} folds, {arguments.seeds} seeds.", "Use at least 2 folds and 1 seed.")
    rows = list(dict.fromkeys([*arguments.rows, OURS]))
    data = load_locomo(resolve_data(arguments.data, LOCOMO))
    if arguments.quick:
        data = [replace(one, questions=one.questions[:40]) for one in data[:2]]
        rows, arguments.seeds, arguments.epochs = ["in_batch", OURS], 1, 0.5
    encoder = Encoder.load()
    # Room for everything, because every row mines the same texts again.
    encoder = Encoder(encoder.model, encoder.version, cache_size=100_000)
    folds = list(_folds(data, arguments.folds, encoder))
    scores: dict[str, list[NDArray[np.float64]]] = {row: [] for row in rows}
    groups: tuple[str, ...] = ()
    for seed in range(arguments.seed, arguments.seed + arguments.seeds):
        for row in rows:
            parts = [_score(fold, row, seed, encoder, arguments) for fold in folds]
            scores[row].append(np.concatenate([part for part, _ in parts]))
            groups = tuple(name for _, names in parts for name in names)
            stage(f"seed {seed}, {row}: {100 * _headline(scores[row][-1], groups).mean():.1f}")
    figures, table = _report(scores, groups, arguments.seed)
    write_result(
        arguments.json, figures, table, {k: v for k, v in vars(arguments).items() if k not in ("json", "work")}
    )


def _folds(data: Sequence[Conversation], count: int, encoder: Encoder) -> Iterator[Fold]:
    """Yield the folds by conversation: every conversation is held out in exactly one."""
    logs = [scope_log(log, asked, cases(log, asked, encoder)) for log, asked in locomo_scopes(data)]
    for number in range(min(count, len(data))):
        held_out = [place for place in range(len(data)) if place % count == number]
        yield Fold(
            number,
            tuple(log for place, log in enumerate(logs) if place not in held_out),
            tuple(data[place] for place in held_out),
        )


def _score(
    fold: Fold, row: str, seed: int, encoder: Encoder, arguments: Any
) -> tuple[NDArray[np.float64], tuple[str, ...]]:
    """Train one encoder and return nDCG@10 and the category of each held-out question; kept in --work, if given."""
    # Without replay and averaging, which are the same for all ways to choose negatives.
    settings = TrainSettings(
        epochs=arguments.epochs,
        learning_rate=4e-4,
        min_steps=1,
        averaging_weight=1.0,
        replay=0.0,
        seed=seed,
    )
    examples = _examples(fold, row, seed, encoder, arguments.negatives)
    if row == "in_batch":
        examples = [replace(example, negatives=()) for example in examples]
    key = hashlib.sha256(repr((fold.number, row, settings, examples)).encode()).hexdigest()[:16]
    kept = arguments.work / f"{row}-{seed}-{fold.number}-{key}.json" if arguments.work else None
    if kept is not None and kept.is_file():
        content = json.loads(kept.read_text())
        return np.asarray(content["ndcg"]), tuple(content["groups"])
    with tempfile.TemporaryDirectory(prefix="hins-ablation-") as folder:
        trained = train_encoder(examples, Path(folder) / "model", settings=settings)
        found = evaluate_encoder(
            Encoder.load(trained.folder), [eval_set(one, "turns") for one in fold.held_out], ks=(K,)
        )
    if kept is not None:
        write_whole(kept, json.dumps({"ndcg": found.ndcg[K].tolist(), "groups": found.groups}).encode())
    return found.ndcg[K], found.groups


def _examples(fold: Fold, row: str, seed: int, encoder: Encoder, negatives: int) -> list[TieredExample]:
    """Return the fold's pairs, the same in every row, with the row's negatives."""
    settings = replace(_MINED[row], negatives=negatives, seed=seed)
    near = pool.NEAR_POOL if row == OURS else _WHOLE_TIER
    with replaced(pool, "NEAR_POOL", near):
        examples = mine(fold.logs, encoder, settings).examples
    if row == "random":
        return _with_random(examples, fold, seed, negatives)
    if row in _MARGINS:
        return _with_top(examples, fold, encoder, _MARGINS[row], (seed, negatives))
    return examples


def _with_random(examples: list[TieredExample], fold: Fold, seed: int, negatives: int) -> list[TieredExample]:
    rng = np.random.default_rng(seed)
    memories = [memory for log in fold.logs for memory in log.memories]
    found = []
    for example in examples:
        drawn = [memories[int(place)] for place in rng.choice(len(memories), negatives + 1, replace=False)]
        texts = [memory.text for memory in drawn if memory.text != example.positive.text][:negatives]
        found.append(replace(example, negatives=tuple(Negative("", text, Tier.EASY) for text in texts)))
    return found


def _with_top(
    examples: list[TieredExample], fold: Fold, encoder: Encoder, margin: float | None, draw: tuple[int, int]
) -> list[TieredExample]:
    """Return the examples with negatives of the ranking's top; `draw` is the seed and how many negatives a query."""
    seed, negatives = draw
    rng = np.random.default_rng(seed)
    texts = {log.scope: [memory.text for memory in log.memories] for log in fold.logs}
    vectors = {scope: encoder.encode(own) for scope, own in texts.items()}
    found = []
    for example in examples:
        own = texts[example.scope]
        query = encoder.encode([example.positive.query], role="query")[0]
        positive = encoder.encode([example.positive.text])[0]
        scores = vectors[example.scope] @ query
        limit = np.inf if margin is None else (1 - margin) * float(query @ positive)
        ranked = [int(r) for r in np.argsort(-scores) if scores[r] < limit and own[int(r)] != example.positive.text]
        drawn = rng.choice(min(_TOP_K, len(ranked)), min(negatives, len(ranked)), replace=False)
        top = tuple(Negative("", own[ranked[int(place)]], Tier.MEDIUM) for place in sorted(drawn))
        found.append(replace(example, negatives=top))
    return found


def _headline(values: NDArray[np.float64], groups: Sequence[str]) -> NDArray[np.float64]:
    """Return the values of the questions of categories 1 to 4."""
    return values[np.isin(np.asarray(groups), [str(name) for name in ANSWERABLE])]


def _report(
    scores: dict[str, list[NDArray[np.float64]]], groups: Sequence[str], seed: int
) -> tuple[dict[str, float], list[dict[str, Any]]]:
    """Return figures and rows: mean and spread over seeds, and ours against each row, paired by question."""
    figures: dict[str, float] = {}
    table: list[dict[str, Any]] = []
    ours = np.mean([_headline(values, groups) for values in scores[OURS]], axis=0)
    for row, runs in scores.items():
        means = [100 * float(_headline(values, groups).mean()) for values in runs]
        figures[f"{row}_ndcg10"] = float(np.mean(means))
        line: dict[str, Any] = {"negatives": row, "ndcg10": float(np.mean(means)), "spread": float(np.std(means))}
        line["seeds"] = means
        if row != OURS:
            other = np.mean([_headline(values, groups) for values in runs], axis=0)
            gap = paired_bootstrap(ours, other, seed=seed)
            figures[f"{row}_diff"] = 100 * gap.difference
            figures[f"{row}_diff_ci_low"] = 100 * gap.low
            verdict = "ahead" if gap.low > 0 else "behind" if gap.high < 0 else "tie"
            line |= {"hins_minus": 100 * gap.difference, "low": 100 * gap.low, "high": 100 * gap.high, "hins": verdict}
        table.append(line)
    columns = ("negatives", "ndcg10", "spread", "hins_minus", "low", "high", "hins")
    lines = [[line.get(name) for name in columns] for line in table]
    show_table("nDCG@10 in percent, categories 1-4, held-out conversations", columns, lines)
    return figures, table


if __name__ == "__main__":
    sys.exit(main())
