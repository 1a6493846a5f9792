"""What the trainer reports while it runs: progress, the loss curve, and a stop when the loss is no number."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from hins_memory.errors import TrainingError

__all__ = ["WatchCallback"]


class WatchCallback(TrainerCallback):  # type: ignore[misc]
    """Keep the loss of every step, report progress, and stop when the loss is not a finite number."""

    def __init__(self, progress: Callable[[str, int, int], None] | None) -> None:
        self.losses: list[float] = []
        self._progress = progress

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
        self.losses.append(float(loss))
        if self._progress:
            self._progress("train", state.global_step, state.max_steps)
