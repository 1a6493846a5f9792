"""The table of training modes: variants, labels, deltas, the kept results, and one small run through a real Mem0."""

import json

import modes
import pytest
import torch

from hins_memory.errors import ConfigError
from hins_memory.training import TrainSettings
from hins_memory.types import Answer, Memory, RankedMemory, Retrieval, Scope, ScopeLog
from parts.datasets.locomo import load_locomo, relevant
from parts.training import modes as training_modes
from parts.training.modes import Variant, delta_bytes, labelled


def test_a_variant_is_a_mode_with_settings_of_its_own():
    assert Variant.parse("full").settings.mode == "full"
    found = Variant.parse("lora:learning_rate=8e-4,epochs=4,lora_rank=8").settings
    assert (found.mode, found.learning_rate, found.epochs, found.lora_rank) == ("lora", 8e-4, 4, 8)
    for wrong in ("lora:rate=1", "best", "lora:epochs=-1"):
        with pytest.raises(ConfigError):
            Variant.parse(wrong)


def test_the_digest_of_the_code_is_that_of_files_that_are_there(monkeypatch, tmp_path):
    found = training_modes.code_digest()
    monkeypatch.setattr(training_modes.hins_memory, "__file__", str(tmp_path / "__init__.py"))
    training_modes.code_digest.cache_clear()
    assert training_modes.code_digest() != found, "no file of the miner and the trainer was read"
    training_modes.code_digest.cache_clear()


def test_labels_take_the_place_of_answers(tiny_file):
    conversation = load_locomo(tiny_file)[0]
    scope = Scope(user=conversation.id)
    memories = [
        Memory(f"m{turn.id}", scope, conversation.id, f"{turn.speaker}: {turn.text}") for turn in conversation.turns
    ]
    results = (RankedMemory(memories[0].id, memories[0].text, 0.5),)
    asked = [Retrieval(scope, question.text, results, id=f"r{n}") for n, question in enumerate(conversation.questions)]
    log = ScopeLog(scope, memories=tuple(memories), retrievals=tuple(asked), answers=(Answer("r0", "a pear"),))
    found = labelled(log, conversation, "turns")
    assert not found.answers
    gold = relevant(conversation, "turns")
    expected = {
        (f"r{n}", f"m{turn}")
        for n, question in enumerate(conversation.questions)
        if question.category != 5
        for turn in gold[n]
    }
    assert {(one.retrieval_id, one.memory_id) for one in found.feedback} == expected
    assert {one.polarity for one in found.feedback} == {"POSITIVE"}


def test_a_delta_is_what_the_base_lacks():
    base = {"a": torch.ones(8, 4), "b": torch.zeros(3)}
    renamed = {"query.a": torch.ones(8, 4), "b": torch.zeros(3), "map": torch.eye(4)}
    assert delta_bytes(base, base, TrainSettings(mode="full")) == 0
    assert delta_bytes(base, renamed, TrainSettings(mode="full")) == 4 * 16
    changed = {"a": torch.zeros(8, 4), "b": torch.ones(3)}
    assert delta_bytes(base, changed, TrainSettings(mode="full")) == 4 * (32 + 3)
    assert delta_bytes(base, changed, TrainSettings(mode="lora", lora_rank=2)) == 4 * (2 * 12 + 3)
    tower = {f"0.sub_modules.query.{name}": tensor for name, tensor in changed.items()}
    both = tower | {f"0.sub_modules.document.{name}": tensor for name, tensor in base.items()}
    assert delta_bytes(base, both, TrainSettings(mode="tower", lora_rank=2)) == 4 * (2 * 12 + 3)


def test_shares_that_move_apart_in_two_folds_do_not_cancel_out():
    high, low = {"top_scores": [[0.6, 0.6, 0.4, 0.4]]}, {"top_scores": [[0.6, 0.4, 0.4, 0.4]]}
    assert modes.largest_shift([high, low], [[high, low], [low, high]]) == pytest.approx(1.0)
    assert modes.largest_shift([high, low], [[high, low]]) == 0.0


@pytest.mark.slow
@pytest.mark.usefixtures("shallow_stock")
def test_a_run_gives_the_table_and_a_second_one_trains_nothing_twice(tiny_file, tmp_path, monkeypatch):
    work, result = tmp_path / "work", tmp_path / "result.json"
    arguments = ["--data", str(tiny_file), "--work", str(work), "--memories", "facts", "--modes", "lora", "tower"]
    assert modes.main([*arguments, "--quick", "--json", str(result)]) == 0
    found = json.loads(result.read_text(encoding="utf-8"))
    rows = {row["variant"]: row for row in found["rows"]}
    assert list(rows) == ["lora", "tower"]
    for row in rows.values():
        assert row["gain_low"] <= row["gain"] <= row["gain_high"]
        assert row["gain"] == pytest.approx(row["trained"] - row["stock"])
        assert row["before"] == row["stock"]
        assert row["swap_stored"] == 43
        assert row["swap_seconds"] > 0
        assert 0 < row["delta_mib"] < min(10, row["folder_mib"])
    assert (rows["lora"]["swap_written"], rows["tower"]["swap_written"]) == (43, 0)
    assert found["figures"]["facts_lora_gain"] == rows["lora"]["gain"]
    wanted = ("stock", "trained", "gain", "train_seconds_max", "swap_written", "general_loss")
    assert {f"facts_tower_{name}" for name in wanted} <= found["figures"].keys()
    kept = sorted((work / "cells").iterdir())
    assert len(kept) == 4
    kept[-1].unlink()
    trained = []
    original = training_modes.train_encoder
    monkeypatch.setattr(training_modes, "train_encoder", lambda *a, **k: trained.append(1) or original(*a, **k))
    assert modes.main([*arguments, "--quick", "--json", str(result)]) == 0
    assert len(trained) == 1
    again = json.loads(result.read_text(encoding="utf-8"))["rows"]
    assert [row["trained"] for row in again] == pytest.approx([row["trained"] for row in rows.values()], abs=0.2)


@pytest.mark.slow
@pytest.mark.usefixtures("shallow_starter")
def test_a_run_from_the_starter_is_compared_with_stock_as_well(tiny_file, tmp_path):
    result = tmp_path / "result.json"
    arguments = [
        "--data",
        str(tiny_file),
        "--work",
        str(tmp_path / "work"),
        "--memories",
        "facts",
        "--no-swap",
        "--quick",
    ]
    assert modes.main([*arguments, "--modes", "query", "--base", "starter", "--json", str(result)]) == 0
    (row,) = json.loads(result.read_text(encoding="utf-8"))["rows"]
    assert row["stock"] != row["before"]
    assert row["gain"] == pytest.approx(row["trained"] - row["before"])
    assert row["gain_over_stock"] == pytest.approx(row["trained"] - row["stock"])
