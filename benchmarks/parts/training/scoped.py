"""Towers from the first part of each conversation's questions, scored on the later part: common, or its own.

Results are kept in a work folder, each under a digest of its inputs, so that an interrupted run continues where it was.
"""

from __future__ import annotations

import json
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hins_memory.encoders.encoder import Encoder
from hins_memory.errors import NotEnoughDataError
from hins_memory.loop.pipeline import LoopSettings
from parts.common.files import write_whole
from parts.common.screen import stage
from parts.datasets.locomo import Conversation
from parts.training.modes import Traffic, code_digest
from parts.training.towers import Split, digest, first_evidence, later_part, scores, settings_of, train_tower

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["Training", "run_training", "untrained"]


@dataclass(frozen=True, slots=True)
class Training:
    """One training: a tower from the first parts of conversations, which is scored on their later parts."""

    traffic: Traffic
    conversations: tuple[Conversation, ...]
    split: Split
    seed: int
    quick: bool = False

    def path(self, work: Path) -> Path:
        """Return the file that the result is kept in."""
        names = [one.id for one in self.conversations]
        settings = settings_of(self.seed, quick=self.quick)
        known = asdict(settings), asdict(LoopSettings().mine), asdict(self.split), self.quick
        key = digest(self.traffic.digest, self.traffic.base, self.traffic.memories, names, known)
        whose = names[0] if len(names) == 1 else "all"
        name = f"{self.traffic.base}-{self.traffic.memories}-{self.split.share:g}-{whose}-{self.seed}-{key}.json"
        return work / "scoped" / name


def untrained(traffic: Traffic, conversation: Conversation, split: Split, encoder: Encoder) -> list[float]:
    """Return nDCG of every question of a conversation's later part, 0 to 1."""
    return scores(encoder, later_part(conversation, traffic, split))


def run_training(training: Training, base: Encoder, work: Path) -> dict[str, Any]:
    """Return a training's result: kept, or after mining, training and scoring.

    Returns:
        ``ndcg`` (conversation -> a value each question of the later part; empty where the first part is too little to
        train on), ``examples``, ``seconds``, ``code``.
    """
    path = training.path(work)
    if path.is_file():
        return dict(json.loads(path.read_text(encoding="utf-8")))
    with tempfile.TemporaryDirectory(prefix="hins-scoped-") as scratch:
        result = _measure(training, base, Path(scratch))
    write_whole(path, json.dumps(result).encode())
    return result


def _measure(training: Training, base: Encoder, scratch: Path) -> dict[str, Any]:
    code, traffic = code_digest(), training.traffic
    owners = [first_evidence(traffic, one, training.split, base) for one in training.conversations]
    try:
        trained, examples, seconds = train_tower(
            owners, base, traffic.base, training.seed, scratch, quick=training.quick
        )
    except NotEnoughDataError as error:
        stage(f"{training.path(scratch).stem}: {error.problem}")
        return {"ndcg": {}, "examples": 0, "seconds": 0.0, "code": code}
    tower = Encoder.load(trained.folder)
    stage(f"{training.path(scratch).stem}: {examples} examples, trained in {seconds:.0f} s")
    found: Mapping[str, list[float]] = {
        one.id: untrained(traffic, one, training.split, tower) for one in training.conversations
    }
    return {"ndcg": found, "examples": examples, "seconds": seconds, "code": code}
