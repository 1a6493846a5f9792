"""The gate's rules, each with encoders for which it must hold and must not hold."""

import copy
import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from nasty_texts import EVERYTHING, NASTY, check_page

from hins_memory.cli.tables import gate_parts
from hins_memory.encoders.encoder import Encoder
from hins_memory.encoders.manifest import DataSummary, Description
from hins_memory.encoders.sides import two_sided
from hins_memory.errors import ConfigError, GateError, NotEnoughDataError
from hins_memory.evaluation import EvalQuery, EvalSet, RankingScores, evaluate_encoder
from hins_memory.evaluation.as_served import SearchReplay
from hins_memory.evaluation.gate import GateSettings, evaluate_gate
from hins_memory.evaluation.gate_page import _Rankings, write_gate_page
from hins_memory.evaluation.gate_rules import general_rule, scope_rule, skills_rule
from hins_memory.types import Ratio

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
    encoder.version = encoder.space = "broken"
    return encoder


def general():
    """Forty questions, enough to tell a loss from chance."""
    documents = {name: text for name, (text, _) in FACTS.items()}
    asked = ("{}", "I wonder: {}", "{} Please tell me.", "One more thing. {}")
    queries = [EvalQuery(way.format(query), frozenset([name])) for name, (_, query) in FACTS.items() for way in asked]
    return EvalSet("general", documents, tuple(queries))


def rule(report, name):
    return next(rule for rule in report.rules if rule.name == name)


@pytest.mark.slow
def test_a_better_encoder_passes(stock_encoder, broken_encoder):
    report = evaluate_gate(
        stock_encoder, broken_encoder, sets(), general(), (0.1, 0.5), GateSettings(max_cutoff_shift=1e3)
    )
    assert report.passed
    assert report.failures == ()
    assert report.gain.low > 0
    assert rule(report, "held_out_gain").value == report.gain.low
    assert rule(report, "general_retrieval").value < 0
    names = ["held_out_gain", "as_served", "scopes", "general_retrieval", "skills", "cutoff_0.1", "cutoff_0.5"]
    assert [r.name for r in report.rules] == names
    assert (report.candidate, report.incumbent) == (stock_encoder.version, "broken")


def test_documents_are_embedded_once_where_the_candidate_has_the_vectors_that_are_stored(tiny_folder, monkeypatch):
    tiny = Encoder.load(tiny_folder)
    incumbent = Encoder(tiny.model, tiny.version, cache_size=0)
    other = copy.deepcopy(tiny.model)
    with torch.no_grad():
        for weight in other[0].auto_model.encoder.parameters():
            weight.add_(torch.randn_like(weight))
    tower = Encoder(two_sided(other, tiny.model), "tower", cache_size=0, space=incumbent.space)
    embedded = []
    forward = Encoder._forward

    def counting(self, texts, role, batch_size):
        embedded.extend(texts if role == "document" else ())
        return forward(self, texts, role, batch_size)

    monkeypatch.setattr(Encoder, "_forward", counting)
    general = EvalSet("general", {"g": "Mercury is the smallest planet."}, (EvalQuery("Small planet?", {"g"}),))
    report = evaluate_gate(tower, incumbent, sets(), general, (0.5,), GateSettings(min_queries=5))
    assert sorted(embedded) == sorted([*(text for text, _ in FACTS.values()), *general.documents.values()])
    # The same as one by one, which embeds the tower's documents too.
    alone = evaluate_encoder(tower, sets())
    assert report.evidence.candidate.ndcg[10].tolist() == alone.ndcg[10].tolist()
    assert report.evidence.incumbent.ndcg[10].tolist() != alone.ndcg[10].tolist()


def test_a_worse_encoder_fails_two_rules(stock_encoder, broken_encoder):
    report = evaluate_gate(broken_encoder, stock_encoder, sets(), general(), ())
    assert not report.passed
    assert [r.name for r in report.failures] == ["held_out_gain", "general_retrieval"]
    assert "is not above zero" in rule(report, "held_out_gain").sentence
    assert "forgotten" in rule(report, "general_retrieval").sentence


def test_the_same_encoder_does_not_pass_but_keeps_everything(stock_encoder):
    report = evaluate_gate(stock_encoder, stock_encoder, sets(), general(), (0.1, 0.5, 0.95))
    assert not report.passed
    assert [r.name for r in report.failures] == ["held_out_gain"]
    assert rule(report, "general_retrieval").value == 0
    assert all(rule(report, f"cutoff_{cutoff}").value == 0 for cutoff in (0.1, 0.5, 0.95))


def test_moved_scores_refuse(stock_encoder, broken_encoder):
    strict = evaluate_gate(stock_encoder, broken_encoder, sets(), None, (0.5,))
    assert not strict.passed
    assert [r.name for r in strict.failures] == ["cutoff_0.5"]


OFFSETS = [0.02 * step for step in range(1, 30)]


def shifted(stock_encoder, offset):
    """An encoder whose rankings are the stock one's and whose cosines s are (s + offset) / (1 + offset)."""
    import torch

    from hins_memory.encoders.score_offset import with_score_offset

    direction = torch.zeros(384)
    direction[7] = 1.0
    return Encoder(with_score_offset(stock_encoder.model, offset, direction), "shifted", cache_size=0)


@pytest.mark.slow
def test_a_change_that_few_queries_cannot_tell_does_not_refuse(stock_encoder):
    # The smallest offset by which more than 5% more results reach the cut-off: one or two of twenty queries get one.
    encoders = ((offset, shifted(stock_encoder, offset)) for offset in OFFSETS)
    reports = ((offset, evaluate_gate(encoder, stock_encoder, sets(2), None, (0.5,))) for offset, encoder in encoders)
    offset, few = next(found for found in reports if rule(found[1], "cutoff_0.5").value > 0.05)
    assert rule(few, "cutoff_0.5").passed
    assert "not significant with this number of queries" in rule(few, "cutoff_0.5").sentence
    many = evaluate_gate(shifted(stock_encoder, offset), stock_encoder, sets(40), None, (0.5,))
    assert rule(many, "cutoff_0.5").value == pytest.approx(rule(few, "cutoff_0.5").value)
    assert not rule(many, "cutoff_0.5").passed


def test_without_a_general_set_the_rule_is_skipped_and_says_so(stock_encoder, broken_encoder):
    report = evaluate_gate(stock_encoder, broken_encoder, sets(), None, ())
    skipped = rule(report, "general_retrieval")
    assert skipped.passed
    assert skipped.value is None
    assert "not measured" in skipped.sentence
    assert report.general == {}


def replayed(order):
    """A search that gives what an encoder finds in another order; no framework is as odd as that, but as strict."""
    return SearchReplay("odd", ("age",), 10, False, lambda group, query, found, _: [list(order(one)) for one in found])


def names_printed(report):
    return [str(cell) for cell in gate_parts(report)[1].columns[0].cells]


def test_what_is_better_alone_and_worse_as_served_is_refused(stock_encoder, broken_encoder):
    encoders, loose = (stock_encoder, broken_encoder), GateSettings(max_cutoff_shift=1e3)
    last_first = replayed(lambda found: [name for name, _ in reversed(found)])
    report = evaluate_gate(*encoders, sets(), None, (), loose, last_first)
    assert [r.name for r in report.failures] == ["as_served"]
    assert report.served_gain.high == rule(report, "as_served").value < 0
    assert report.served["candidate"]["ndcg@10"] < report.served["incumbent"]["ndcg@10"]
    assert "As odd serves it, with age beside the cosine" in rule(report, "as_served").sentence
    assert json.loads(json.dumps(report.to_dict()))["served_gain"]["difference"] < 0
    # A search that changes nothing gives the encoder's own figures.
    as_found = evaluate_gate(*encoders, sets(), None, (), loose, replayed(lambda found: [name for name, _ in found]))
    assert as_found.passed
    assert as_found.served == as_found.held_out
    assert as_found.served_gain == as_found.gain
    assert "as served, ndcg@10" in names_printed(as_found)


def test_without_a_search_to_replay_the_rule_is_skipped_and_says_so(stock_encoder, broken_encoder):
    report = evaluate_gate(stock_encoder, broken_encoder, sets(), None, ())
    assert rule(report, "as_served").value is None
    assert "no agent was given" in rule(report, "as_served").sentence
    assert report.served == {}
    assert names_printed(report)[0] == "ndcg@10"
    assert "as served, ndcg@10" not in names_printed(report)


@pytest.mark.parametrize("number", [0, 1])
def test_too_few_queries_say_how_many_are_missing(stock_encoder, number):
    with pytest.raises(NotEnoughDataError, match=f"at least 20 .* there are {10 * number} in {number} conv"):
        evaluate_gate(stock_encoder, stock_encoder, sets(number), None, ())


def test_the_report_is_json(stock_encoder, broken_encoder):
    report = evaluate_gate(stock_encoder, broken_encoder, sets(), general(), (0.1,), GateSettings(max_cutoff_shift=1e3))
    content = json.loads(json.dumps(report.to_dict()))
    assert content["passed"] is True
    assert content["rules"][0]["name"] == "held_out_gain"
    assert content["held_out"]["candidate"]["ndcg@10"] > content["held_out"]["incumbent"]["ndcg@10"]
    assert content["settings"]["confidence"] == 0.95


class Ranks:
    """Scores as if a set of queries had been ranked: a scope, how many queries, nDCG before and after."""

    def __init__(self, *scopes, noise=0.2):
        random = np.random.default_rng(0)
        groups = tuple(scope for scope, count, _, _ in scopes for _ in range(count))
        shared = random.normal(0, noise, len(groups))
        self.scores = []
        for place in (2, 3):
            means = np.array([row[place] for row in scopes for _ in range(row[1])])
            ndcg = np.clip(means + shared + random.normal(0, 0.02, len(groups)), 0, 1)
            self.scores.append(RankingScores({10: ndcg}, {10: ndcg}, ndcg, groups, groups, np.zeros((len(groups), 10))))

    def rule(self):
        before, after = self.scores
        return scope_rule(after, before)

    def skills(self, limit=0.01):
        before, after = self.scores
        return skills_rule(after, before, GateSettings(max_general_loss=limit))


def test_no_large_scope_may_get_worse_whatever_the_others_gain():
    found = Ranks(("ann", 40, 0.4, 0.8), ("bob", 40, 0.6, 0.5), ("cyd", 40, 0.3, 0.7)).rule()
    assert not found.passed
    assert (found.value, found.limit) == (1.0, 0.0)
    assert "1 of 3 scopes with at least 20 queries got worse, most bob: -" in found.sentence
    fine = Ranks(("ann", 40, 0.4, 0.8), ("bob", 40, 0.5, 0.5), ("cyd", 40, 0.3, 0.7)).rule()
    assert fine.passed
    assert "None of the 3 scopes" in fine.sentence


def test_a_small_scope_does_not_decide(monkeypatch):
    ranks = Ranks(("ann", 40, 0.4, 0.8), ("bob", 19, 0.6, 0.3))
    assert ranks.rule().passed
    none = Ranks(("bob", 19, 0.6, 0.3)).rule()
    monkeypatch.setattr("hins_memory.evaluation.gate_rules.MIN_SCOPE_QUERIES", 19)
    assert not ranks.rule().passed
    assert none.passed
    assert none.value is None
    assert "no scope was tested by itself" in none.sentence


def test_a_scope_that_loses_the_same_on_every_query_is_refused_without_a_warning(recwarn):
    groups = ("bob",) * 20
    before, after = (
        RankingScores({10: ndcg}, {10: ndcg}, ndcg, groups, groups, np.zeros((20, 10)))
        for ndcg in (np.full(20, 0.5), np.full(20, 0.25))
    )
    assert not scope_rule(after, before).passed
    assert scope_rule(before, before).passed
    assert not recwarn.list


def test_among_many_scopes_chance_refuses_nobody_and_a_real_loss_is_found():
    same = [(f"s{number}", 20, 0.5, 0.5) for number in range(300)]
    by_chance = Ranks(*same).rule()
    assert by_chance.passed, by_chance.sentence
    # 300 scopes want a p-value that a thousand samples cannot give; the rule looks closer by itself.
    found = Ranks(*same, ("lost", 30, 0.6, 0.5)).rule()
    assert found.value == 1.0
    assert "most lost" in found.sentence


def test_no_skill_may_be_lost_whatever_the_others_gain():
    ranks = Ranks(("facts", 75, 0.4, 0.8), ("preference", 75, 0.6, 0.5), ("update", 75, 0.5, 0.5))
    found = ranks.skills()
    assert not found.passed
    assert found.value < 0
    assert "Over 3 memory skills" in found.sentence
    assert "1 of them got worse, most preference: -" in found.sentence
    # What the operator allows is allowed.
    assert ranks.skills(limit=0.2).passed
    fine = Ranks(("facts", 75, 0.4, 0.8), ("preference", 75, 0.5, 0.5)).skills()
    assert fine.passed
    assert "None of them got significantly worse" in fine.sentence
    # A little of each is too much together.
    together = Ranks(*((f"skill {number}", 75, 0.5, 0.48) for number in range(14))).skills()
    assert not together.passed
    assert "so too much was forgotten" in together.sentence


def test_a_loss_that_few_questions_cannot_tell_does_not_refuse():
    before = np.array([0.5, 1.0, 0.0, 1.0] * 10)
    after = before.copy()
    after[[1, 2, 5]] = [0.0, 1.0, 0.0]
    old, new = (
        RankingScores({10: ndcg}, {10: ndcg}, ndcg, ("",) * 40, ("",) * 40, np.zeros((40, 10)))
        for ndcg in (before, after)
    )
    chance = general_rule(new, old, GateSettings())
    assert chance.passed
    assert chance.value == pytest.approx(0.025)
    assert "and this one may be chance" in chance.sentence
    many = [
        RankingScores({10: ndcg}, {10: ndcg}, ndcg, ("",) * 800, ("",) * 800, np.zeros((800, 10)))
        for ndcg in (np.tile(after, 20), np.tile(before, 20))
    ]
    assert not general_rule(*many, GateSettings()).passed


@pytest.mark.slow
def test_the_page_shows_scopes_queries_scores_and_tiers_and_escapes_what_users_wrote(
    stock_encoder, broken_encoder, tmp_path
):
    evil = "<script>alert('x')</script> & \ud800 " + "long " * 30_000
    held = sets(2)
    held[0] = EvalSet(
        "c", {**held[0].documents, "evil": evil}, (*held[0].queries, EvalQuery(evil, frozenset(["evil"])))
    )
    report = evaluate_gate(stock_encoder, broken_encoder, held, general(), (0.5,), skills=sets(1))
    data = DataSummary(examples=7, tiers={"hard": 3, "easy": 1})
    manifest = Description(data=data, ratio=Ratio(easy=0.5, medium=0.0, hard=0.5))
    path = tmp_path / "new" / "gate.html"
    write_gate_page(path, report, stock_encoder, broken_encoder, manifest)
    text = path.read_text(encoding="utf-8")
    assert "<script" not in text
    assert "&lt;script&gt;alert(" in text
    assert len(text) < 200_000
    for title in ("Verdict", "Held-out traffic, by scope", "Memory skills", "Scores", "What it was trained on"):
        assert f"<h2>{title}</h2>" in text
    assert text.count("<svg") == 4
    assert "Queries that gained most" in text
    assert "✓ " in text
    assert "the cut-off 0.5 goes from" in text
    assert "://" not in text
    worse = evaluate_gate(broken_encoder, stock_encoder, held, None, ())
    write_gate_page(path, worse, broken_encoder, stock_encoder, Description())
    assert "The manifest does not say." in path.read_text(encoding="utf-8")
    with pytest.raises(GateError, match="cannot be written"):
        write_gate_page(path / "under a file.html", worse, broken_encoder, stock_encoder, Description())


@pytest.mark.slow
def test_the_page_is_a_page_whatever_users_wrote(stock_encoder, broken_encoder, tmp_path):
    held = sets(2)
    documents = {**held[0].documents, **{f"{text}{number}": text for number, text in enumerate(NASTY)}}
    asked = [EvalQuery(text or "?", frozenset([f"{text}{number}"]), text) for number, text in enumerate(NASTY)]
    held[0] = EvalSet(EVERYTHING, documents, (*held[0].queries, *asked))
    report = evaluate_gate(stock_encoder, broken_encoder, held, None, (0.5,))
    report = replace(report, candidate=EVERYTHING, incumbent=EVERYTHING)
    data = DataSummary(examples=3, tiers={EVERYTHING: 3})
    manifest = Description(data=data, ratio=Ratio(easy=0.0, medium=0.0, hard=1.0))
    write_gate_page(tmp_path / "gate.html", report, stock_encoder, broken_encoder, manifest)
    check_page((tmp_path / "gate.html").read_text(encoding="utf-8"))


def test_a_page_ranks_as_the_evaluation_does(stock_encoder, broken_encoder, tmp_path):
    report = evaluate_gate(stock_encoder, broken_encoder, sets(2), None, ())
    pages = _Rankings(report, stock_encoder, broken_encoder)
    for row, (one, query) in enumerate(pages._queries):
        found = [name in query.relevant for name, _ in pages._ranked(1, one, query)]
        expected = report.evidence.candidate.recall[1][row]
        assert found[0] == bool(expected)


def test_what_is_kept_of_a_verdict_names_no_user(stock_encoder, broken_encoder):
    report = evaluate_gate(broken_encoder, stock_encoder, sets(), general(), ())
    verdict = report.verdict()
    assert verdict["passed"] is False
    assert (verdict["ndcg"], verdict["queries"]) == (report.held_out["candidate"]["ndcg@10"], report.gain.queries)
    assert verdict["failures"] == ["held_out_gain", "general_retrieval"]
    assert verdict["gain"] < 0
    assert not {"groups", "evidence"} & verdict.keys()


@pytest.mark.parametrize(
    "wrong",
    [
        {"min_queries": 0},
        {"held_out_share": 0.0},
        {"held_out_share": 1.0},
        {"max_general_loss": -1},
        {"max_cutoff_shift": -1},
        {"skills": ("juggling",)},
    ],
)
def test_settings_are_validated(wrong):
    with pytest.raises(ConfigError):
        GateSettings(**wrong)


def test_the_name_of_version_0_1_still_works():
    import hins_memory.evaluation.gate as gate

    with pytest.warns(DeprecationWarning, match="evaluate_gate"):
        assert gate.judge is evaluate_gate
