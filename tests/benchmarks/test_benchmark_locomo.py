"""The LoCoMo benchmark itself: arguments, folds, and small runs through a real Mem0."""

import json

import locomo
import pytest

from hins_memory.encoders.encoder import Encoder
from hins_memory.errors import ConfigError
from parts.datasets.locomo import load_locomo
from parts.locomo.deployment import other_file

HEADLINE = {"stock_ndcg10", "hins_ndcg10", "gain_ndcg10", "gain_ci_low", "worst_fold_gain"}


def test_folds_are_by_conversation_and_follow_the_seed(tiny_file):
    data = load_locomo(tiny_file)
    folds = locomo.split_folds(data, 3, seed=1)
    assert sorted(one.id for fold in folds for one in fold.held_out) == [one.id for one in data]
    assert all(not set(fold.train) & {one.id for one in fold.held_out} for fold in folds)
    assert all(len(fold.train) + len(fold.held_out) == len(data) for fold in folds)
    assert locomo.split_folds(data, 3, seed=1) == folds
    assert any(locomo.split_folds(data, 3, seed=seed) != folds for seed in range(2, 6))
    with pytest.raises(ConfigError, match="nothing to train on"):
        locomo.split_folds(data[:1], 5, seed=0)


def test_a_conversation_is_not_scored_by_an_encoder_trained_on_it(tiny_file):
    data = load_locomo(tiny_file)
    assert other_file(data[:2], data[2:]).train == ("tiny-1", "tiny-2")
    with pytest.raises(ConfigError, match="'tiny-2' to score is 'tiny-2' of the training data"):
        other_file(data[:2], data[1:])


@pytest.mark.parametrize(
    "argv",
    [
        ["--train-data", "x.json"],
        ["--train-data", "x.json", "--eval-data", "y.json", "--data", "z.json"],
        ["--train-data", "x.json", "--eval-data", "y.json", "--protocol", "stock"],
        ["--save-encoder", "encoder"],
        ["--agent", "nobody"],
    ],
)
def test_arguments_that_contradict_each_other_are_refused(argv, capsys):
    with pytest.raises(SystemExit) as stopped:
        locomo.main(argv)
    assert stopped.value.code == 2
    assert "usage" in capsys.readouterr().err


def test_a_missing_file_is_a_sentence(tmp_path, capsys):
    assert locomo.main(["--data", str(tmp_path / "absent.json")]) == ConfigError.exit_code
    assert "There is no file" in capsys.readouterr().err


@pytest.mark.slow
def test_stock_protocol_through_a_real_mem0(tiny_file, tmp_path, capsys):
    result = tmp_path / "result.json"
    arguments = ["--protocol", "stock", "--memories", "facts", "--data", str(tiny_file), "--quick"]
    assert locomo.main([*arguments, "--json", str(result)]) == 0
    found = json.loads(result.read_text(encoding="utf-8"))
    assert set(found) == {"figures", "rows", "settings", "versions"}
    # 43 short facts a conversation: a stock encoder finds most
    assert found["figures"]["stock_recall10"] > 80
    assert found["figures"]["stock_ndcg10"] > 50
    assert found["figures"]["mem0_stock_ndcg10"] > 50
    micro = [row for row in found["rows"] if row["slice"] == "categories 1-4"]
    assert [(row["scoring"], row["queries"]) for row in micro] == [("encoder", 86), ("mem0", 86)]
    assert found["settings"]["memories"] == "facts"
    assert "LoCoMo" in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.usefixtures("shallow_stock")
def test_deployment_protocol_trains_on_captured_traffic(tiny_file, tmp_path):
    from sentence_transformers import SentenceTransformer

    result, encoder = tmp_path / "result.json", tmp_path / "encoder"
    arguments = ["--protocol", "deployment", "--folds", "2", "--data", str(tiny_file), "--quick", "--seed", "3"]
    assert locomo.main([*arguments, "--json", str(result), "--save-encoder", str(encoder)]) == 0
    found = json.loads(result.read_text(encoding="utf-8"))
    figures = found["figures"]
    assert HEADLINE | {f"mem0_{name}" for name in HEADLINE} <= set(figures)
    assert figures["gain_ndcg10"] == pytest.approx(figures["hins_ndcg10"] - figures["stock_ndcg10"])
    assert figures["gain_ci_low"] <= figures["gain_ndcg10"]
    assert figures["worst_fold_gain"] <= figures["gain_ndcg10"] + 1e-9
    assert sorted(name for names in found["settings"]["unseen"].values() for name in names) == ["tiny-1", "tiny-2"]
    assert {row["slice"] for row in found["rows"]} >= {"fold 1", "fold 2", "categories 1-4"}
    trained = SentenceTransformer(str(encoder), device="cpu")
    stock_like = SentenceTransformer(str(tmp_path / "encoder-fold2"), device="cpu")
    texts = ["What fruit tree did Ilse put in the ground?"]
    assert abs(trained.encode(texts) - stock_like.encode(texts)).max() > 1e-5


@pytest.mark.slow
@pytest.mark.usefixtures("shallow_stock")
def test_one_file_trains_and_another_is_scored(tiny_samples, tmp_path):
    for name, part in (("train", tiny_samples[:3]), ("eval", tiny_samples[3:])):
        (tmp_path / f"{name}.json").write_text(json.dumps(part), encoding="utf-8")
    result = tmp_path / "result.json"
    files = ["--train-data", str(tmp_path / "train.json"), "--eval-data", str(tmp_path / "eval.json")]
    tower = ["--mode", "tower", "--save-encoder", str(tmp_path / "tower")]
    assert locomo.main([*files, *tower, "--quick", "--json", str(result)]) == 0
    found = json.loads(result.read_text(encoding="utf-8"))
    assert set(found["figures"]) >= HEADLINE
    # the sides of a plain folder: documents as before, queries not
    trained, texts = Encoder.load(tmp_path / "tower"), ["What fruit tree did Ilse put in the ground?"]
    assert abs(trained.encode(texts) - Encoder.load().encode(texts)).max() < 1e-5
    assert abs(trained.encode(texts, role="query") - Encoder.load().encode(texts, role="query")).max() > 1e-3
    micro = [row for row in found["rows"] if row["slice"] == "categories 1-4"]
    assert {row["queries"] for row in micro} == {43}
    assert found["settings"]["protocol"] == "deployment"
