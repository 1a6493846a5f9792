"""Rounds of different traffic, and what each leaves of every memory skill: a small run that can be continued."""

import json
from pathlib import Path

import pytest
import skill_rounds
from synthesis_corpus import write_corpus

from hins_memory.data.labelled import logs_of, read_rows
from hins_memory.encoders.encoder import Encoder
from hins_memory.evaluation import skill_sets
from hins_memory.loop.settings import LoopSettings
from hins_memory.mining.storage.evidence import collect


@pytest.mark.slow
@pytest.mark.usefixtures("shallow_stock")
def test_every_skill_has_a_row_each_round_and_a_second_run_trains_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    result, corpus = tmp_path / "result.json", write_corpus(tmp_path / "talks.csv", copies=12)
    options = ["--corpus", str(corpus), "--work", str(tmp_path / "work"), "--quick", "--json", str(result)]
    assert skill_rounds.main(options) == 0
    found = json.loads(result.read_text(encoding="utf-8"))
    assert str(tmp_path) not in result.read_text(encoding="utf-8")
    rows = {(row["skill"], row["round"]): row for row in found["rows"]}
    assert set(rows) == {(skill, number) for skill in ("preference", "update", "general") for number in (1, 2)}
    for skill, number in rows:
        row = rows[skill, number]
        best = max(row["untrained"], *(rows[skill, before]["ndcg10"] for before in range(1, number)), 0)
        assert row["over_best"] == pytest.approx(row["ndcg10"] - best, abs=0.02)
    assert found["figures"]["cells"] == 4
    # All traffic so far is read again.
    assert rows["update", 2]["examples"] >= rows["update", 1]["examples"]
    monkeypatch.setattr("parts.training.towers.train_encoder", None)
    assert skill_rounds.main(options) == 0
    assert json.loads(result.read_text(encoding="utf-8"))["figures"] == found["figures"]


def test_every_question_of_a_skill_becomes_evidence_of_what_answers_it(shallow_folder: Path) -> None:
    one = skill_sets("choose", ["update"], people=1)[0]
    (log,) = logs_of(read_rows(skill_rounds.labelled_rows([one])))
    evidence = collect(log, Encoder.load(shallow_folder), LoopSettings().mine, None)
    assert evidence.owner is not None
    found = {query.query: {evidence.owner.memories[row].text for row in query.positives} for query in evidence.queries}
    assert found == {query.text: {one.documents[name] for name in query.relevant} for query in one.queries}
