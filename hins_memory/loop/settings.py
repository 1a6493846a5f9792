"""Settings of every stage of the loop, in code or from `hins.toml`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from hins_memory.config import SettingsFile
from hins_memory.evaluation.gate import GateSettings
from hins_memory.mining import MineSettings
from hins_memory.training.settings import TrainSettings

__all__ = ["LoopSettings", "TopLevel"]


@dataclass(frozen=True, slots=True)
class TopLevel:
    """What stands in `hins.toml` before its tables.

    Args:
        base: the encoder that training starts from: a folder, a name, ``stock`` or ``starter``. Left out, it is what
            the serving encoder was trained from, or is itself, and the packaged starter in a new project.
        seed: of everything that mining and training sample.
    """

    base: str | None = None
    seed: int = 0


@dataclass(frozen=True, slots=True)
class LoopSettings:
    """Settings of every stage.

    Args:
        mine: what becomes an example.
        train: how the encoder is trained.
        gate: what the candidate has to show.
        base: the encoder that training starts from, as for `Encoder.load`; None stands for what the serving encoder
            was trained from, or is itself, and for the packaged starter in a new project.
    """

    mine: MineSettings = field(default_factory=MineSettings)
    train: TrainSettings = field(default_factory=TrainSettings)
    gate: GateSettings = field(default_factory=GateSettings)
    base: str | None = None

    @classmethod
    def from_file(
        cls,
        file: SettingsFile,
        *,
        base: str | None = None,
        seed: int | None = None,
        mine: Mapping[str, Any] | None = None,
        train: Mapping[str, Any] | None = None,
    ) -> LoopSettings:
        """Return the settings of a project's file (`Settings.file`); arguments win over it.

        Args:
            file: what the file holds; an empty one gives the defaults.
            base: instead of the file's.
            seed: of mining and training, instead of the file's.
            mine: names and values of `MineSettings`, instead of the file's.
            train: names and values of `TrainSettings`, instead of the file's.

        Raises:
            ConfigError: a name in the file is not known, or a value is of a wrong type or out of range.
        """
        top = file.build("", TopLevel)
        chosen = top.seed if seed is None else seed
        return cls(
            mine=replace(file.build("mine", MineSettings, without=("seed",)), seed=chosen, **(mine or {})),
            train=replace(file.build("train", TrainSettings, without=("seed",)), seed=chosen, **(train or {})),
            gate=file.build("gate", GateSettings),
            base=top.base if base is None else base,
        )
