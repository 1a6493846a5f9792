"""From tiered examples to an encoder version."""

from __future__ import annotations

from typing import Any

from hins_memory.common.renamed import old_names
from hins_memory.training.auxiliary_data import AuxiliaryData
from hins_memory.training.query_samples import QuerySample
from hins_memory.training.run import RunContent, TrainingRun, discard_runs, open_run, read_run
from hins_memory.training.settings import TrainSettings
from hins_memory.training.trainer import TrainResult, train_encoder
from hins_memory.training.unknown_space import encoder_of_space

__all__ = [
    "AuxiliaryData",
    "QuerySample",
    "RunContent",
    "TrainResult",
    "TrainSettings",
    "TrainingRun",
    "discard_runs",
    "encoder_of_space",
    "open_run",
    "read_run",
    "train_encoder",
]


def _samples(
    traffic: Any = (), unseen: Any = (), held_out: Any = (), general: Any = None, **settings: Any
) -> AuxiliaryData:
    """Return the data that version 0.2 called `Samples`."""
    return AuxiliaryData(traffic, unseen, held_out, general, **settings)


__getattr__ = old_names(__name__, {"Samples": ("AuxiliaryData", _samples)})
