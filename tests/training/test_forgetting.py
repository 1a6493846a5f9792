"""The limit on forgetting: the update is scaled down until general retrieval loses no more than is allowed."""

import pytest
import torch
from train_world import examples, quick

from hins_memory.encoders.encoder import Encoder
from hins_memory.errors import ConfigError
from hins_memory.evaluation import EvalQuery, EvalSet, evaluate_encoder, skill_sets
from hins_memory.evaluation.gate import GateSettings
from hins_memory.evaluation.general import load_general
from hins_memory.training import AuxiliaryData, TrainSettings, train_encoder
from hins_memory.training.fit.replay import general_texts, memory_texts
from hins_memory.training.postprocess.forgetting import limit_forgetting
from hins_memory.training.postprocess.weight_averaging import average_weights

pytestmark = pytest.mark.slow

WORDS = ("harbour", "violin", "granite", "pepper", "tunnel", "feather", "compass", "lantern", "saddle", "thimble")
PAIRS = [(one, other) for one in WORDS for other in WORDS if one < other]
GENERAL = EvalSet(
    "general",
    {f"{one} {other}": f"The {one} is in the {other}." for one, other in PAIRS},
    tuple(EvalQuery(f"{one} in the {other}", frozenset({f"{one} {other}"})) for one, other in PAIRS),
)


def score(encoder: Encoder) -> float:
    return evaluate_encoder(encoder, [GENERAL], ks=(10,)).mean()["ndcg@10"]


@pytest.mark.parametrize("limit", [0.0, 0.2, 1.0])
def test_the_update_is_scaled_down_as_far_as_the_limit_asks_for(tiny_folder, limit):
    base, model = Encoder.load(tiny_folder), Encoder.load(tiny_folder).model
    with torch.no_grad():
        # It has lost all word embeddings.
        model.get_parameter("0.auto_model.embeddings.word_embeddings.weight").zero_()
    lost: list[float] = []

    def trained() -> Encoder:
        now = Encoder(model, "trained", cache_size=0)
        lost.append(score(base) - score(now))
        return now

    auxiliary = AuxiliaryData(general=GENERAL, general_loss=limit)
    found = limit_forgetting(base, auxiliary, trained, lambda factor: average_weights(model, base.model, factor))
    assert found.keys() == {"general"}
    found = found["general"]
    assert found["before"] == pytest.approx(score(base), abs=1e-4)
    assert found["before"] - found["after"] == pytest.approx(lost[-1], abs=1e-4)
    assert found["kept"] == pytest.approx(0.75 ** (len(lost) - 1), abs=1e-4)
    assert lost[-1] <= limit or len(lost) == 7
    assert all(one > limit for one in lost[:-1])
    assert lost[0] > 0.2
    assert (len(lost) == 1) is (limit == 1.0)


@pytest.mark.parametrize(("mode", "rate"), [("full", 0.01), ("lora", 0.03), ("tower", 0.005), ("query", 0.01)])
def test_what_is_forgotten_is_held_to_the_limit_in_the_saved_encoder(tmp_path, tiny_folder, mode, rate):
    """At a rate that ruins the encoder: with a limit, most of what it did is taken back."""
    found = {}
    for limit in (1.0, 0.01):
        settings = quick(mode=mode, learning_rate=rate, calibrate_scores=False)
        auxiliary = AuxiliaryData(general=GENERAL, general_loss=limit)
        trained = train_encoder(
            examples(), tmp_path / f"{limit}", base=tiny_folder, settings=settings, auxiliary=auxiliary
        )
        found[limit] = trained.manifest.scores["general"]
        assert found[limit]["after"] == pytest.approx(score(Encoder.load(trained.folder)), abs=0.02)
        card = (trained.folder / "README.md").read_text(encoding="utf-8")
        assert f"| general nDCG@10, after | {found[limit]['after']:.4f} |" in card
    assert found[1.0]["kept"] == 1
    assert found[1.0]["before"] - found[1.0]["after"] > 0.05
    assert found[0.01]["kept"] < 1
    assert found[0.01]["before"] - found[0.01]["after"] < 0.02


def test_skills_are_held_to_the_same_limit_by_themselves(tiny_folder):
    """General retrieval alone would have asked for nothing."""
    base, model = Encoder.load(tiny_folder), Encoder.load(tiny_folder).model
    with torch.no_grad():
        model.get_parameter("0.auto_model.embeddings.word_embeddings.weight").zero_()
    easy = EvalSet("general", {"a": "The harbour."}, (EvalQuery("harbour", frozenset({"a"})),))
    auxiliary = AuxiliaryData(general=easy, skills=[GENERAL], general_loss=0.05)
    found = limit_forgetting(
        base,
        auxiliary,
        lambda: Encoder(model, "trained", cache_size=0),
        lambda factor: average_weights(model, base.model, factor),
    )
    assert found["general"]["before"] == found["general"]["after"] == 1
    assert found["skills"]["kept"] == found["general"]["kept"] < 1


def test_where_only_queries_are_trained_no_cut_embeds_the_documents_again(tiny_folder, monkeypatch):
    base, model = Encoder.load(tiny_folder), Encoder.load(tiny_folder).model
    with torch.no_grad():
        model.get_parameter("0.auto_model.embeddings.word_embeddings.weight").zero_()
    embedded, forward = [], Encoder._forward

    def noting(encoder, texts, role, batch_size):
        embedded.append((encoder.version, role))
        return forward(encoder, texts, role, batch_size)

    monkeypatch.setattr(Encoder, "_forward", noting)
    found = limit_forgetting(
        base,
        AuxiliaryData(general=GENERAL, general_loss=0.0),
        lambda: Encoder(model, "trained", cache_size=0, space=base.space),
        lambda factor: None,
    )
    assert found["general"]["kept"] < 0.2
    assert embedded.count((base.version, "document")) == 1
    assert ("trained", "document") not in embedded
    assert embedded.count(("trained", "query")) == 7


def test_what_training_looks_at_the_gate_does_not_judge_by():
    found = AuxiliaryData().with_packaged_sets(["update", "preference"])
    assert {query.group for one in found.skills for query in one.queries} == {"update", "preference"}
    assert set(found.kept_texts) == {*general_texts(), *memory_texts()}
    judged = {query.text for one in (load_general("judge"), *skill_sets("judge")) for query in one.queries}
    assert not judged & {query.text for one in (found.general, *found.skills) for query in one.queries}


def test_without_a_set_all_is_kept(tmp_path, tiny_folder):
    settings, auxiliary = quick(learning_rate=0.3, calibrate_scores=False), AuxiliaryData(general_loss=0.0)
    trained = train_encoder(examples(), tmp_path / "model", base=tiny_folder, settings=settings, auxiliary=auxiliary)
    assert "general" not in trained.manifest.scores


def test_one_setting_says_what_may_be_forgotten():
    """The gate's; training keeps a margin from it."""
    assert AuxiliaryData().general_loss == pytest.approx(0.009)
    assert GateSettings(max_general_loss=0.1).general_loss_in_training == pytest.approx(0.09)
    old = TrainSettings().to_dict() | {"max_general_loss": 0.002, "eval_steps": 7}
    assert TrainSettings.from_dict(old) == TrainSettings()
    with pytest.raises(ConfigError, match="general_loss"):
        AuxiliaryData(general_loss=1.5)
