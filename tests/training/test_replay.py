"""Packaged questions that are trained on beside the examples: which ones, how many, and never what is scored."""

import re
from importlib import resources

import pytest
from train_world import examples

from hins_memory.errors import ConfigError, HinsError
from hins_memory.evaluation.general import load_general
from hins_memory.evaluation.skills import skill_sets
from hins_memory.training import TrainSettings, train_encoder
from hins_memory.training.fit import replay
from hins_memory.training.fit.replay import general_texts, memory_texts, with_replay


def test_memory_texts_are_of_people_and_none_is_scored():
    found = memory_texts()
    assert len(set(found)) == len(found) > 5000
    assert not any("{" in text for text in found)
    assert found == memory_texts()
    assert not set(found) & set(general_texts())
    scored = {text for one in skill_sets("choose") + skill_sets("judge") for text in one.documents.values()}
    assert not scored & set(found)


def test_examples_stay_in_front_and_the_share_is_added():
    learned = examples()
    found = with_replay(learned, 0.5, seed=3)
    assert found[: len(learned)] == learned
    added = found[len(learned) :]
    assert len(added) == round(0.5 * len(learned))
    assert {one.positive.source for one in added} == {"replay"}
    assert found == with_replay(learned, 0.5, seed=3) != with_replay(learned, 0.5, seed=4)
    assert with_replay(learned, 0, seed=3) == learned


def test_more_than_there_are_come_several_times():
    learned = examples()
    known = len(replay._packaged())
    added = with_replay(learned, 2 * known / len(learned), seed=0)[len(learned) :]
    assert len(added) == 2 * known
    assert len({one.positive.memory_id for one in added[:known]}) == known


def test_no_text_that_is_scored_is_trained_on():
    def words(text):
        return re.findall(r"\w+", text.lower())

    def runs(text):
        found = words(text)
        return {tuple(found[at : at + 7]) for at in range(len(found) - 6)}

    general = load_general()
    scored = [*general.documents.values(), *(query.text for query in general.queries)]
    known = set().union(*(runs(text) for text in scored))
    questions = {" ".join(words(query.text)) for query in general.queries}
    for one in replay._packaged():
        assert not any(runs(text) & known for text in (one.positive.query, one.positive.text)), one.positive.query
        assert " ".join(words(one.positive.query)) not in questions


@pytest.mark.slow
def test_the_manifest_counts_them(tmp_path, tiny_folder):
    settings = TrainSettings(epochs=1, min_steps=1, batch_size=8, replay=0.5)
    result = train_encoder(examples(), tmp_path / "model", base=tiny_folder, settings=settings)
    assert result.manifest.data.sources["replay"] == round(0.5 * len(examples()))
    assert result.manifest.settings["replay"] == 0.5


def test_a_bad_share_and_a_damaged_file_are_refused(tmp_path, monkeypatch):
    for bad in (-0.1, float("nan"), float("inf")):
        with pytest.raises(ConfigError, match="replay"):
            TrainSettings(replay=bad)
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "replay.jsonl").write_text('{"query": "why"}\n')
    monkeypatch.setattr(resources, "files", lambda package: tmp_path)
    replay._packaged.cache_clear()
    try:
        with pytest.raises(HinsError, match="Reinstall"):
            with_replay(examples(), 1.0, seed=0)
    finally:
        replay._packaged.cache_clear()
