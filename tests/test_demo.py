"""The demo: it never scores what was trained on, and it says what the gate said."""

import json

import pytest

from hins_memory.cli.demo import _parts
from hins_memory.config import Settings
from hins_memory.data.sample_conversations import load_sample
from hins_memory.demo import run_demo
from hins_memory.errors import AgentError
from hins_memory.training import TrainSettings


@pytest.mark.slow
@pytest.mark.usefixtures("shallow_stock")
def test_the_demo_scores_only_what_was_not_trained_on(settings: Settings) -> None:
    played = load_sample()[:4]
    seen: list[str] = []
    report = run_demo(
        settings.home,
        conversations=played,
        # How well it learns is not the point here.
        training=TrainSettings(epochs=1.0, min_steps=1, max_tokens=64),
        progress=lambda stage, done, total: seen.append(stage),
    )
    assert report.memories == sum(len(one.turns) for one in played)
    assert report.questions == sum(len(one.questions) for one in played)
    assert 0 < len(report.held_out) < len(played)
    assert set(report.held_out) <= {one.id for one in played}
    held = [one for one in played if one.id in report.held_out]
    assert report.held_out_questions == sum(len(one.questions) for one in held)
    # What the miner used is what is left: no owner whose conversation was held out has a ratio of its own.
    used = set(report.run.mine["owner_ratios"])
    assert used
    assert not used & {f"user={one}" for one in report.held_out}
    assert (report.after is not None) == report.run.swapped == report.run.gate.passed
    assert report.run.mode == "tower"
    if report.run.swap is not None:
        assert report.run.swap.indexes == (), "no vector is touched"
        assert "No stored vector was touched" in "".join(part for part in _parts(report) if isinstance(part, str))
    if report.after is not None:
        low, high = report.gain_interval
        assert low <= report.after["ndcg@10"] - report.before["ndcg@10"] <= high
        assert len(report.examples) <= report.risen
    assert json.loads(json.dumps(report.to_dict()))["conversations"] == 4
    assert {"playing the conversations", "asking the questions", "train"} <= set(seen)


def test_a_folder_that_was_used_before_is_refused(settings: Settings) -> None:
    (settings.home / "demo").mkdir()
    with pytest.raises(AgentError, match="exists already"):
        run_demo(settings.home)
