"""LoCoMo's deployment protocol: play conversations, train on what was captured, score the held-out conversations."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hins_memory.data.stored_vectors import StoredVectors, StoredVectorsWriter
from hins_memory.errors import ConfigError
from hins_memory.training.settings import Mode
from parts.agents.mem0 import Mem0Player
from parts.agents.mem0_extraction import Extraction, InferPlayer
from parts.agents.memoryos import LLM, MemoryosPlayer
from parts.common.results import code_versions
from parts.common.screen import progress, show_table, stage
from parts.datasets.locomo import Conversation, Memories, conversation_digest, documents, eval_set, relevant
from parts.locomo.deployment_report import Scored, report_deployment

if TYPE_CHECKING:
    from hins_memory.config import Settings
    from hins_memory.encoders.encoder import Encoder
    from hins_memory.mining.storage.evidence import OwnerEvidence

__all__ = [
    "Fold",
    "Plan",
    "deployment",
    "other_file",
    "player_of",
    "score",
    "settings_of",
    "split_folds",
    "trained_encoders",
]

_QUICK_EXAMPLES = 64


@dataclass(frozen=True, slots=True)
class Plan:
    """What one run does: what is stored, which encoder it starts from, and where its files may go.

    `hybrid` says what serves Mem0's hybrid search where it is on (`enable_hybrid`). With `alone`, encoders are put
    side by side without an agent.
    """

    memories: Memories
    base: str
    seed: int
    quick: bool
    work: Path
    save: Path | None
    llm: LLM | None
    extraction: Extraction | None = None
    mode: Mode = "lora"
    hybrid: Mapping[str, str] | None = None
    alone: bool = False

    @property
    def agent(self) -> str:
        """The agent's name."""
        if self.alone:
            return "none"
        return "mem0" if self.llm is None else "memoryos"


@dataclass(frozen=True, slots=True)
class Fold:
    """Conversations whose traffic is trained on, and held-out conversations to score."""

    name: str
    train: tuple[str, ...]
    held_out: tuple[Conversation, ...]


def split_folds(data: Sequence[Conversation], count: int, seed: int) -> list[Fold]:
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
            held_out=tuple(data[index] for index in sorted(part)),
        )
        for number, part in enumerate(parts, start=1)
    ]


def other_file(train: Sequence[Conversation], data: Sequence[Conversation]) -> Fold:
    """Return the one fold of two files, after checking that none of the scored conversations was trained on."""
    known = {tuple((turn.speaker, turn.text) for turn in one.turns): one.id for one in train}
    for one in data:
        if (same := known.get(tuple((turn.speaker, turn.text) for turn in one.turns))) is not None:
            raise ConfigError(
                f"The conversation {one.id!r} to score is {same!r} of the training data.", "Split by conversation."
            )
    return Fold("1", tuple(one.id for one in train), tuple(data))


def deployment(
    train: Sequence[Conversation], data: Sequence[Conversation], folds: Sequence[Fold], plan: Plan
) -> tuple[dict[str, float], list[dict[str, Any]]]:
    """Play everything with the base encoder, train on each fold's traffic, score its held-out conversations."""
    one_file = train is data
    settings = settings_of(plan, "stock" if one_file else "train", capture=True)
    stock = score(data, plan.base, plan, settings if one_file else settings_of(plan, "stock"))
    if not one_file:
        score(train, plan.base, plan, settings, scoring=False)
    base = _encoder_with_cache(plan.base, sum(len(documents(one, plan.memories)) + len(one.questions) for one in train))
    hins: list[Scored] = []
    seconds: list[float] = []
    for fold in folds:
        started = time.perf_counter()
        encoder = _train(fold, plan, settings, base)
        seconds.append(time.perf_counter() - started)
        stage(f"fold {fold.name}: trained in {seconds[-1]:.0f} s; scoring {len(fold.held_out)} held-out conversations")
        hins.append(score(fold.held_out, encoder, plan, settings_of(plan, f"fold{fold.name}")))
    held_out = {fold.name: [one.id for one in fold.held_out] for fold in folds}
    figures, rows = report_deployment(stock, Scored.merge(hins), held_out, plan.seed, show_table)
    return figures | {"train_seconds_max": max(seconds)}, rows


def settings_of(plan: Plan, project: str, *, capture: bool = False) -> Settings:
    """Return settings under the run's own folder; the log address is empty so that HINS_LOG_URL is not used."""
    from hins_memory.config import Settings

    return Settings(home=plan.work, project=project, log_url="", capture=capture)


def score(
    conversations: Sequence[Conversation], model: str, plan: Plan, settings: Settings, *, scoring: bool = True
) -> Scored:
    """Play conversations and score the encoder, alone and inside the agent; the settings decide about capture.

    `scoring` False only plays them, for the traffic.
    """
    from hins_memory.evaluation import evaluate_encoder, score_rankings

    agent = plan.agent
    scored = Scored({}, {}, agent)
    with player_of(model, plan, settings) as player:
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


def player_of(model: str, plan: Plan, settings: Settings) -> Mem0Player | MemoryosPlayer:
    """Return the agent that conversations are played through, embedding with a model."""
    if plan.llm is not None:
        return MemoryosPlayer(model, settings, plan.llm)
    if plan.extraction is not None:
        return InferPlayer(model, settings, plan.extraction)
    return Mem0Player(model, plan.memories, settings)


def trained_encoders(data: Sequence[Conversation], folds: Sequence[Fold], plan: Plan, keep: Path) -> dict[str, str]:
    """Return, for each conversation, the folder of an encoder that was not trained on it.

    Args:
        data: the conversations.
        folds: each conversation is held out in one of them.
        plan: how to play and train.
        keep: where trained encoders stay, by what they were trained on; existing ones are used again.
    """
    targets = {fold.name: keep / _training_digest(data, fold, plan) for fold in folds}
    missing = [fold for fold in folds if not targets[fold.name].is_dir()]
    if missing:
        settings = settings_of(plan, "train", capture=True)
        score(data, plan.base, plan, settings, scoring=False)
        base = _encoder_with_cache(
            plan.base, sum(len(documents(one, plan.memories)) + len(one.questions) for one in data)
        )
    for fold in missing:
        target = targets[fold.name]
        temporary = target.with_name(f".{target.name}.{os.getpid()}")
        shutil.copytree(_train(fold, plan, settings, base), temporary)
        try:
            temporary.rename(target)
        except OSError:  # Another process was first, or the disk is full; then the next use of the folder fails.
            shutil.rmtree(temporary)
    return {one.id: str(targets[fold.name]) for fold in folds for one in fold.held_out}


def _training_digest(data: Sequence[Conversation], fold: Fold, plan: Plan) -> str:
    """Return a digest of what decides an encoder: what was played, with what, and the training's settings and seed."""
    from hins_memory.encoders.encoder import Encoder

    played = [conversation_digest(one) for one in data if one.id in fold.train]
    model = plan.extraction.proxy.client.settings.name if plan.extraction else plan.llm and plan.llm.model
    turns = plan.extraction.turns if plan.extraction else 0
    how = [
        plan.agent,
        plan.memories,
        model,
        turns,
        Encoder.load(plan.base).version,
        plan.seed,
        plan.quick,
        plan.mode,
        code_versions(),
        *([dict(plan.hybrid)] if plan.hybrid else ()),
    ]
    return hashlib.sha256(json.dumps([played, how]).encode()).hexdigest()[:16]


def _encoder_with_cache(model: str, texts: int) -> Encoder:
    """Return the base encoder with a cache for what was played and the public texts: each fold mines most of it."""
    from hins_memory.encoders.cached import CACHE_TEXTS
    from hins_memory.encoders.encoder import Encoder

    encoder = Encoder.load(model)
    return Encoder(encoder.model, encoder.version, cache_size=max(CACHE_TEXTS, 2 * texts))


def _train(fold: Fold, plan: Plan, settings: Settings, encoder: Encoder) -> str:
    """Mine the fold's traffic from the log, train an encoder on it, and return its folder.

    The stages have the loop's own settings; its hold-out and gate are not used, because the fold is held out.
    """
    from hins_memory.database.engine import open_database
    from hins_memory.log.reader import LogReader
    from hins_memory.loop.pipeline import LoopSettings, public_texts
    from hins_memory.mining import mine
    from hins_memory.mining.negatives.whole_store import store_owner
    from hins_memory.mining.storage.evidence import collect
    from hins_memory.training import AuxiliaryData, train_encoder

    stage(f"fold {fold.name}: mining the traffic of {len(fold.train)} conversations")
    reader = LogReader(open_database(settings.database_url))
    logs = reader.scope_logs([owner for owner in reader.owners() if owner.user in fold.train])
    loop = LoopSettings(base=plan.base)
    mine_settings = replace(loop.mine, seed=plan.seed)
    stored = StoredVectors(plan.work / f"stored-{fold.name}") if plan.mode == "tower" else None
    with StoredVectorsWriter(stored.folder) if stored else nullcontext() as writer:

        def owners() -> Iterator[OwnerEvidence]:
            for log in logs:
                evidence = collect(log, encoder, mine_settings, None)
                if writer is not None:
                    store_owner(writer, evidence, encoder, mine_settings)
                yield evidence

        examples = mine(owners(), encoder, mine_settings, public_texts()).examples
    if plan.quick:
        examples = examples[:_QUICK_EXAMPLES]
    stage(f"fold {fold.name}: training on {len(examples)} examples")
    train_settings = replace(loop.train, mode=plan.mode, seed=plan.seed)
    if plan.quick:
        train_settings = replace(train_settings, min_steps=1, epochs=1.0)
    folder = train_encoder(
        examples,
        plan.work / f"encoder-{fold.name}",
        base=plan.base,
        settings=train_settings,
        progress=_print_step,
        auxiliary=AuxiliaryData(stored=stored).with_packaged_sets(),
    ).folder
    if plan.save is not None:
        target = plan.save if fold.name == "1" else plan.save.with_name(f"{plan.save.name}-fold{fold.name}")
        shutil.copytree(folder, target)
        stage(f"fold {fold.name}: encoder kept at {target}")
    return str(folder)


def _print_step(name: str, done: int, total: int) -> None:
    if done == total or done % max(1, total // 4) == 0:
        stage(f"  {name} {done}/{total}")
