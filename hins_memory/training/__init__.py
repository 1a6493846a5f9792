"""From tiered examples to an encoder version."""

from hins_memory.training.postprocess.traffic import Samples
from hins_memory.training.run import RunContent, TrainingRun, discard_runs, open_run
from hins_memory.training.settings import TrainSettings
from hins_memory.training.trainer import TrainResult, train_encoder

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
