"""The benchmark of a space that is known by its vectors alone, with small encoders."""

import json

import pytest
import unknown_space


@pytest.mark.slow
def test_it_compares_three_ways_to_embed_queries(tmp_path, monkeypatch, first_layer_folder, tiny_folder):
    monkeypatch.setattr(unknown_space, "_PAIRS", ((str(first_layer_folder), str(tiny_folder)),))
    assert unknown_space.main(["--quick", "--json", str(tmp_path / "result.json")]) == 0
    result = json.loads((tmp_path / "result.json").read_text())
    (row,) = result["rows"]
    # Random weights mapped onto an encoder that knows words, which finds far more by itself.
    assert row["own"] > row["linear"] + 10
    assert row["tower"] != row["linear"]
    assert row["tower_gain"] == pytest.approx(row["tower"] - row["own"])
