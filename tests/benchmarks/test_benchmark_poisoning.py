"""What poisoned outcomes do: the attacker's examples are wrong, as many as asked for, and a small run gives a table."""

import json

import numpy as np
import poisoning
import pytest
from poisoning import Row, World, _attack

from hins_memory.errors import ConfigError
from hins_memory.mining import MineSettings, mine
from parts.locomo.deployment import Fold
from parts.mining.evidence_logs import cases, sample_scope


@pytest.fixture(scope="module")
def world(stock_encoder) -> World:
    account, asked = sample_scope()
    found = cases(account, asked, stock_encoder)
    return World(stock_encoder, (), account, tuple(asked), tuple(found), Fold("1", (), ()), quick=True)


@pytest.mark.slow
@pytest.mark.parametrize(("dose", "count"), [("tenth", 30), ("half", 300), ("accounts", 334)])
def test_the_attacker_makes_as_many_examples_as_asked_for(world, dose, count):
    logs = _attack(world, Row(dose, "far", "default"), count)
    found = mine(logs, world.encoder, MineSettings()).examples
    assert len(found) == count
    assert len({one.scope.owner for one in found}) == len(logs) == (20 if dose == "accounts" else 1)
    right = {question.text: question.evidence for question in world.asked}
    assert not any(one.positive.memory_id.partition("/")[2] in right[one.positive.query] for one in found)
    if dose != "accounts":
        liked = [_cosine(world, one.positive.query, one.positive.text) for one in found]
        assert np.mean(liked) < 0.05


def _cosine(world: World, query: str, text: str) -> float:
    return float(world.encoder.encode([query], role="query")[0] @ world.encoder.encode([text])[0])


def test_settings_of_the_miner_are_read_from_a_row():
    assert Row("half", "far", "max_owner_share=0.2").settings(3) == MineSettings(seed=3, max_owner_share=0.2)
    with pytest.raises(ConfigError, match="not a setting"):
        Row("half", "far", "share=1").settings(0)


@pytest.mark.slow
@pytest.mark.usefixtures("shallow_stock")
def test_a_small_run_gives_a_table_and_goes_on_where_it_was(tiny_file, tmp_path):
    options = ["--data", str(tiny_file), "--work", str(tmp_path), "--quick", "--mode", "query", "--attacks", "far"]
    options += ["--doses", "none", "tenth", "--json", str(tmp_path / "result.json")]
    assert poisoning.main(options) == 0
    clean, poisoned = json.loads((tmp_path / "result.json").read_text())["rows"]
    assert clean["poisoned"] == 0
    assert clean["loss"] is None
    assert 0.05 < poisoned["poisoned"] / poisoned["examples"] < 0.15
    kept = {path.name: path.stat().st_mtime_ns for path in tmp_path.glob("*-fold1-*.json")}
    assert len(kept) == 2
    assert poisoning.main(options) == 0
    assert {path.name: path.stat().st_mtime_ns for path in tmp_path.glob("*-fold1-*.json")} == kept
