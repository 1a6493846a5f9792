"""Callbacks of the trainer: progress, times, checkpoints, and a stop when the loss is not a finite number."""

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

__all__ = ["CheckpointCallback", "MonitorCallback"]

# Between two checkpoints: how much work a kill costs.
_SECONDS = 60.0
# Checkpoints take at most this share of the training time.
_MAX_SAVE_SHARE = 0.05


class MonitorCallback(TrainerCallback):  # type: ignore[misc]
    """Reports progress, records the time of every step, and stops when the loss is not a finite number."""

    def __init__(self, progress: Callable[[str, int, int], None] | None) -> None:
        self._progress = progress
        self._started = 0.0

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Start the clock; steps before an interruption count with the time that they took."""
        earlier = [entry["seconds"] for entry in state.log_history if "seconds" in entry]
        self._started = time.perf_counter() - (earlier[-1] if earlier else 0.0)

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
    """Requests checkpoints about every minute, or less often, so that saving takes at most a twentieth of the time.

    It marks those that are complete.

    Args:
        folder: where the trainer writes them.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._last_step = self._last_save = time.monotonic()
        self._save_seconds = 0.0

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Start the clock."""
        self._last_save = time.monotonic()

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Request a checkpoint when one is due."""
        if self._due(state) and state.global_step < state.max_steps:
            control.should_save = True
        self._last_step = time.monotonic()

    def _due(self, state: TrainerState) -> bool:
        wait = max(_SECONDS, self._save_seconds / _MAX_SAVE_SHARE)

        def due() -> bool:
            return time.monotonic() - self._last_save >= wait

        # All processes have to save at the same step, so the clock of the first one decides.
        return from_main(due) if process_count() > 1 else due()

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Mark the checkpoint that was just written as complete; without the mark it is not used."""
        wait_for_all()
        if is_main():
            mark_complete(self._folder / f"checkpoint-{state.global_step}")
        self._last_save = time.monotonic()
        self._save_seconds = self._last_save - self._last_step
