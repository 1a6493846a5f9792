"""From tiered examples to an encoder version."""

from hins_memory.train.run import RunContent, TrainingRun, discard_runs, open_run
from hins_memory.train.settings import TrainSettings
from hins_memory.train.traffic import Samples
from hins_memory.train.trainer import TrainResult, train_encoder

__all__ = [
    "RunContent",
    "Samples",
    "TrainResult",
    "TrainSettings",
    "TrainingRun",
    "discard_runs",
    "open_run",
    "train_encoder",
]
