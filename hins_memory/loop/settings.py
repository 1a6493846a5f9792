"""Settings of every stage of the loop, in code or from `hins.toml`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal, get_args

from hins_memory.config import SettingsFile
from hins_memory.errors import ConfigError
from hins_memory.evaluation.gate import GateSettings
from hins_memory.mining import MineSettings
from hins_memory.training.settings import TrainSettings

__all__ = ["Deep", "LoopSettings", "TopLevel"]

#: What a round that re-embeds nothing does about a deep one, which re-embeds everything: measures whether it would gain
#: enough and says so, takes it at once where it would, or does not look.
Deep = Literal["advise", "auto", "never"]


@dataclass(frozen=True, slots=True)
class TopLevel:
    """What stands in `hins.toml` before its tables.

    Args:
        base: the encoder that training starts from: a folder, a name, ``stock`` or ``starter``. Left out, it is what
            the serving encoder was trained from, or is itself, and the packaged starter in a new project.
        seed: of everything that mining and training sample.
        deep: what `hins run` does about a deep round, which re-embeds everything, after a round of the modes `tower`
            and `query`: `advise` measures whether it would gain enough, `auto` takes it if so, `never` does not look.
        deep_gain: how much nDCG@10 a deep round has to gain over one that re-embeds nothing, -1 to 1 (0.02 is two
            points); the lower end of the 95% interval counts.
        ray: the address of a Ray cluster that works for the stages: `auto`, `HOST:PORT`, `ray://HOST:PORT` or `local`
            (this machine's cores); empty works in this process.
        workers: how many workers of that cluster train together; they do what one does, and share its batches.
    """

    base: str | None = None
    seed: int = 0
    deep: Deep = "advise"
    deep_gain: float = 0.02
    ray: str = ""
    workers: int = 1

    def __post_init__(self) -> None:
        _check(self)


@dataclass(frozen=True, slots=True)
class LoopSettings:
    """Settings of every stage.

    Args:
        mine: what becomes an example.
        train: how the encoder is trained.
        gate: what the candidate has to show.
        base: the encoder that training starts from, as for `Encoder.load`; None stands for what the serving encoder
            was trained from, or is itself, and for the packaged starter in a new project.
        deep: what a round that re-embeds nothing does about a deep one: ``advise``, ``auto`` or ``never``.
        deep_gain: what a deep round has to gain, see `TopLevel`.
        ray: the address of a Ray cluster, see `TopLevel`.
        workers: how many of its workers train together.

    Raises:
        ConfigError: a value is out of range.
    """

    mine: MineSettings = field(default_factory=MineSettings)
    train: TrainSettings = field(default_factory=TrainSettings)
    gate: GateSettings = field(default_factory=GateSettings)
    base: str | None = None
    deep: Deep = "advise"
    deep_gain: float = 0.02
    ray: str = ""
    workers: int = 1

    def __post_init__(self) -> None:
        _check(self)

    @classmethod
    def from_file(
        cls,
        file: SettingsFile,
        *,
        base: str | None = None,
        seed: int | None = None,
        deep: Any = None,
        ray: str | None = None,
        mine: Mapping[str, Any] | None = None,
        train: Mapping[str, Any] | None = None,
    ) -> LoopSettings:
        """Return the settings of a project's file (`Settings.file`); arguments win over it.

        Args:
            file: what the file holds; an empty one gives the defaults.
            base: instead of the file's.
            seed: of mining and training, instead of the file's.
            deep: instead of the file's.
            ray: instead of the file's.
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
            deep=top.deep if deep is None else deep,
            deep_gain=top.deep_gain,
            ray=top.ray if ray is None else ray,
            workers=top.workers,
        )


def _check(given: TopLevel | LoopSettings) -> None:
    if given.deep not in get_args(Deep):
        raise ConfigError(f"deep is {given.deep!r}.", f"Use one of {', '.join(get_args(Deep))}.")
    if not -1 <= given.deep_gain <= 1:
        raise ConfigError(f"deep_gain is {given.deep_gain}.", "Use -1 to 1; 0.02 is two points of nDCG@10.")
    if given.workers < 1:
        raise ConfigError(f"workers is {given.workers}.", "Use at least 1.")
