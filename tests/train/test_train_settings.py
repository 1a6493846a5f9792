"""Training settings are checked at the edge."""

from __future__ import annotations

import pytest

from hins_memory.errors import ConfigError
from hins_memory.train import TrainSettings


@pytest.mark.parametrize(
    "bad",
    [
        {"mode": "sideways"},
        {"epochs": 0},
        {"epochs": float("nan")},
        {"batch_size": 0},
        {"temperature": -1.0},
        {"warmup": 1.0},
        {"negatives": -1},
        {"learning_rate": -1e-5},
    ],
)
def test_bad_values_are_refused(bad):
    with pytest.raises(ConfigError):
        TrainSettings(**bad)


def test_rate_follows_the_mode_unless_given():
    assert TrainSettings(mode="full").rate < TrainSettings(mode="lora").rate
    assert TrainSettings(learning_rate=1e-3).rate == 1e-3
