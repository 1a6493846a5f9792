"""Which loss trains the best tower? The same queries and stored vectors, with other weights and targets.

    python benchmarks/tower_ablation.py --data locomo10.json --work DIR --json result.json
    python benchmarks/tower_ablation.py --data locomo10.json --base starter --work DIR

On the conversations that the first fold of modes.py trains on: towers learn from the outcomes of the first ones
(``--train``, 5) and are scored on the others (categories 1-4, encoder alone), so that what is chosen here has not seen
what modes.py scores there. Rows:

ours        InfoNCE of each positive against all stored negatives, positives weighted by how sure they are
surest      the surest positive of a query alone
equal       all positives of a query count the same
listwise    cross-entropy of all candidates at once with the positives' weights as the target
hardness    a negative counts by how near it is to the query (weight e^(5 cos), arXiv 2010.04592)
hard_tier   negatives of HiNS's hard tier (same topic, other speaker) count four times
other_topic negatives of HiNS's medium and easy tiers count four times
"""

from __future__ import annotations

import json
import math
import os
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

os.environ.setdefault("MEM0_TELEMETRY", "False")

from hins_memory.encoders.encoder import Encoder
from hins_memory.errors import ConfigError
from hins_memory.evaluation import paired_bootstrap
from hins_memory.mining.negatives.tiers import tier_masks
from hins_memory.mining.negatives.whole_store import stored_queries
from hins_memory.training.tower.stored_loss import StoredVectorsLoss
from hins_memory.training.tower.targets import Target
from hins_memory.types import Tier
from parts.common.command import exit_status
from parts.common.files import write_whole
from parts.common.results import write_result
from parts.common.screen import show_table, stage
from parts.datasets.locomo import Conversation
from parts.locomo.deployment import split_folds
from parts.mining.constants import replaced
from parts.training.modes import K, Traffic, code_digest
from parts.training.tower_command import conversations_of, played, tower_parser
from parts.training.towers import Split, digest, first_evidence, later_part, scores, train_tower

if TYPE_CHECKING:
    import argparse

    from numpy.typing import NDArray
    from torch import Tensor

    from hins_memory.mining.storage.evidence import OwnerEvidence

OURS = "ours"
ROWS = (OURS, "surest", "equal", "listwise", "hardness", "hard_tier", "other_topic")
_BY_TIER = ("hard_tier", "other_topic")
_HARDNESS = 5.0
_TIER_WEIGHT = 4.0
_QUICK_QUESTIONS = 60
_ours = StoredVectorsLoss._loss


@dataclass(frozen=True, slots=True)
class Trial:
    """One training: its loss, its seed, and the conversations that it learns from and is scored on."""

    row: str
    seed: int
    learned: Sequence[Conversation]
    scored: Sequence[Conversation]
    traffic: Traffic
    split: Split
    quick: bool

    def path(self, work: Path) -> Path:
        """Return the file that keeps its scores."""
        names = [[one.id for one in part] for part in (self.learned, self.scored)]
        source = Path(__file__).read_text(encoding="utf-8")
        inputs = self.traffic.digest, self.traffic.base, names, self.split, self.quick, code_digest(), source
        name = f"{self.traffic.base}-{self.traffic.memories}-{self.row}-{self.seed}-{digest(*inputs)}.json"
        return work / "tower-ablation" / name


def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmark and return the exit status."""
    parser = tower_parser(str(__doc__).splitlines()[0], seeds=3)
    parser.set_defaults(share=1.0)
    parser.add_argument("--train", type=int, default=5, help="how many conversations are learned from (default 5)")
    parser.add_argument("--rows", nargs="+", choices=ROWS, default=list(ROWS), help="which losses (default all)")
    arguments = parser.parse_args(argv)
    return exit_status(lambda: _run(arguments))


def _run(arguments: argparse.Namespace) -> None:
    with tempfile.TemporaryDirectory(prefix="hins-tower-ablation-") as scratch:
        _compare(arguments, arguments.work or Path(scratch))


def _compare(arguments: argparse.Namespace, work: Path) -> None:
    data = conversations_of(arguments, work)
    rows = list(dict.fromkeys([OURS, *arguments.rows]))
    if arguments.quick:
        data = [replace(one, questions=one.questions[:_QUICK_QUESTIONS]) for one in data[:4]]
        rows, arguments.seeds, arguments.train = [OURS, "listwise", "hard_tier"], 1, 1
    train = split_folds(data, 5, 0)[0].train
    inside = [one for one in data if one.id in train]
    if arguments.seeds < 1 or not 0 < arguments.train < len(inside) or not 0 < arguments.share <= 1:
        raise ConfigError(
            f"--train is at least 1 and below {len(inside)}, --seeds at least 1, --share over 0 and up to 1.",
            "Correct them.",
        )
    base, traffic = played(data, arguments, work)
    learned, scored = inside[: arguments.train], inside[arguments.train :]
    found: dict[str, list[dict[str, Any]]] = {row: [] for row in rows}
    for seed in range(arguments.seed, arguments.seed + arguments.seeds):
        for row in rows:
            trial = Trial(row, seed, learned, scored, traffic, Split(arguments.share), arguments.quick)
            found[row].append(_result(trial, base, work))
            stage(f"seed {seed}, {row}: {100 * np.mean(found[row][-1]['ndcg']):.1f}")
    before = _scores(base, scored, traffic)
    figures, table = _report(found, 100 * np.asarray(before), arguments.seed)
    settings = {name: value for name, value in vars(arguments).items() if name not in ("json", "work")}
    write_result(arguments.json, figures, table, settings | {"code": code_digest()})


def _result(trial: Trial, base: Encoder, work: Path) -> dict[str, Any]:
    """Return ``ndcg`` of each scored question, ``general`` and ``seconds`` of a training; kept in the work folder."""
    path = trial.path(work)
    if path.is_file():
        return dict(json.loads(path.read_text(encoding="utf-8")))
    owners = [first_evidence(trial.traffic, one, trial.split, base) for one in trial.learned]
    hard = _tiers(owners, base, trial.seed) if trial.row in _BY_TIER else {}
    with (
        tempfile.TemporaryDirectory(prefix="hins-tower-ablation-") as scratch,
        replaced(StoredVectorsLoss, "_loss", _loss_of(trial.row, hard)),
    ):
        trained, _, seconds = train_tower(
            owners, base, trial.traffic.base, trial.seed, Path(scratch), quick=trial.quick
        )
        tower = Encoder.load(trained.folder)
        general = trained.manifest.scores["general"]["after"]
    result = {"ndcg": _scores(tower, trial.scored, trial.traffic), "general": general, "seconds": seconds}
    write_whole(path, json.dumps(result).encode())
    return result


def _scores(encoder: Encoder, conversations: Sequence[Conversation], traffic: Traffic) -> list[float]:
    # Nothing was learned of these conversations: all their questions are later ones.
    return [value for one in conversations for value in scores(encoder, later_part(one, traffic, Split(0)))]


def _tiers(owners: Sequence[OwnerEvidence], base: Encoder, seed: int) -> dict[tuple[str, int], NDArray[np.bool_]]:
    """Return which stored negatives of a query are of the hard tier, by the query and how many negatives it has.

    A negative that is of the hard tier beside any of the query's positives is.
    """
    from hins_memory.loop.pipeline import LoopSettings

    settings = replace(LoopSettings().mine, seed=seed)
    hard: dict[tuple[str, int], NDArray[np.bool_]] = {}
    for owner in owners:
        for one in stored_queries(owner, base, settings):
            assert owner.owner is not None
            masks = [tier_masks(owner.owner, row, one.negatives)[Tier.HARD] for row in one.positives.values()]
            hard[one.query, len(one.negatives)] = np.any(masks, axis=0)
    return hard


def _loss_of(row: str, hard: dict[tuple[str, int], NDArray[np.bool_]]) -> Any:
    """Return the loss of one query in a row, in the place of `StoredVectorsLoss._loss`."""

    def loss(self: StoredVectorsLoss, query: Tensor, target: Target) -> Tensor:
        if row == "surest":
            surest = np.arange(len(target.weights)) == target.weights.argmax()
            return _ours(self, query, replace(target, weights=surest.astype(np.float32)))
        if row == "equal":
            return _ours(self, query, replace(target, weights=np.full_like(target.weights, 1 / len(target.weights))))
        # The height of the scores is held in every row.
        plain = _ours(self, query, replace(target, height=None))
        held = _ours(self, query, target) - plain
        cosines = torch.from_numpy(self._targets.vectors(target)).to(query.device) @ query
        scores = cosines / self.temperature
        found, others = scores[: len(target.positives)], scores[len(target.positives) :]
        share = torch.from_numpy(target.weights).to(query.device)
        if row == "listwise":
            return held - (share * (found - scores.logsumexp(dim=0))).sum()
        if row == "hardness":
            extra = _HARDNESS * cosines[len(found) :].detach()
            # Weights with the mean 1.
            extra = extra - (extra.logsumexp(dim=0) - math.log(len(extra)))
        else:
            mask = hard.get((target.query, len(target.negatives)))
            if mask is None:
                return held + plain
            extra = math.log(_TIER_WEIGHT) * torch.from_numpy(mask == (row == "hard_tier")).to(query.device)
        losses = torch.logaddexp(found, (others + extra).logsumexp(dim=0)) - found
        return held + (losses * share).sum()

    return _ours if row == OURS else loss


def _report(
    found: dict[str, list[dict[str, Any]]], before: NDArray[np.float64], seed: int
) -> tuple[dict[str, float], list[dict[str, Any]]]:
    """Return figures and rows: means over seeds, and each row against ours, paired by question."""
    points = {row: 100 * np.mean([run["ndcg"] for run in runs], axis=0) for row, runs in found.items()}
    figures = {"before": float(before.mean()), "questions": float(len(before))}
    table = []
    for row, runs in found.items():
        gain, gap = (
            paired_bootstrap(points[row], before, seed=seed),
            paired_bootstrap(points[row], points[OURS], seed=seed),
        )
        line: dict[str, Any] = {"loss": row, "ndcg10": float(points[row].mean())}
        line |= {"gain": gain.difference, "gain_low": gain.low, "gain_high": gain.high}
        if row != OURS:
            line |= {"minus_ours": gap.difference, "low": gap.low, "high": gap.high}
        line["seeds"] = [100 * float(np.mean(run["ndcg"])) for run in runs]
        line["general"] = 100 * float(np.mean([run["general"] for run in runs]))
        table.append(line)
        figures |= {f"{row}_gain": gain.difference} | ({} if row == OURS else {f"{row}_minus_ours": gap.difference})
    columns = ("loss", "ndcg10", "gain", "minus_ours", "low", "high", "general")
    lines = [[line.get(name) for name in columns] for line in table]
    show_table(
        f"nDCG@{K} in percent, categories 1-4, {len(before)} questions (untrained {before.mean():.1f})", columns, lines
    )
    return figures, table


if __name__ == "__main__":
    sys.exit(main())
