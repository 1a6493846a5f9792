"""Encoders and BM25 on the packaged skills: a row a skill, and gains over the first."""

import json

import pytest
import skills

from hins_memory.evaluation import skill_names, skill_sets


@pytest.fixture(autouse=True)
def every_skill(monkeypatch: pytest.MonkeyPatch) -> None:
    """Here all skills are meant."""
    monkeypatch.setattr("hins_memory.evaluation.skills.skill_names", skill_names)


def test_every_skill_has_a_row_of_every_encoder(tiny_folder, tmp_path, capsys):
    pytest.importorskip("bm25s", reason="the extra bench is not installed")
    result = tmp_path / "skills.json"
    assert skills.main(["--encoders", f"bm25,{tiny_folder}", "--quick", "--json", str(result)]) == 0
    written = json.loads(result.read_text(encoding="utf-8"))
    assert str(tmp_path) not in result.read_text(encoding="utf-8")
    names = [*skill_names(), "all"]
    assert [(row["skill"], row["encoder"]) for row in written["rows"]] == [
        (name, encoder) for name in names for encoder in ("bm25", tiny_folder.name)
    ]
    first = skill_sets("choose", names[:1])[0]
    assert written["rows"][0]["questions"] == len(first.queries)
    last = written["rows"][-2:]
    assert last[1]["gain"] == pytest.approx(last[1]["ndcg10"] - last[0]["ndcg10"], abs=0.02)
    assert written["figures"][f"all_{tiny_folder.name}_recall10"] == last[1]["recall10"]
    assert names[0] in capsys.readouterr().out
    assert skills.main(["--encoders", "bm25,bm25"]) != 0
