"""Rounds of towers in a row: which conversations each brings, and one small run that can be continued."""

import json
import shutil

import pytest
import rounds

from parts.datasets.locomo import load_locomo
from parts.training.rounds import groups_of


def test_every_conversation_comes_in_one_round(tiny_file):
    data = load_locomo(tiny_file)
    groups = groups_of(data, 3)
    assert [len(group) for group in groups] == [2, 1, 1]
    assert [one for group in groups for one in group] == data


@pytest.mark.slow
@pytest.mark.usefixtures("shallow_stock")
def test_a_quick_run_scores_the_first_questions_again_and_a_second_one_trains_nothing(tiny_file, tmp_path, monkeypatch):
    result, work = tmp_path / "result.json", tmp_path / "work"
    arguments = ["--data", str(tiny_file), "--work", str(work), "--quick", "--json", str(result)]
    assert rounds.main(arguments) == 0
    found = json.loads(result.read_text(encoding="utf-8"))
    rows = {(row["start"], row["round"]): row for row in found["rows"]}
    assert set(rows) == {("documents", 1), ("documents", 2), ("last", 1), ("last", 2)}
    # The first round is the same for both; then one reads everything, and the other what is new.
    assert rows["documents", 1]["first_questions"] == rows["last", 1]["first_questions"]
    assert rows["documents", 2]["examples"] > rows["last", 2]["examples"]
    assert rows["documents", 2]["general"] != rows["last", 2]["general"]
    figures = found["figures"]
    first, second = (rows["last", number]["first"] for number in (1, 2))
    assert figures["turns_rounds_last_first_change"] == pytest.approx(second - first)
    kept = [path for path in (work / "rounds").iterdir() if path.is_dir()]
    assert len(kept) == 1, "the tower that a next round would begin as"
    monkeypatch.setattr("parts.training.towers.train_encoder", None)
    shutil.rmtree(kept[0])
    assert rounds.main(arguments) == 0
    assert json.loads(result.read_text(encoding="utf-8"))["figures"] == figures
