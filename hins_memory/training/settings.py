"""Settings of one training run, validated once."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, get_args

from hins_memory.common.renamed import renamed_arguments
from hins_memory.config import RENAMED
from hins_memory.errors import ConfigError

__all__ = ["DOCUMENTS_STAY", "Mode", "TrainSettings"]

#: `auto` is `tower` where memories are stored that an encoder at hand has embedded, and `lora` elsewhere;
#: `full` tunes all weights; `lora` tunes a low-rank update of every linear layer (merged on save); `tower` tunes such
#: an update in the upper half of a copy of the encoder that embeds queries only, against stored vectors that stay as
#: they are; `query` tunes a small map that is applied to queries only, after an encoder that stays as it is.
Mode = Literal["auto", "full", "lora", "tower", "query"]
#: Modes in which documents keep their vectors.
DOCUMENTS_STAY = frozenset({"tower", "query"})

# For an encoder of MiniLM's size; `full` at twice as much forgets, and a larger encoder wants less.
# Where nothing is stored, `auto` is `lora`.
_DEFAULT_RATE = {"auto": 6e-4, "full": 1.5e-4, "lora": 6e-4, "tower": 5e-4, "query": 5e-3}
# A step of the query mode works on vectors: it takes milliseconds, and a large batch costs nothing.
_LEAST_STEPS = {"auto": 0, "full": 0, "lora": 0, "tower": 0, "query": 60}
_BATCHES = {"auto": 1, "full": 1, "lora": 1, "tower": 1, "query": 16}
# A step of the tower mode embeds short queries only: it goes through them more often.
_PASSES = {"auto": 1, "full": 1, "lora": 1, "tower": 2, "query": 1}
# Early stopping scores the held-out traffic this many times in a run.
_EVALUATIONS = 8
# The rate rises to its peak over this share of the steps, the usual one.
_WARMUP = 0.1


@renamed_arguments(RENAMED["train"])
@dataclass(frozen=True, slots=True)
class TrainSettings:
    """How an encoder is trained from tiered examples.

    Args:
        mode: which weights are trained. ``auto`` is decided where the stored memories are known: a round of the loop
            trains a tower, which leaves them as they are, and what has no store (`train_encoder`) trains in `lora`.
        epochs: passes over the examples; may be a fraction. `tower` mode makes twice as many, over their queries.
        min_steps: at least this many steps, by more passes over few examples: a handful teaches nothing.
        batch_size: queries per step, over all processes; their positives and negatives are candidates for each other.
            `query` mode takes sixteen times as many, because it works on vectors.
        learning_rate: peak rate of AdamW; 0 means the mode's default (1.5e-4 for full, 6e-4 for lora, 5e-4
            for tower, 5e-3 for query).
        temperature: what cosine similarities are divided by in the loss.
        lora_rank: rank of the update in the modes `lora` and `tower`; its alpha is twice the rank.
        calibrate_scores: bring the scores back to the base encoder's scale, so that as many results reach the
            frameworks' thresholds as before: after training (`full` and `lora`), or while training (`tower` and
            `query`).
        score_thresholds: the cosines that matter. A pipeline with an agent takes those that its framework has as
            thresholds; the default is a scale in even steps, which favours none.
        averaging_weight: how much of what was learned is kept at most, above 0 and up to 1, the rest being the base's
            (weight averaging), against forgetting. `tower` mode keeps everything: it forgets little.
        replay: packaged examples of general retrieval that are trained on beside the others, how many for each of them,
            against forgetting; 0 adds none.
        distillation: weight of a loss that keeps the vectors of packaged texts (`AuxiliaryData.kept_texts`) where the
            base has them (`full` and `lora`), against forgetting; 0 leaves it out.
        micro_batch_size: texts per forward pass; they are sorted by length first, so little is padded. Where a step has
            more than 64 times as many texts in a process, or more than 1024, they are embedded twice, so that one pass
            at a time is in memory (GradCache).
        max_tokens: longer texts are cut to this many tokens while training; 0 means the model's own limit.
        patience: stop when the held-out traffic has not got better this many times in a row, and keep the best weights;
            0 trains to the end and keeps the last.
        seed: seeds the order of the examples and the new weights.

    Raises:
        ConfigError: a value is out of range.
    """

    mode: Mode = "auto"
    epochs: float = 2.0
    min_steps: int = 24
    batch_size: int = 32
    learning_rate: float = 0.0
    temperature: float = 0.05
    lora_rank: int = 16
    calibrate_scores: bool = True
    score_thresholds: tuple[float, ...] = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
    averaging_weight: float = 0.8
    replay: float = 0.25
    distillation: float = 0.0
    micro_batch_size: int = 16
    max_tokens: int = 256
    patience: int = 0
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
        for name in ("min_steps", "max_tokens", "learning_rate", "patience"):
            if not getattr(self, name) >= 0:
                raise ConfigError(f"{name} is {getattr(self, name)}.", "Use 0 or more.")
        self._check_scores()

    def _check_scores(self) -> None:
        if not 0 < self.averaging_weight <= 1:
            raise ConfigError(f"averaging_weight is {self.averaging_weight}.", "Use a share above 0, up to 1.")
        for name in ("replay", "distillation"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ConfigError(f"{name} is {getattr(self, name)}.", "Use 0 or more.")
        if not all(-1 < cutoff < 1 for cutoff in self.score_thresholds):
            raise ConfigError(f"score_thresholds is {self.score_thresholds}.", "Give cosines.")

    @property
    def _queries_a_step(self) -> int:
        return self.batch_size * _BATCHES[self.mode]

    def batch(self, examples: int, processes: int = 1) -> int:
        """Return how many queries a step really has: no more than there are examples, and as many in every process.

        Raises:
            ConfigError: there are more processes than queries a step.
        """
        wanted = min(self._queries_a_step, examples)
        size = wanted // processes * processes
        if not size:
            raise ConfigError(
                f"{wanted} queries a step cannot be shared by {processes} processes.",
                "Use fewer processes or a larger batch.",
            )
        return size

    def steps(self, examples: int) -> int:
        """Return how many steps a training on that many examples takes."""
        batches = math.ceil(examples / self._queries_a_step)
        return max(math.ceil(batches * self.epochs * _PASSES[self.mode]), self.min_steps, _LEAST_STEPS[self.mode])

    def steps_between_evaluations(self, steps: int) -> int:
        """Return after how many steps the held-out traffic is scored, in a run of `steps`."""
        return max(1, steps // _EVALUATIONS)

    def warmup_steps(self, steps: int) -> float:
        """Return over how many of a run's steps the rate rises to its peak; not rounded."""
        return _WARMUP * steps

    @property
    def rate(self) -> float:
        """The peak learning rate in force."""
        return self.learning_rate or _DEFAULT_RATE[self.mode]

    def to_dict(self) -> dict[str, Any]:
        """Return the settings as JSON-able values."""
        return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> TrainSettings:
        """Return the settings that `to_dict` gave, of this version or an earlier one; unknown names are left out."""
        values = {RENAMED["train"].get(name, name): value for name, value in values.items()}
        known = {field.name for field in fields(cls)} & values.keys()
        found: dict[str, Any] = {name: values[name] for name in known}
        found = {name: tuple(value) if isinstance(value, list) else value for name, value in found.items()}
        return cls(**found)
