"""From tiered examples to an encoder version."""

from hins_memory.train.settings import TrainSettings
from hins_memory.train.trainer import TrainResult, train_encoder

__all__ = ["TrainResult", "TrainSettings", "train_encoder"]
