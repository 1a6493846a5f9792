"""Settings of one training run, validated once."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, get_args

from hins_memory.errors import ConfigError

__all__ = ["Mode", "TrainSettings"]

#: `full` tunes all weights; `lora` tunes a low-rank update of every linear layer (merged on save).
Mode = Literal["full", "lora"]

_DEFAULT_RATE = {"full": 2e-5, "lora": 4e-4}


@dataclass(frozen=True, slots=True)
class TrainSettings:
    """How an encoder is trained from tiered examples.

    Args:
        mode: which weights are trained.
        epochs: passes over the examples; may be a fraction.
        min_steps: at least this many steps, by more passes over few examples: a handful teaches nothing.
        batch_size: queries per step; their positives and negatives are candidates for each other.
        learning_rate: peak rate of AdamW; 0 means the mode's default (2e-5 for full, 4e-4 for lora).
        temperature: what cosine similarities are divided by in the loss.
        negatives: how many of an example's negatives are used, in their order.
        lora_rank: rank of the update in `lora` mode; its alpha is twice the rank.
        warmup: share of the steps over which the rate rises to its peak.
        micro_batch_size: texts per forward pass; they are sorted by length first, so little is padded.
        max_tokens: longer texts are cut to this many tokens while training; 0 means the model's own limit.
        seed: seeds the order of the examples and the new weights.

    Raises:
        ConfigError: a value is out of range.
    """

    mode: Mode = "lora"
    epochs: float = 2.0
    min_steps: int = 24
    batch_size: int = 32
    learning_rate: float = 0.0
    temperature: float = 0.05
    negatives: int = 3
    lora_rank: int = 16
    warmup: float = 0.1
    micro_batch_size: int = 16
    max_tokens: int = 256
    seed: int = 0

    def __post_init__(self) -> None:
        if self.mode not in get_args(Mode):
            raise ConfigError(f"{self.mode!r} is not a training mode.", f"Use one of {', '.join(get_args(Mode))}.")
        for name in ("batch_size", "lora_rank", "micro_batch_size"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} is {getattr(self, name)}.", "Use at least 1.")
        for name in ("epochs", "temperature"):
            if not getattr(self, name) > 0:
                raise ConfigError(f"{name} is {getattr(self, name)}.", "Use a value above 0.")
        for name in ("min_steps", "negatives", "max_tokens", "learning_rate"):
            if not getattr(self, name) >= 0:
                raise ConfigError(f"{name} is {getattr(self, name)}.", "Use 0 or more.")
        if not 0 <= self.warmup < 1:
            raise ConfigError(f"warmup is {self.warmup}.", "Use a share from 0 to below 1.")

    def steps(self, examples: int) -> int:
        """Return how many steps a training on that many examples takes."""
        batches = math.ceil(examples / self.batch_size)
        return max(math.ceil(batches * self.epochs), self.min_steps)

    @property
    def rate(self) -> float:
        """The peak learning rate in force."""
        return self.learning_rate or _DEFAULT_RATE[self.mode]
