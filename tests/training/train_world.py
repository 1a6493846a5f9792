"""Examples and quick settings for tests of training; also imported by the workers that tests start."""

from __future__ import annotations

import runpy
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hins_memory.training import TrainSettings
from hins_memory.types import Negative, Positive, Scope, Tier, TieredExample

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

NAMES = ["Ann", "Bo", "Cid", "Dee", "Eli", "Fay"]
THINGS = ["cello", "chess", "pottery", "rowing"]


def examples() -> list[TieredExample]:
    """24 questions about who does what, with a hard negative each and a medium one for every other."""
    found = []
    for i, name in enumerate(NAMES):
        for j, thing in enumerate(THINGS):
            other = NAMES[(i + 1) % len(NAMES)]
            positive = Positive(f"What does {name} do on day {j}?", f"m{i}{j}", f"{name}: {thing} it is", "answer", 0.9)
            negatives = (
                Negative("h", f"{other}: {thing} it is, 谢谢 🎻", Tier.HARD),
                Negative("m", f"{name}: lunch was cold", Tier.MEDIUM),
            )
            found.append(TieredExample(Scope(user="u"), "c", positive, negatives[: 1 + j % 2]))
    return found


def quick(**changes: Any) -> TrainSettings:
    """Settings under which the tiny encoder trains in about a second, on the examples alone."""
    values = {"mode": "full", "learning_rate": 1e-3, "batch_size": 8, "min_steps": 12, "max_tokens": 32}
    return TrainSettings(**{**values, "lora_rank": 4, "replay": 0.0, "averaging_weight": 1.0, **changes})


def shared_settings(mode: str) -> TrainSettings:
    """Settings that several processes train with; the mode `lora` has both parts of its loss."""
    return quick(mode=mode, distillation=2.0 if mode == "lora" else 0.0)


def checkpoint_every(steps: int, patch: Callable[[Any, str, Any], object] = setattr) -> None:
    """Let trainings write a checkpoint every N steps in the place of every minute."""
    from hins_memory.training.fit.callbacks import CheckpointCallback

    patch(CheckpointCallback, "_due", lambda self, state: state.global_step % steps == 0)


def run_script(channel: Any, script: Path, *arguments: object) -> None:
    """Run a script as the work of a process."""
    sys.argv = [str(script), *map(str, arguments)]
    runpy.run_path(str(script), run_name="__main__")


def batch_columns(model: SentenceTransformer, rank: int = 0, processes: int = 1) -> list[dict[str, Any]]:
    """The tokenised columns of one batch, or of a process's part of it."""
    rows = [*examples()[:8], *examples()[:2], *examples()[8:14]]
    part = rows[rank * len(rows) // processes : (rank + 1) * len(rows) // processes]
    texts = (
        [row.positive.query for row in part],
        [row.positive.text for row in part],
        [row.negatives[0].text for row in part],
        [row.negatives[-1].text for row in part],
    )
    return [model.preprocess(column) for column in texts]
