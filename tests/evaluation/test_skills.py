"""The packaged skills: what each file promises, and what reading it gives."""

import json
from collections import Counter

import pytest

from hins_memory.data import packaged
from hins_memory.errors import ConfigError, HinsError
from hins_memory.evaluation import skill_names, skill_sets
from hins_memory.evaluation.skills import _read


@pytest.fixture(autouse=True)
def every_skill(monkeypatch: pytest.MonkeyPatch) -> None:
    """Here all skills are meant."""
    monkeypatch.setattr("hins_memory.evaluation.skills.skill_names", skill_names)


@pytest.mark.parametrize("skill", skill_names())
def test_a_skill_is_complete(skill):
    text = (packaged("skills") / f"{skill}.jsonl").read_text(encoding="utf-8")
    rows = [json.loads(line) for line in text.strip().split("\n")]
    assert len({row["owner"] for row in rows}) == len(rows) >= 10
    assert Counter(row["half"] for row in rows) == {"choose": len(rows) // 2, "judge": len(rows) // 2}
    assert sum(len(row["questions"]) for row in rows) >= 150
    for row in rows:
        memories, questions = row["memories"], [question for question, _ in row["questions"]]
        assert 24 <= len(memories) <= 32, row["owner"]
        assert 15 <= len(questions) <= 16, row["owner"]
        for values in (memories, questions):
            assert all(value and value == value.strip() for value in values), row["owner"]
            assert len({value.lower() for value in values}) == len(values), row["owner"]
        for question, numbers in row["questions"]:
            assert numbers, question
            assert len(set(numbers)) == len(numbers), question
            assert all(0 <= number < len(memories) for number in numbers), question
            # a question with fewer others than that has no hard distractors
            assert len(memories) - len(numbers) >= 12, question


def test_every_owner_is_a_set_of_one_half():
    choose, judge = skill_sets("choose"), skill_sets("judge")
    assert not {one.name for one in choose} & {one.name for one in judge}
    assert {query.group for one in (*choose, *judge) for query in one.queries} == set(skill_names())
    skill = skill_names()[0]
    row = json.loads((packaged("skills") / f"{skill}.jsonl").read_text(encoding="utf-8").split("\n")[0])
    first = skill_sets(row["half"], [skill])[0]
    assert first.name == f"{skill}, {row['owner']}"
    assert list(first.documents.values()) == row["memories"]
    for query, (text, numbers) in zip(first.queries, row["questions"], strict=True):
        assert query.text == text
        assert {first.documents[name] for name in query.relevant} == {row["memories"][number] for number in numbers}


def test_a_part_of_the_people_are_the_first_of_each_skill():
    few, all_of_them = skill_sets("choose", people=2), [one.name for one in skill_sets("choose")]
    assert len(few) == 2 * len(skill_names())
    assert [one.name for one in few if one.name.startswith("update, ")] == [
        name for name in all_of_them if name.startswith("update, ")
    ][:2]


def test_an_unknown_half_or_skill_is_refused():
    with pytest.raises(ConfigError, match=r"no half 'test'.*choose, judge"):
        skill_sets("test")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="no skill 'juggling'"):
        skill_sets("choose", ["juggling"])


@pytest.mark.parametrize(
    "content",
    [
        "{not json}",
        '{"owner": "A", "half": "choose"}',
        '{"owner": "A", "half": "choose", "memories": ["m"], "questions": [["q", [1]]]}',
        '{"owner": "A", "half": "choose", "memories": ["m"], "questions": [["q", [0], 2]]}',
    ],
)
def test_a_damaged_file_is_a_clear_error(tmp_path, content):
    path = tmp_path / "update.jsonl"
    path.write_text(content + "\n", encoding="utf-8")
    with pytest.raises(HinsError, match=r"update\.jsonl cannot be read") as caught:
        _read(path, "update", "choose")
    assert "Reinstall" in caught.value.hint
