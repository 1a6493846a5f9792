"""What happens while the trainer runs: progress, times, checkpoints, and a stop when the loss is not a number."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from hins_memory.errors import TrainingError
from hins_memory.training.fit.checkpoints import mark_complete
from hins_memory.training.fit.processes import from_main, is_main, process_count, wait_for_all

__all__ = ["CheckpointCallback", "WatchCallback"]

# Checkpoints by time take at most this share of the time.
_SAVE_SHARE = 0.05


class WatchCallback(TrainerCallback):  # type: ignore[misc]
    """Report progress, note the time of every step, and stop when the loss is not a finite number."""

    def __init__(self, progress: Callable[[str, int, int], None] | None) -> None:
        self._progress = progress
        self._started = 0.0

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Start the clock, after what the steps before an interruption took."""
        spent = [entry["seconds"] for entry in state.log_history if "seconds" in entry]
        self._started = time.perf_counter() - (spent[-1] if spent else 0.0)

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        """Take the loss of the step that has just ended."""
        loss = (logs or {}).get("loss")
        if loss is None:
            return
        if not math.isfinite(loss):
            raise TrainingError(
                f"The loss became {loss} at step {state.global_step} of {state.max_steps}.",
                "Lower the learning rate, or raise the temperature.",
            )
        state.log_history[-1]["seconds"] = round(time.perf_counter() - self._started, 3)
        if self._progress and is_main():
            self._progress("train", state.global_step, state.max_steps)


class CheckpointCallback(TrainerCallback):  # type: ignore[misc]
    """Ask for checkpoints by time and by steps, and mark those that are complete.

    Args:
        folder: where the trainer writes them.
        seconds: about so often, but never for more than a twentieth of the time; 0 means never by time.
        steps: and every N steps; 0 means never by steps.
    """

    def __init__(self, folder: Path, seconds: float, steps: int) -> None:
        self._folder = folder
        self._seconds = seconds
        self._steps = steps
        self._asked = self._saved = time.monotonic()
        self._cost = 0.0

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Start the clock."""
        self._saved = time.monotonic()

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Ask for a checkpoint when one is due."""
        due = bool(self._steps) and state.global_step % self._steps == 0
        if self._seconds and not due:
            due = self._due_by_time()
        if due and state.global_step < state.max_steps:
            control.should_save = True
        self._asked = time.monotonic()

    def _due_by_time(self) -> bool:
        wait = max(self._seconds, self._cost / _SAVE_SHARE)

        def due() -> bool:
            return time.monotonic() - self._saved >= wait

        # Every process has to save at the same step, so the clock of the first one decides.
        return from_main(due) if process_count() > 1 else due()

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Mark the checkpoint that has just been written; without the mark it does not count."""
        wait_for_all()
        if is_main():
            mark_complete(self._folder / f"checkpoint-{state.global_step}")
        self._saved = time.monotonic()
        self._cost = self._saved - self._asked
