"""The cold-start benchmark's data: the questions about tastes, what is excluded, and the prior."""

import json
from dataclasses import fields
from pathlib import Path

import pytest

from hins_memory.errors import ConfigError
from hins_memory.mining import MineSettings
from hins_memory.synthesis import FIRST_NAMES, RuleSettings
from hins_memory.training import TrainSettings
from parts.datasets.locomo import load_locomo
from parts.training.cold_start import Recipe, evaluation_exclusion, preference_sets, prior_of, sample_sets, train_seed


def test_the_questions_about_tastes_are_many_and_sound() -> None:
    sets = preference_sets()
    assert sum(len(one.queries) for one in sets) >= 100
    for one in sets:
        assert len(set(one.documents.values())) == len(one.documents)
        assert len({query.text for query in one.queries}) == len(one.queries)
        for query in one.queries:
            assert query.relevant <= one.documents.keys()


def test_a_damaged_file_is_a_clear_error(tmp_path: Path) -> None:
    path = tmp_path / "preferences.jsonl"
    path.write_text(json.dumps({"person": "x"}))
    with pytest.raises(ConfigError, match="cannot be read"):
        preference_sets(path)


def test_speakers_and_wordings_of_the_evaluation_are_excluded(tiny_file: Path) -> None:
    conversations = load_locomo(tiny_file)
    exclusion = evaluation_exclusion(conversations)
    for one in conversations:
        assert not any(exclusion.allows(f"Ask {name}!") for name in one.speakers)
    long = [turn.text for one in conversations for turn in one.turns if len(turn.text.split()) > 9]
    assert long
    assert not any(exclusion.allows(text) for text in long)
    assert len([name for name in FIRST_NAMES if exclusion.allows(name)]) > 100
    names = {turn.split(":")[0] for one in sample_sets() for turn in one.documents.values()}
    assert not any(exclusion.allows(name) for name in names)


def test_the_prior_is_the_share_over_all_seeds() -> None:
    found = prior_of([{"easy": 10, "medium": 80, "hard": 10}, {"easy": 20, "medium": 70, "hard": 10}])
    assert found == {"easy": 0.15, "medium": 0.75, "hard": 0.1}


def test_every_setting_of_the_recipe_is_one_of_a_stage() -> None:
    known = {field.name for stage in (RuleSettings, MineSettings, TrainSettings) for field in fields(stage)}
    # What a stage does not know would be left out without a word, and its own default taken.
    assert {field.name for field in fields(Recipe)} - known == {"conversations", "questions", "share", "first_share"}


def test_the_first_starter_is_not_averaged_with_another_base(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--first-share 0"):
        train_seed([], evaluation_exclusion([]), Recipe(), 0, tmp_path, "some-folder")
