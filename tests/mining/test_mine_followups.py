"""Follow-up signals: a repeated or corrected question speaks against what was found first."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from mine_logs import retrieval, sailor

from hins_memory.mining import MineSettings, mine
from hins_memory.mining.owner.owner import build_owner
from hins_memory.mining.positives.evidence import QueryEvidence, ResolvedRetrieval
from hins_memory.mining.positives.find import find_positives
from hins_memory.mining.positives.followups import (
    FIRST_RANK_PRECISION,
    FOLLOWUP_RATES,
    FollowUp,
    is_correction,
    likelihood_ratios,
)
from hins_memory.types import Answer, Feedback, Positive, Retrieval, Scope, Turn

FOLLOWUP_SECONDS = "hins_memory.mining.positives.followups.FOLLOWUP_SECONDS"
QUERY = "What is Ilse's dinghy called?"


def evidence_of(log, encoder, **options):
    owner = build_owner(log, encoder, Counter())
    found = find_positives(log, owner, encoder, MineSettings(**options), Counter())
    return owner, {one.query: one for one in found}


def searched(*asked, answers=()):
    """Searches of the sailor's memories: (query, first result's place, seconds)."""
    log = sailor()
    retrievals = []
    for number, (query, first, time) in enumerate(asked):
        found = [log.memories[first], *log.memories[:first]]
        retrievals.append(retrieval(log.scope, query, found, time=1e6 + time, name=f"r{number}"))
    said = tuple(Answer(f"r{number}", text) for number, text in enumerate(answers) if text)
    return replace(log, retrievals=tuple(retrievals), answers=said)


def rejected(owner, one):
    return {owner.memories[row].id for row in one.rejected}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("No, I meant my sister's birthday", True),
        ("no I was asking about Greta", True),
        ("That's wrong.", True),
        ("That is not what I asked", True),
        ("Sorry, I meant the other boat", True),
        ("Nein, ich meinte das Boot", True),
        ("不是，我是说我的船", True),
        ("Thanks, that is right!", False),
        ("No idea what to cook tonight", False),
        ("I meant well when I bought it, and no more of that, " * 10, False),
        ("", False),
    ],
)
def test_what_a_correction_is(text, expected):
    assert is_correction(text) is expected


@pytest.mark.parametrize(
    ("second", "seconds", "expected"),
    [
        ("What's the name of Ilse's dinghy called?", 60, True),
        (QUERY, 60, True),
        (QUERY, 301, False),
        (QUERY, 1, False),
        ("What is Bram's dinghy called?", 60, False),
        ("What did Ilse bake?", 60, False),
    ],
    ids=["reworded", "same", "too late", "a retry", "another speaker", "another question"],
)
@pytest.mark.slow
def test_a_repeated_query_rejects_what_was_ranked_first(stock_encoder, monkeypatch, second, seconds, expected):
    log = searched((QUERY, 5, 0), (second, 4, seconds))
    owner, found = evidence_of(log, stock_encoder)
    assert (log.memories[5].id in rejected(owner, found[QUERY])) is expected
    monkeypatch.setattr(FOLLOWUP_SECONDS, -1.0)
    assert not rejected(owner, evidence_of(log, stock_encoder)[1][QUERY])


def test_a_correcting_turn_is_about_the_search_before_the_answer_that_it_corrects(stock_encoder):
    log = searched((QUERY, 5, 0), ("Which boat does Ilse sail?", 4, 30), ("Who is allergic?", 3, 200))
    said = (
        ("Ilse", "What is it called?", 1), ("assistant", "A catamaran.", 2),
        # recorded after the search that it caused
        ("Ilse", "No, I meant the dinghy.", 31), ("assistant", "Möwe.", 32),
        ("assistant", "No, I meant it.", 210),
    )  # fmt: skip
    turns = tuple(Turn(log.scope, "c0", speaker, text, 1e6 + time) for speaker, text, time in said)
    _, found = evidence_of(replace(log, turns=turns), stock_encoder)
    assert {query: bool(one.rejected) for query, one in found.items()} == {
        QUERY: True, "Which boat does Ilse sail?": False, "Who is allergic?": False
    }  # fmt: skip
    elsewhere = tuple(replace(turn, scope=Scope(user="ilse", run="other")) for turn in turns)
    held = tuple(replace(one, scope=Scope(user="ilse", run="here")) for one in log.retrievals)
    _, found = evidence_of(replace(log, turns=elsewhere, retrievals=held), stock_encoder)
    assert not any(one.rejected for one in found.values())


def test_the_confidence_follows_bayes_rule(stock_encoder, monkeypatch):
    log = searched((QUERY, 0, 0), ("What is the name of Ilse's old dinghy called?", 5, 60), answers=("Möwe",))
    with monkeypatch.context() as without:
        without.setattr(FOLLOWUP_SECONDS, -1.0)
        _, alone = evidence_of(log, stock_encoder, min_confidence=0.01)
    ((row, before),) = alone[QUERY].positives.items()
    owner, found = evidence_of(log, stock_encoder, min_confidence=0.01)
    wrong = 4 * (1 - before.confidence) / (4 * (1 - before.confidence) + before.confidence)
    if wrong >= 0.5:
        assert owner.rows[before.memory_id] in found[QUERY].rejected
    else:
        assert found[QUERY].positives[row].confidence == pytest.approx(1 - wrong)
    assert FIRST_RANK_PRECISION < 0.5


def judged(right, followed):
    """Searches that a person judged, `right` or not, of which some were followed up."""
    resolved, evidence, followups = [], {}, []
    for number, (is_right, again) in enumerate(zip(right, followed, strict=True)):
        one = ResolvedRetrieval(Retrieval(Scope(user="ilse"), f"q{number}", ()), f"q{number}", [0, 1], ())
        positive = Positive(one.key, "m0", "text", "feedback", 1.0)
        evidence[one.key] = QueryEvidence(one.key, {0: positive} if is_right else {}, set() if is_right else {1})
        resolved.append(one)
        followups += [FollowUp(one, "repeated", None)] if again else []
    return likelihood_ratios(followups, resolved, evidence)


def test_without_feedback_the_ratios_are_the_assumed_ones():
    assert judged([], []) == {kind: pytest.approx(wrong / right) for kind, (wrong, right) in FOLLOWUP_RATES.items()}


@pytest.mark.parametrize(("wrong_rate", "right_rate"), [(0.4, 0.1), (0.3, 0.2), (0.6, 0.05)])
def test_the_ratios_become_those_of_the_users(wrong_rate, right_rate):
    """And then, of memories believed with c and followed up, as many are wrong as Bayes' rule says."""
    rng = np.random.default_rng(0)
    right = rng.random(5_000) < 0.5
    followed = rng.random(5_000) < np.where(right, right_rate, wrong_rate)
    ratio = judged(right.tolist(), followed.tolist())["repeated"]
    assert ratio == pytest.approx(wrong_rate / right_rate, rel=0.2)
    for before in (0.2, 0.5, 0.8):
        right = rng.random(100_000) < before
        followed = rng.random(100_000) < np.where(right, right_rate, wrong_rate)
        said = ratio * (1 - before) / (ratio * (1 - before) + before)
        assert np.mean(~right[followed]) == pytest.approx(said, abs=0.04)


def test_a_follow_up_is_never_praise():
    """Users who ask again mostly when they liked the result do not make a follow-up speak for a memory."""
    right = [True, False] * 300
    assert judged(right, right)["repeated"] == 1.0


def test_feedback_stands_against_a_follow_up(stock_encoder):
    log = searched((QUERY, 5, 0), (QUERY, 4, 60))
    log = replace(log, feedback=(Feedback(log.memories[5].id, "POSITIVE", "r0"),))
    _, found = evidence_of(log, stock_encoder)
    assert not found[QUERY].rejected
    assert [positive.confidence for positive in found[QUERY].positives.values()] == [1.0]


@pytest.mark.slow
def test_a_memory_that_the_next_search_is_answered_from_was_not_wrong(stock_encoder):
    second = "What is the name of Ilse's dinghy called?"
    log = searched((QUERY, 0, 0), (second, 0, 60), answers=("", "Möwe"))
    _, found = evidence_of(log, stock_encoder)
    assert found[second].positives
    assert not found[QUERY].rejected


def test_a_rejected_memory_becomes_a_negative(stock_encoder, monkeypatch):
    monkeypatch.setattr("hins_memory.mining.negatives.pool.NEAR_POOL", 1)
    log = searched((QUERY, 11, 0), (QUERY, 0, 60), answers=("", "Möwe"))
    examples = mine([log], stock_encoder, MineSettings(negatives=2)).examples
    assert [one.positive.memory_id for one in examples] == [log.memories[0].id]
    assert log.memories[11].id in {negative.memory_id for negative in examples[0].negatives}
