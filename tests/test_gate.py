"""The gate's rules, each with encoders for which it must hold and must not hold."""

import json

import pytest

from hins_memory.encoder import Encoder
from hins_memory.errors import ConfigError, NotEnoughDataError
from hins_memory.evaluate import EvalQuery, EvalSet
from hins_memory.gate import GateSettings, judge

FACTS = {
    "instrument": ("Ann practises the cello every morning.", "Which instrument does Ann play?"),
    "pet": ("Her cat Mochi sleeps on the piano.", "What animal lives with Ann?"),
    "job": ("Bob repairs bicycles in a small workshop.", "How does Bob earn his living?"),
    "food": ("Bob cannot eat anything with peanuts.", "What is Bob allergic to?"),
    "trip": ("They took the night train to Vienna in May.", "How did they travel to Austria?"),
    "garden": ("The tomatoes on the balcony were eaten by snails.", "What happened to the vegetables?"),
    "sister": ("Ann's sister is expecting a baby in October.", "Who is pregnant?"),
    "book": ("Bob is reading a novel about lighthouse keepers.", "What is Bob's book about?"),
    "sport": ("On Sundays Ann swims two kilometres in the lake.", "What exercise does Ann do at weekends?"),
    "house": ("The landlord is raising the rent by a tenth.", "Why might they move out?"),
}


def sets(number=3):
    documents = {name: text for name, (text, _) in FACTS.items()}
    queries = tuple(EvalQuery(query, frozenset([name]), name[0]) for name, (_, query) in FACTS.items())
    return [EvalSet(f"conversation {n}", documents, queries) for n in range(number)]


@pytest.fixture(scope="module")
def broken_encoder():
    """A real encoder that has forgotten most of what it knew: its upper layers are random."""
    import torch

    encoder = Encoder.load()
    torch.manual_seed(0)
    with torch.no_grad():
        for name, parameter in encoder.model.named_parameters():
            if "layer.4" in name or "layer.5" in name:
                parameter.add_(torch.randn_like(parameter) * parameter.std() * 2)
    encoder.version = "broken"
    return encoder


def rule(report, name):
    return next(rule for rule in report.rules if rule.name == name)


def test_a_better_encoder_passes(stock_encoder, broken_encoder):
    report = judge(stock_encoder, broken_encoder, sets(), sets()[0], (0.1, 0.5))
    assert report.passed
    assert report.failures == ()
    assert report.gain.low > 0
    assert rule(report, "held_out_gain").value == report.gain.low
    assert rule(report, "general_retrieval").value < 0
    assert [r.name for r in report.rules] == ["held_out_gain", "general_retrieval", "cutoff_0.1", "cutoff_0.5"]
    assert (report.candidate, report.incumbent) == (stock_encoder.version, "broken")


def test_a_worse_encoder_fails_two_rules(stock_encoder, broken_encoder):
    report = judge(broken_encoder, stock_encoder, sets(), sets()[0], ())
    assert not report.passed
    assert [r.name for r in report.failures] == ["held_out_gain", "general_retrieval"]
    assert "is not above zero" in rule(report, "held_out_gain").sentence
    assert "forgotten" in rule(report, "general_retrieval").sentence


def test_the_same_encoder_does_not_pass_but_keeps_everything(stock_encoder):
    report = judge(stock_encoder, stock_encoder, sets(), sets()[0], (0.1, 0.5, 0.95))
    assert not report.passed
    assert [r.name for r in report.failures] == ["held_out_gain"]
    assert rule(report, "general_retrieval").value == 0
    assert all(rule(report, f"cutoff_{cutoff}").value == 0 for cutoff in (0.1, 0.5, 0.95))


def test_moved_scores_warn_by_default_and_refuse_on_demand(stock_encoder, broken_encoder):
    report = judge(stock_encoder, broken_encoder, sets(), None, (0.5,))
    assert report.passed
    assert [r.name for r in report.warnings] == ["cutoff_0.5"]
    assert "warning only" in report.warnings[0].sentence
    strict = judge(stock_encoder, broken_encoder, sets(), None, (0.5,), GateSettings(cutoffs_decide=True))
    assert not strict.passed
    assert [r.name for r in strict.failures] == ["cutoff_0.5"]
    assert "warning only" not in strict.failures[0].sentence


def test_without_a_general_set_the_rule_is_skipped_and_says_so(stock_encoder, broken_encoder):
    report = judge(stock_encoder, broken_encoder, sets(), None, ())
    skipped = rule(report, "general_retrieval")
    assert skipped.passed
    assert skipped.value is None
    assert "not measured" in skipped.sentence
    assert report.general == {}


def test_by_conversation_resamples_sets(stock_encoder, broken_encoder):
    report = judge(stock_encoder, broken_encoder, sets(4), None, (), GateSettings(by_conversation=True))
    assert (report.gain.clusters, report.gain.queries) == (4, 40)
    assert "interval over conversations" in report.rules[0].sentence


@pytest.mark.parametrize("number", [0, 1])
def test_too_few_queries_say_how_many_are_missing(stock_encoder, number):
    with pytest.raises(NotEnoughDataError, match=f"at least 20 .* there are {10 * number} in {number} conv"):
        judge(stock_encoder, stock_encoder, sets(number), None, ())


def test_the_report_is_json(stock_encoder, broken_encoder):
    report = judge(stock_encoder, broken_encoder, sets(), sets()[0], (0.1,))
    content = json.loads(json.dumps(report.to_dict()))
    assert content["passed"] is True
    assert content["rules"][0]["name"] == "held_out_gain"
    assert content["held_out"]["candidate"]["ndcg@10"] > content["held_out"]["incumbent"]["ndcg@10"]
    assert content["settings"]["confidence"] == 0.95


@pytest.mark.parametrize("wrong", [{"k": 0}, {"confidence": 1.0}, {"max_general_loss": -1}, {"min_cutoff_share": 0}])
def test_settings_are_validated(wrong):
    with pytest.raises(ConfigError):
        GateSettings(**wrong)
