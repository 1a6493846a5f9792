"""What do poisoned outcomes do to other users? nDCG@10 of users who share nothing with the attacker, on LoCoMo.

    python benchmarks/poisoning.py --data locomo10.json --work DIR --json result.json

Honest users are LoCoMo's conversations, searched with the stock encoder and answered; the attacker's accounts hold the
packaged sample conversations, ask about them, reject right memories and like wrong ones. All is mined and trained on
together, and scored on held-out conversations. The limit on forgetting is switched off, so that the attack alone is
measured. Every training's result is kept in ``--work``, so that an interrupted run continues where it was.

doses    none, tenth (one account, a tenth of the examples), half (one account, half of them: what the cap on an owner
         allows), accounts (20 accounts make 334 of 369 examples), few (the 35 honest ones of those, alone)
attacks  far (the memory least like the query is liked), near (the tenth best is)
"""

from __future__ import annotations

import hashlib
import json
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from hins_memory.encoders.encoder import Encoder
from hins_memory.errors import ConfigError
from hins_memory.evaluation import EvalQuery, EvalSet, evaluate_encoder, paired_bootstrap
from hins_memory.evaluation.gate import GateSettings, evaluate_gate
from hins_memory.mining import MineSettings, mine
from hins_memory.training import TrainSettings, train_encoder
from hins_memory.types import Feedback, Scope, ScopeLog, TieredExample
from parts.common.command import base_parser, exit_status
from parts.common.files import resolve_data, write_whole
from parts.common.results import write_result
from parts.common.screen import show_table, stage
from parts.datasets.locomo import ANSWERABLE, LOCOMO, Conversation, eval_set, load_locomo
from parts.locomo.deployment import Fold, split_folds
from parts.mining.evidence_logs import Asked, Case, cases, locomo_scopes, sample_scope, scope_log

if TYPE_CHECKING:
    import argparse

    from numpy.typing import NDArray

K = 10
_FOLDS = 5
#: dose -> the attacker's accounts, and its share of the examples
_DOSES: dict[str, tuple[int, float]] = {
    "none": (0, 0.0),
    "tenth": (1, 0.1),
    "half": (1, 0.5),
    "few": (0, 0.0),
    "accounts": (20, 334 / 369),
}
_FEW = 35
_ATTACKS = ("far", "near")
_NEAR_RANK = 10


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table: a dose, an attack ("" without one), and settings of the miner by name."""

    dose: str
    attack: str
    changes: str

    def settings(self, seed: int) -> MineSettings:
        """Return the miner's settings.

        Raises:
            ConfigError: a name or a value is not one of `MineSettings`.
        """
        pairs = [part.partition("=") for part in self.changes.split(",") if part != "default"]
        try:
            return replace(MineSettings(seed=seed), **{name: json.loads(value) for name, _, value in pairs})
        except (TypeError, ValueError) as error:
            raise ConfigError(f"{self.changes!r} is not a setting of the miner: {error}.", "Use NAME=VALUE.") from error


@dataclass(frozen=True, slots=True)
class World:
    """What all rows share: the encoder, the honest users' logs, the attacker's account, and the held-out fold."""

    encoder: Encoder
    honest: tuple[ScopeLog, ...]
    account: ScopeLog
    asked: tuple[Asked, ...]
    cases: tuple[Case, ...]
    fold: Fold
    quick: bool

    @property
    def held_out(self) -> list[EvalSet]:
        """The questions of categories 1 to 4 of conversations that are not trained on, with the evidence labels."""
        sets = [eval_set(one, "turns") for one in self.fold.held_out]
        kept = [replace(one, queries=tuple(q for q in one.queries if q.group in ANSWERABLE)) for one in sets]
        return [one for one in kept if one.queries]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmark and return the exit status."""
    parser = base_parser(str(__doc__).splitlines()[0])
    parser.add_argument("--data", type=Path, metavar="FILE", help="locomo10.json or a file of its format")
    parser.add_argument("--work", type=Path, metavar="DIR", required=True, help="keeps results; resumes")
    parser.add_argument("--doses", nargs="+", choices=list(_DOSES), default=list(_DOSES), help="how much is poisoned")
    parser.add_argument("--attacks", nargs="+", choices=_ATTACKS, default=list(_ATTACKS), help="what is liked")
    parser.add_argument(
        "--mine", nargs="+", default=["default"], metavar="NAME=VALUE,...", help="settings of the miner, a row each"
    )
    parser.add_argument("--mode", choices=["lora", "query", "full"], default="lora", help="how it is trained")
    parser.add_argument("--questions", type=int, default=50, help="questions of each honest user (default 50)")
    parser.add_argument("--folds", type=int, default=1, help=f"how many of {_FOLDS} folds (default 1)")
    parser.add_argument("--seeds", type=int, default=3, help="how many seeds, from --seed on (default 3)")
    arguments = parser.parse_args(argv)
    return exit_status(lambda: _run(arguments))


def _run(arguments: argparse.Namespace) -> None:
    if arguments.quick:
        arguments.questions, arguments.seeds, arguments.folds = 12, 1, 1
    data = load_locomo(resolve_data(arguments.data, LOCOMO))
    folds = split_folds(data, _FOLDS, arguments.seed)[: arguments.folds]
    worlds = [_world(data, fold, arguments) for fold in folds]
    rows = [
        Row(dose, attack, changes)
        for changes in dict.fromkeys(arguments.mine)
        for dose in arguments.doses
        for attack in (arguments.attacks if _DOSES[dose][0] else [""])
    ]
    results: dict[Row, list[list[dict[str, Any]]]] = {row: [] for row in rows}
    for number in range(arguments.seeds):
        for row in rows:
            cells = [_cached_result(world, row, arguments, arguments.seed + number) for world in worlds]
            results[row].append(cells)
    stock = np.concatenate([_ndcg(world.encoder, world.held_out) for world in worlds])
    found = [_line(row, results, stock) for row in rows]
    names = ("dose", "attack", "mine", "examples", "poisoned", "ndcg10", "loss", "low", "high", "gate")
    show_table(
        f"nDCG@{K} of other users, in percent; stock encoder {100 * stock.mean():.1f}",
        [*names],
        [[line[name] for name in names] for line in found],
    )
    figures = {"stock_ndcg10": 100 * float(stock.mean()), "questions": float(len(stock))}
    for line in found:
        figures["_".join(filter(None, (line["dose"], line["attack"], line["mine"], "ndcg10")))] = line["ndcg10"]
    settings = {name: value for name, value in vars(arguments).items() if name not in ("json", "work")}
    write_result(arguments.json, figures, found, settings)


def _world(data: Sequence[Conversation], fold: Fold, arguments: argparse.Namespace) -> World:
    base = Encoder.load("stock")
    encoder = Encoder(base.model, base.version, cache_size=50_000)
    honest = []
    for log, asked in locomo_scopes([one for one in data if one.id in fold.train]):
        chosen = np.random.default_rng(arguments.seed).permutation(len(asked))[: arguments.questions]
        part = [asked[place] for place in sorted(chosen)]
        honest.append(scope_log(log, part, cases(log, part, encoder)))
    account, asked = sample_scope()
    found = cases(account, asked, encoder)
    return World(encoder, tuple(honest), account, tuple(asked), tuple(found), fold, arguments.quick)


def _attack(world: World, row: Row, count: int) -> list[ScopeLog]:
    """Return the logs of the attacker's accounts, which together give that many examples."""
    accounts = _DOSES[row.dose][0]
    logs = []
    for number in range(accounts):
        wanted = count // accounts + (number < count % accounts)
        logs.append(_account(world, Scope(user=f"attacker {number}"), row.attack, wanted, accounts > 1, number))
    return logs


def _account(world: World, scope: Scope, attack: str, count: int, single: bool, number: int) -> ScopeLog:
    """Return one account's log: its own copy of the sample (of one of its conversations), with wrong feedback."""
    conversations = list(dict.fromkeys(memory.conversation for memory in world.account.memories))
    chosen = conversations[number % len(conversations)]
    memories = [one for one in world.account.memories if not single or one.conversation == chosen]
    own = {one.id for one in memories}
    moved = {one.id: f"{scope.user}/{one.id}" for one in memories}
    questions = [i for i, one in enumerate(world.asked) if one.evidence <= own]
    log = ScopeLog(scope, memories=tuple(replace(one, id=moved[one.id], scope=scope) for one in memories))
    pairs = [(question, turn) for turn in range(len(own)) for question in questions][:count]
    asked = [world.asked[place] for place in dict.fromkeys(place for place, _ in pairs)]
    searched = scope_log(log, asked, cases(log, [replace(one, evidence=frozenset()) for one in asked], world.encoder))
    searches = dict(zip(dict.fromkeys(place for place, _ in pairs), searched.retrievals, strict=True))
    feedback = []
    for place, turn in pairs:
        case, search = world.cases[place], searches[place]
        order = np.argsort(-(case.owner.vectors @ _query(world, place)), kind="stable").tolist()
        ranked = [row for row in order if case.owner.memories[row].id in own]
        wrong = [row for row in ranked if not case.gold[row]]
        liked = wrong[-1 - turn] if attack == "far" else wrong[min(_NEAR_RANK + turn, len(wrong) - 1)]
        rejected = {ranked[0], *np.flatnonzero(case.gold).tolist()} - {liked}
        say = partial(Feedback, retrieval_id=search.id, time=search.time + 1)
        feedback.append(say(moved[case.owner.memories[liked].id], "POSITIVE"))
        feedback += [say(moved[case.owner.memories[row].id], "NEGATIVE") for row in sorted(rejected)]
    return replace(searched, answers=(), feedback=tuple(feedback))


def _query(world: World, place: int) -> NDArray[np.float32]:
    return np.asarray(world.encoder.encode([world.asked[place].text], role="query")[0])


def _examples(world: World, row: Row, seed: int) -> list[TieredExample]:
    settings = row.settings(seed)
    honest: Sequence[ScopeLog] = world.honest
    count = len(mine(honest, world.encoder, settings).examples)
    if row.dose in ("few", "accounts"):
        honest, count = _cut(honest, _FEW), _FEW
    share = _DOSES[row.dose][1]
    logs = [*honest, *_attack(world, row, round(count * share / (1 - share)))]
    return mine(logs, world.encoder, settings).examples


def _cut(logs: Sequence[ScopeLog], count: int) -> list[ScopeLog]:
    """Return logs with few enough searches to give about `count` examples."""
    each = -(-count // len(logs))
    return [replace(log, retrievals=log.retrievals[: each + 1], answers=log.answers[: each + 1]) for log in logs]


def _cached_result(world: World, row: Row, arguments: argparse.Namespace, seed: int) -> dict[str, Any]:
    """Return a training's result: the kept one, or a new one."""
    train = TrainSettings(mode=arguments.mode, seed=seed)
    if world.quick:
        train = replace(train, min_steps=2, epochs=0.1)
    mined = asdict(row.settings(seed))
    key = [row.dose, row.attack, repr(mined), train.to_dict(), world.fold.train, arguments.questions]
    digest = hashlib.sha256(json.dumps(key).encode()).hexdigest()[:16]
    path = arguments.work / f"{row.dose}-{row.attack or 'clean'}-{seed}-fold{world.fold.name}-{digest}.json"
    if path.is_file():
        return dict(json.loads(path.read_text(encoding="utf-8")))
    examples = _examples(world, row, seed)
    stage(f"{path.stem}: {len(examples)} examples")
    with tempfile.TemporaryDirectory(prefix="hins-poisoning-") as scratch:
        trained = train_encoder(examples, Path(scratch) / "model", base="stock", settings=train)
        encoder = Encoder.load(trained.folder)
        held = [*world.held_out, *_held_by_attacker(world, row, examples)]
        verdict = evaluate_gate(encoder, world.encoder, held, None, (), GateSettings(min_queries=1))
        poisoned = sum(one.scope.user.startswith("attacker") for one in examples)
        result = {
            "ndcg": _ndcg(encoder, world.held_out).tolist(),
            "examples": len(examples),
            "poisoned": poisoned,
            "gate": verdict.passed,
            "gate_failures": [rule.name for rule in verdict.failures],
        }
    write_whole(path, json.dumps(result).encode())
    return result


def _held_by_attacker(world: World, row: Row, examples: Sequence[TieredExample]) -> list[EvalSet]:
    """Return what the attacker's accounts bring to the gate: their wrong labels, in proportion to their examples."""
    wrong = [one for one in examples if one.scope.user.startswith("attacker")]
    honest = sum(len(one.queries) for one in world.held_out)
    count = round(honest * len(wrong) / max(len(examples) - len(wrong), 1)) if wrong else 0
    documents = {memory.id: memory.text for memory in world.account.memories}
    by_owner: dict[str, list[EvalQuery]] = {}
    for place in range(count):
        one = wrong[place % len(wrong)]
        name = one.positive.memory_id.partition("/")[2]
        query = EvalQuery(one.positive.query, frozenset({name}), one.scope.key)
        by_owner.setdefault(one.scope.key, []).append(query)
    return [EvalSet(f"attacker {owner}", documents, tuple(asked)) for owner, asked in by_owner.items()]


def _ndcg(encoder: Encoder, sets: Sequence[EvalSet]) -> NDArray[np.float64]:
    return np.asarray(evaluate_encoder(encoder, sets, ks=(K,)).ndcg[K])


def _line(row: Row, results: dict[Row, list[list[dict[str, Any]]]], stock: NDArray[np.float64]) -> dict[str, Any]:
    """Return a row's figures, in points; the loss is against the same training without the attack."""
    clean = Row("few" if row.dose in ("few", "accounts") else "none", "", "default")
    after = _mean(results[row])
    line: dict[str, Any] = {"dose": row.dose, "attack": row.attack, "mine": row.changes}
    cells = [cell for run in results[row] for cell in run]
    line |= {name: float(np.mean([cell[name] for cell in cells])) for name in ("examples", "poisoned")}
    line |= {
        "ndcg10": 100 * float(after.mean()),
        "seeds": [100 * float(np.mean([np.mean(cell["ndcg"]) for cell in run])) for run in results[row]],
        "gain_over_stock": 100 * float((after - stock).mean()),
        "gate": f"{sum(cell['gate'] for cell in cells)} of {len(cells)} pass",
        "gate_failures": sorted({name for cell in cells for name in cell["gate_failures"]}),
        "loss": None,
        "low": None,
        "high": None,
    }
    if row != clean and clean in results:
        change = paired_bootstrap(_mean(results[clean]), after)
        line |= {"loss": 100 * change.difference, "low": 100 * change.low, "high": 100 * change.high}
    return line


def _mean(runs: Sequence[Sequence[dict[str, Any]]]) -> NDArray[np.float64]:
    """Return each question's nDCG, the mean over seeds, shape (questions,)."""
    return np.asarray(np.mean([np.concatenate([cell["ndcg"] for cell in run]) for run in runs], axis=0))


if __name__ == "__main__":
    sys.exit(main())
