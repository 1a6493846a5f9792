"""LoCoMo (arXiv 2402.17753): how well a memory agent retrieves the evidence, before and after training on its traffic.

    python benchmarks/locomo.py --agent mem0 --protocol stock
    python benchmarks/locomo.py --agent mem0 --protocol deployment --folds 5
    python benchmarks/locomo.py --agent mem0 --train-data ONE.json --eval-data ANOTHER.json
    python benchmarks/locomo.py --agent memoryos --llm-url http://localhost:8000/v1 --llm-model NAME

Two scorings: the encoder alone (cosine over the question's own conversation) and the agent's whole search: Mem0's
fused one, or MemoryOS's retrieval of pages, for which a page counts as evidence when one of its turns is.
``deployment`` trains on what was captured while other conversations were played (questions, answers given, memories
retrieved; evidence labels are used for scoring only) and scores conversations that were never seen.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from _common import base_parser, exit_status, progress, resolve_data, show_table, stage, write_result
from _locomo import LOCOMO, Conversation, Memories, documents, eval_set, load_locomo, relevant
from _locomo_report import Scored, report_deployment, report_stock
from _mem0 import Mem0Player, fused_parts
from _memoryos import LLM, MemoryosPlayer, paged

from hins_memory.errors import ConfigError

if TYPE_CHECKING:
    from hins_memory.config import Settings
    from hins_memory.encoder import Encoder

_QUICK_CONVERSATIONS = 2
_QUICK_QUESTIONS = 100
_QUICK_EXAMPLES = 64


@dataclass(frozen=True, slots=True)
class Plan:
    """What one run does: what is stored, which encoder it starts from, and where its files may go."""

    memories: Memories
    base: str
    seed: int
    quick: bool
    work: Path
    save: Path | None
    llm: LLM | None


@dataclass(frozen=True, slots=True)
class Fold:
    """Conversations whose traffic is trained on, and conversations to score, which were never seen."""

    name: str
    train: tuple[str, ...]
    unseen: tuple[Conversation, ...]


def _parser() -> argparse.ArgumentParser:
    parser = base_parser("LoCoMo: retrieval of a memory agent before and after training on its own traffic.")
    parser.add_argument("--agent", choices=["mem0", "memoryos"], default="mem0", help="the memory agent (default mem0)")
    parser.add_argument("--data", type=Path, metavar="FILE", help="locomo10.json or a file of its format")
    parser.add_argument("--memories", choices=["turns", "facts"], default="turns", help="what is stored")
    parser.add_argument("--protocol", choices=["stock", "deployment"], help="without training (default), or with")
    parser.add_argument("--folds", type=int, default=5, help="folds of the deployment protocol, by conversation")
    parser.add_argument("--base", default="stock", metavar="DIR_OR_NAME", help="the encoder to start from")
    parser.add_argument(
        "--save-encoder",
        type=Path,
        metavar="DIR",
        help="keep the trained encoder as a sentence-transformers folder; with folds that of fold 1, and those of "
        "the others beside it as DIR-fold2, DIR-fold3, ...",
    )
    LLM.add_arguments(parser)
    parser.add_argument("--train-data", type=Path, metavar="FILE", help="train on this file's traffic ...")
    parser.add_argument("--eval-data", type=Path, metavar="FILE", help="... and score this one (same format)")
    return parser


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = _parser()
    arguments = parser.parse_args(argv)
    if (arguments.train_data is None) != (arguments.eval_data is None):
        parser.error("--train-data and --eval-data go together")
    if arguments.train_data is not None:
        if arguments.data is not None or arguments.protocol == "stock":
            parser.error("--train-data and --eval-data replace --data and --protocol")
        arguments.protocol = "deployment"
    arguments.protocol = arguments.protocol or "stock"
    if arguments.agent == "memoryos" and not arguments.llm_url:
        parser.error("--agent memoryos needs --llm-url: MemoryOS asks a language model about every page")
    if arguments.agent == "memoryos" and arguments.memories != "turns":
        parser.error("--memories is for Mem0: MemoryOS stores pages")
    if arguments.save_encoder is not None and arguments.protocol == "stock":
        parser.error("--save-encoder needs --protocol deployment: the stock protocol trains nothing")
    if arguments.save_encoder is not None and arguments.save_encoder.exists():
        parser.error(f"--save-encoder: {arguments.save_encoder} exists already")
    return arguments


def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmark and return the exit status."""
    arguments = _arguments(argv)
    return exit_status(lambda: _run(arguments))


def _run(arguments: argparse.Namespace) -> None:
    with tempfile.TemporaryDirectory(prefix="hins-locomo-") as folder:
        # Mem0 writes to its own folder on import; a benchmark leaves no trace in the user's.
        os.environ.setdefault("MEM0_DIR", str(Path(folder) / "mem0"))
        os.environ.setdefault("MEM0_TELEMETRY", "False")
        plan = Plan(
            memories=arguments.memories,
            base=arguments.base,
            seed=arguments.seed,
            quick=arguments.quick,
            work=Path(folder),
            save=arguments.save_encoder,
            llm=LLM.of(arguments) if arguments.agent == "memoryos" else None,
        )
        settings = {name: value for name, value in vars(arguments).items() if name not in ("json", "llm_key")}
        if plan.llm is None:
            settings |= fused_parts()
        else:
            # To everything below, pages are stored texts with their evidence, as facts are.
            plan = replace(plan, memories="facts")
            settings["memories"] = "pages"
        if arguments.protocol == "stock":
            data = _load(resolve_data(arguments.data, LOCOMO), plan)
            figures, rows = report_stock(_score(data, plan.base, plan, _settings(plan, "stock")), show_table)
        elif arguments.train_data is not None:
            train = _load(resolve_data(arguments.train_data, LOCOMO), plan)
            data = _load(resolve_data(arguments.eval_data, LOCOMO), plan)
            figures, rows = _deployment(train, data, [_other_file(train, data)], plan)
        else:
            data = _load(resolve_data(arguments.data, LOCOMO), plan)
            folds = _folds(data, arguments.folds, plan.seed)
            settings["unseen"] = {fold.name: [one.id for one in fold.unseen] for fold in folds}
            figures, rows = _deployment(data, data, folds, plan)
        write_result(arguments.json, figures, rows, settings)


def _load(path: Path, plan: Plan) -> list[Conversation]:
    conversations = load_locomo(path)
    if plan.llm is not None:
        conversations = [paged(one) for one in conversations]
    if plan.quick:
        conversations = [
            replace(one, questions=one.questions[:_QUICK_QUESTIONS]) for one in conversations[:_QUICK_CONVERSATIONS]
        ]
    if not any(relevant_documents for one in conversations for relevant_documents in relevant(one, plan.memories)):
        raise ConfigError(f"No question of {path} has evidence among its {plan.memories}.", "Check the file.")
    stage(f"{path}: {len(conversations)} conversations, {sum(len(one.questions) for one in conversations)} questions")
    return conversations


def _folds(data: Sequence[Conversation], count: int, seed: int) -> list[Fold]:
    """Split by conversation, the same for the same seed."""
    import numpy as np

    if count < 2 or len(data) < 2:
        raise ConfigError(
            f"{count} folds of {len(data)} conversations leave nothing to train on.", "Use at least 2 of both."
        )
    order = np.random.default_rng(seed).permutation(len(data))
    parts = np.array_split(order, min(count, len(data)))
    return [
        Fold(
            name=str(number),
            train=tuple(one.id for index, one in enumerate(data) if index not in part),
            unseen=tuple(data[index] for index in sorted(part)),
        )
        for number, part in enumerate(parts, start=1)
    ]


def _other_file(train: Sequence[Conversation], data: Sequence[Conversation]) -> Fold:
    """Return the one fold of two files, after checking that none of the scored conversations was trained on."""
    known = {tuple((turn.speaker, turn.text) for turn in one.turns): one.id for one in train}
    for one in data:
        if (same := known.get(tuple((turn.speaker, turn.text) for turn in one.turns))) is not None:
            raise ConfigError(
                f"The conversation {one.id!r} to score is {same!r} of the training data.", "Split by conversation."
            )
    return Fold("1", tuple(one.id for one in train), tuple(data))


def _deployment(
    train: Sequence[Conversation], data: Sequence[Conversation], folds: Sequence[Fold], plan: Plan
) -> tuple[dict[str, float], list[dict[str, Any]]]:
    """Play everything with the base encoder, train on each fold's traffic, score what the fold has not seen."""
    one_file = train is data
    settings = _settings(plan, "stock" if one_file else "train", capture=True)
    stock = _score(data, plan.base, plan, settings if one_file else _settings(plan, "stock"))
    if not one_file:
        _score(train, plan.base, plan, settings, scoring=False)
    base = _roomy_encoder(plan.base, sum(len(documents(one, plan.memories)) + len(one.questions) for one in train))
    hins: list[Scored] = []
    seconds: list[float] = []
    for fold in folds:
        started = time.perf_counter()
        encoder = _train(fold, plan, settings, base)
        seconds.append(time.perf_counter() - started)
        stage(f"fold {fold.name}: trained in {seconds[-1]:.0f} s; scoring {len(fold.unseen)} unseen conversations")
        hins.append(_score(fold.unseen, encoder, plan, _settings(plan, f"fold{fold.name}")))
    unseen = {fold.name: [one.id for one in fold.unseen] for fold in folds}
    figures, rows = report_deployment(stock, Scored.merge(hins), unseen, plan.seed, show_table)
    return figures | {"train_seconds_max": max(seconds)}, rows


def _settings(plan: Plan, project: str, *, capture: bool = False) -> Settings:
    """Return settings under the run's own folder; the log address is empty so that HINS_LOG_URL plays no part."""
    from hins_memory.config import Settings

    return Settings(home=plan.work, project=project, log_url="", capture=capture)


def _score(
    conversations: Sequence[Conversation], model: str, plan: Plan, settings: Settings, *, scoring: bool = True
) -> Scored:
    """Play conversations and score the encoder, alone and inside the agent; the settings decide about capture.

    `scoring` False only plays them, for the traffic.
    """
    from hins_memory.evaluate import evaluate_encoder, score_rankings

    agent = "mem0" if plan.llm is None else "memoryos"
    scored = Scored({}, {}, agent)
    with _player(model, plan, settings) as player:
        for conversation in progress(conversations, f"{agent} ({settings.project})"):
            rankings = player.play(conversation)
            one = eval_set(conversation, plan.memories)
            if not scoring or not one.queries:
                continue
            found = relevant(conversation, plan.memories)
            asked = [ranking for ranking, gold in zip(rankings, found, strict=True) if gold]
            scored.search[one.name] = score_rankings([one], asked)
            scored.encoder[one.name] = evaluate_encoder(player.encoder, [one])
    stage(f"{agent} ({settings.project}): adds {player.add_seconds:.0f} s, searches {player.search_seconds:.0f} s")
    return scored


def _player(model: str, plan: Plan, settings: Settings) -> Mem0Player | MemoryosPlayer:
    if plan.llm is None:
        return Mem0Player(model, plan.memories, settings)
    return MemoryosPlayer(model, settings, plan.llm)


def _roomy_encoder(model: str, texts: int) -> Encoder:
    """Return the base encoder with a cache for everything that was played, because every fold mines most of it."""
    from hins_memory.encoder import Encoder

    encoder = Encoder.load(model)
    return Encoder(encoder.model, encoder.version, cache_size=2 * texts)


def _train(fold: Fold, plan: Plan, settings: Settings, encoder: Encoder) -> str:
    """Mine the fold's traffic from the log, train an encoder on it, and return its folder.

    The stages have the loop's own settings; its hold-out and gate stay out, because the fold is what is held out.
    """
    from hins_memory.log.database import open_database
    from hins_memory.log.reader import LogReader
    from hins_memory.mine import mine
    from hins_memory.pipeline import LoopSettings, public_texts
    from hins_memory.train import train_encoder

    stage(f"fold {fold.name}: mining the traffic of {len(fold.train)} conversations")
    reader = LogReader(open_database(settings.database_url))
    logs = reader.scope_logs([owner for owner in reader.owners() if owner.user in fold.train])
    loop = LoopSettings(base=plan.base)
    examples = mine(logs, encoder, replace(loop.mine, seed=plan.seed), public_texts()).examples
    if plan.quick:
        examples = examples[:_QUICK_EXAMPLES]
    stage(f"fold {fold.name}: training on {len(examples)} examples")
    train_settings = replace(loop.train, seed=plan.seed)
    if plan.quick:
        train_settings = replace(train_settings, min_steps=1)
    folder = train_encoder(
        examples, plan.work / f"encoder-{fold.name}", base=loop.base, settings=train_settings, progress=_print_step
    ).folder
    if plan.save is not None:
        target = plan.save if fold.name == "1" else plan.save.with_name(f"{plan.save.name}-fold{fold.name}")
        shutil.copytree(folder, target)
        stage(f"fold {fold.name}: encoder kept at {target}")
    return str(folder)


def _print_step(name: str, done: int, total: int) -> None:
    if done == total or done % max(1, total // 4) == 0:
        stage(f"  {name} {done}/{total}")


if __name__ == "__main__":
    sys.exit(main())
