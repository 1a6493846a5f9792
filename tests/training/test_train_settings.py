"""Training settings are checked at the edge."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from hins_memory.errors import ConfigError
from hins_memory.training import TrainSettings


@pytest.mark.parametrize(
    "bad",
    [
        {"mode": "sideways"},
        {"epochs": 0},
        {"epochs": float("nan")},
        {"batch_size": 0},
        {"temperature": -1.0},
        {"patience": -1},
        {"learning_rate": -1e-5},
    ],
)
def test_bad_values_are_refused(bad):
    with pytest.raises(ConfigError):
        TrainSettings(**bad)


def test_rate_follows_the_mode_unless_given():
    assert TrainSettings(mode="full").rate < TrainSettings(mode="lora").rate
    assert TrainSettings(learning_rate=1e-3).rate == 1e-3


def test_names_of_version_0_2_still_work():
    old: dict[str, Any] = {"soup": 0.5, "anchor": False, "cutoffs": (0.3,)}
    new = TrainSettings(averaging_weight=0.5, calibrate_scores=False, score_thresholds=(0.3,))
    with pytest.warns(DeprecationWarning, match="now averaging_weight="):
        assert TrainSettings(**old) == new
    changes: dict[str, Any] = {"soup": 0.5}
    with pytest.warns(DeprecationWarning, match="now averaging_weight="):
        assert replace(replace(new, averaging_weight=1.0), **changes) == new
    # Manifests and runs keep the names that they were written with.
    assert TrainSettings.from_dict(old) == new


def test_few_examples_are_passed_over_more_often():
    settings = TrainSettings(batch_size=32, epochs=2.0, min_steps=24)
    assert settings.steps(100) == 24
    assert settings.steps(32 * 40) == 80
    assert TrainSettings(batch_size=32, epochs=0.5, min_steps=0).steps(100) == 2
