"""A tower of one's own beside the common one: what is learned and what is scored, and one small run."""

import json

import pytest
import scoped_towers

from hins_memory.mining.owner.text import clean
from parts.datasets.locomo import load_locomo
from parts.training.modes import Traffic
from parts.training.towers import Split, first_part, later_part


def test_no_question_is_both_learned_from_and_scored(tiny_file):
    for conversation in load_locomo(tiny_file):
        traffic, split = Traffic("stock", "turns", "", {}, {}), Split(0.5)
        later = later_part(conversation, traffic, split)
        assert later.queries
        assert not first_part(conversation, split) & {clean(query.text) for query in later.queries}
        assert "5" not in {query.group for query in later.queries}


@pytest.mark.slow
@pytest.mark.usefixtures("shallow_stock")
def test_a_quick_run_compares_both_towers_and_a_second_one_trains_nothing(tiny_file, tmp_path, monkeypatch):
    result = tmp_path / "result.json"
    arguments = ["--data", str(tiny_file), "--work", str(tmp_path / "work"), "--quick", "--json", str(result)]
    assert scoped_towers.main(arguments) == 0
    found = json.loads(result.read_text(encoding="utf-8"))
    assert len(found["rows"]) == 2
    figures = found["figures"]
    assert figures["turns_scoped_own_over_none"] == pytest.approx(
        figures["turns_scoped_own"] - figures["turns_scoped_none"]
    )
    assert figures["turns_scoped_common"] != figures["turns_scoped_none"]
    monkeypatch.setattr("parts.training.towers.train_encoder", None)
    assert scoped_towers.main(arguments) == 0
    assert json.loads(result.read_text(encoding="utf-8"))["figures"] == figures
