"""The training benchmark: its examples, its figures, and a run in which three trainers take turns."""

import json

import numpy as np
import pytest
import training

from parts.datasets.locomo import load_locomo
from parts.training.trainers import PEERS, hardware, locomo_splits, raced, sample_split


@pytest.mark.slow
def test_nothing_that_is_scored_is_trained_on(tiny_file, stock_encoder):
    split = sample_split(stock_encoder)
    trained = {example.positive.text for example in split.examples}
    assert len(split.examples) > 50
    assert not trained & set(split.held_out[0].documents.values())
    assert not {one.positive.query for one in split.examples} & {one.text for one in split.held_out[0].queries}
    folds = locomo_splits(load_locomo(tiny_file), 2, stock_encoder)
    assert sorted(one.name for fold in folds for one in fold.held_out) == ["tiny-1", "tiny-2", "tiny-3", "tiny-4"]
    for fold in folds:
        assert not {one.conversation for one in fold.examples} & {one.name for one in fold.held_out}


def test_a_speedup_is_the_ratio_of_times_with_an_interval_over_turns():
    found = training._ratio([4.0, 6.0, 5.0], [2.0, 2.0, 2.0], "speedup")
    assert found["speedup"] == pytest.approx(2.5)
    assert 2.0 <= found["speedup_ci_low"] < 2.5 < found["speedup_ci_high"] <= 3.0


def test_figures_compare_ours_with_both_peers():
    random = np.random.default_rng(0)
    base = random.uniform(size=40)
    found = {
        "hins": training.Found([1.0, 1.0], [1.0, 1.0], [base[:20], base[20:]]),
        "plain": training.Found([3.0, 5.0], [4.0, 4.0], [base[:20] * 0.9, base[20:] * 0.9]),
        "plain_bf16": training.Found([2.0, 2.0], [2.0, 2.0], [base[:20], base[20:]]),
    }
    figures, rows = training._report(found, ["1"] * 40, base * 0.5, training.Shape(8, 3, 10, 2))
    assert figures["speedup"] == pytest.approx(4)
    assert figures["speedup_bf16"] == pytest.approx(2)
    assert figures["hins_texts_per_second"] == pytest.approx(40)
    assert figures["quality_diff"] == pytest.approx(10 * base.mean())
    assert 0 < figures["quality_diff_ci_low"] < figures["quality_diff"]
    assert figures["quality_diff_bf16"] == figures["quality_diff_bf16_ci_low"] == 0
    assert figures["stock_ndcg10"] == pytest.approx(50 * base.mean())
    assert [row["trainer"] for row in rows] == list(PEERS)


def test_the_processor_is_described():
    found = hardware()
    assert found["cores"] >= 1
    assert isinstance(found["bf16_supported"], bool)
    json.dumps(found)


@pytest.mark.slow
@pytest.mark.usefixtures("forked_programs")
def test_the_quick_run_trains_with_all_that_the_processor_can_race(tmp_path, shallow_folder):
    result = tmp_path / "result.json"
    assert training.main(["--quick", "--base", str(shallow_folder), "--json", str(result)]) == 0
    found = json.loads(result.read_text(encoding="utf-8"))
    figures = found["figures"]
    assert [row["trainer"] for row in found["rows"]] == raced()
    assert ("plain_bf16" in raced()) == found["settings"]["hardware"]["bf16_supported"]
    assert all(row["texts_per_second"] > 0 and row["turns"] == 2 for row in found["rows"])
    assert figures["quality_diff_ci_low"] <= figures["quality_diff"] <= figures["quality_diff_ci_high"]
    assert figures["speedup"] > 0
    assert found["settings"]["hardware"]["threads"] >= 1
