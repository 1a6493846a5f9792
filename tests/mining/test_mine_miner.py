"""The whole miner: examples, filters, scope safety, shares, bad input, determinism."""

import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mine_logs import COOKING, PUBLIC, SAILING, memories, retrieval, sailor

from hins_memory.mining import MineSettings, mine
from hins_memory.mining.negatives.example_builder import ExampleBuilder
from hins_memory.mining.negatives.filters import guard_limit
from hins_memory.mining.owner.text import EXAMPLE_CHARS
from hins_memory.types import Answer, Feedback, Memory, Ratio, Scope, ScopeLog, Tier, Turn

RESTATED_WORDS = "hins_memory.mining.negatives.filters.RESTATED_WORDS"
NEAR_POOL = "hins_memory.mining.negatives.pool.NEAR_POOL"


def texts_of(example):
    return [example.positive.text, *(negative.text for negative in example.negatives)]


def test_examples_of_two_conversations(stock_encoder):
    log = sailor()
    result = mine([log], stock_encoder, MineSettings(ratio=Ratio(1 / 3, 1 / 3, 1 / 3)))
    assert {one.positive.query for one in result.examples} == {one.query for one in log.retrievals}
    stored = {memory.id: memory for memory in log.memories}
    for example in result.examples:
        assert len(example.negatives) == 3
        assert len(set(texts_of(example))) == 4
        positive = stored[example.positive.memory_id]
        assert example.conversation == positive.conversation
        for negative in example.negatives:
            other = stored[negative.memory_id]
            assert (negative.tier is Tier.EASY) == (other.conversation != positive.conversation)
            assert negative.tier is not Tier.HARD or other.speaker != positive.speaker
    report = result.report
    assert report.examples == len(result.examples)
    assert sum(report.negatives.values()) == 3 * report.examples
    assert report.positives == {"answer": report.examples}
    assert report.samples["easy"]
    json.dumps(report.to_dict(), allow_nan=False)


@pytest.mark.slow
def test_the_guard_keeps_every_negative_under_its_share_of_the_positive(stock_encoder):
    result = mine([sailor()], stock_encoder, MineSettings(guard=0.8), PUBLIC)
    assert result.examples
    for example in result.examples:
        query, positive = stock_encoder.encode([example.positive.query, example.positive.text])
        for negative in example.negatives:
            assert negative.score < 0.8 * float(query @ positive) + 1e-5
            assert negative.score == pytest.approx(float(query @ stock_encoder.encode([negative.text])[0]), abs=1e-5)


@given(st.floats(-1, 1), st.floats(0.01, 1))
def test_the_guard_is_never_above_the_positive(score, guard):
    assert guard_limit(score, guard) <= score
    assert guard_limit(score, None) == float("inf")


def test_a_restated_fact_is_no_negative(stock_encoder, monkeypatch):
    log = sailor()
    pan = next(memory for memory in log.memories if "cast iron" in memory.text)
    again = (
        replace(pan, id="again", text="Bram: As I said, my one and only pan is of cast iron.", time=9e5),
        replace(pan, id="other", conversation="c1", time=9e5),
    )
    log = replace(log, memories=(*log.memories, *again))
    monkeypatch.setattr(RESTATED_WORDS, 1.1)
    monkeypatch.setattr(NEAR_POOL, 14)
    loose = MineSettings(guard=None, max_plausible=1.0, duplicate_similarity=1.0, negatives=14)
    for options, expected in ((loose, True), (replace(loose, max_plausible=0.1, duplicate_similarity=0.9), False)):
        chosen = {
            negative.memory_id
            for example in mine([log], stock_encoder, options).examples
            if example.positive.memory_id == pan.id
            for negative in example.negatives
        }
        assert chosen
        assert ("again" in chosen) is expected
        assert "other" not in chosen


def test_a_fact_restated_later_in_other_words_is_no_negative(stock_encoder, monkeypatch):
    """Without an answer to compare with: the speaker and the rare words tell."""
    log = sailor()
    asked = log.retrievals[2]
    pan = next(memory for memory in log.memories if "cast iron" in memory.text)
    told = "Bram: Did I tell you that the one pan I have is cast iron?"
    again = replace(pan, id="again", conversation="c1", text=told, time=9e5)
    other = replace(pan, id="other", speaker="Ilse", text="Ilse: My own pan is not made of cast iron.", time=9e5)
    log = replace(log, memories=(*log.memories, again, other), answers=())
    log = replace(log, feedback=(Feedback(pan.id, "POSITIVE", asked.id),))
    monkeypatch.setattr(NEAR_POOL, 14)
    options = MineSettings(ratio=Ratio(1 / 3, 1 / 3, 1 / 3), guard=None, duplicate_similarity=1.0, negatives=14)
    for share, expected in ((1.1, {"again", "other"}), (0.7, {"other"})):
        monkeypatch.setattr(RESTATED_WORDS, share)
        (example,) = mine([log], stock_encoder, options).examples
        assert {one.memory_id for one in example.negatives} & {"again", "other"} == expected


def test_other_positives_of_a_query_are_no_negatives(stock_encoder):
    log = sailor()
    asked = log.retrievals[0]
    liked = [result.memory_id for result in asked.results[:4]]
    log = replace(log, feedback=tuple(Feedback(one, "POSITIVE", asked.id) for one in liked))
    examples = [one for one in mine([log], stock_encoder).examples if one.positive.query == asked.query]
    assert {one.positive.memory_id for one in examples} >= set(liked)
    assert not {negative.memory_id for one in examples for negative in one.negatives} & set(liked)


def test_what_feedback_rejected_is_a_negative_before_the_nearest(stock_encoder, monkeypatch):
    monkeypatch.setattr(NEAR_POOL, 1)
    log = sailor()
    asked = log.retrievals[2]
    far = next(memory for memory in log.memories if memory.conversation == "c1")
    log = replace(log, feedback=(Feedback(far.id, "NEGATIVE", asked.id),))
    only_easy = MineSettings(ratio=Ratio(1, 0, 0), negatives=1)
    example = next(one for one in mine([log], stock_encoder, only_easy).examples if one.positive.query == asked.query)
    assert [negative.memory_id for negative in example.negatives] == [far.id]


def test_an_owner_of_one_conversation_gets_easy_ones_from_public_texts(stock_encoder):
    log = sailor(conversations=1)
    without = mine([log], stock_encoder)
    assert {negative.tier for one in without.examples for negative in one.negatives} <= {Tier.MEDIUM, Tier.HARD}
    result = mine([log], stock_encoder, public=PUBLIC)
    easy = [negative for one in result.examples for negative in one.negatives if negative.tier is Tier.EASY]
    assert easy
    assert {negative.text for negative in easy} <= set(PUBLIC)
    assert not any(negative.memory_id for negative in easy)


@pytest.mark.slow
def test_shared_scopes_lend_each_other_easy_ones_whoever_comes_first(stock_encoder):
    logs = [sailor("ann", 1), other_owner("bob")]
    result = mine(logs, stock_encoder, MineSettings(share_scopes=True, max_owner_share=1.0))
    lent = {
        (example.scope.user, negative.memory_id.split("&")[0].split("/")[0])
        for example in result.examples
        for negative in example.negatives
        if negative.tier is Tier.EASY
    }
    assert lent == {("ann", "user=bob"), ("bob", "user=ann")}


def other_owner(user):
    scope = Scope(user=user)
    talk = (
        ("Noor", "I repair accordions in a cellar in Ghent."),
        ("Piet", "My bicycle has a red saddle."),
        *COOKING[:2],
    )
    stored = memories(scope, "d0", talk)
    asked = retrieval(scope, "What does Noor repair?", stored)
    return ScopeLog(scope, memories=tuple(stored), retrievals=(asked,), answers=(Answer(asked.id, "accordions"),))


WORDS = ("boat", "cake", "garden", "violin")


@st.composite
def random_logs(draw):
    """Owners whose every text carries their own mark, with random conversations, searches, answers and feedback."""
    logs = []
    for number in range(draw(st.integers(1, 4))):
        mark, scope = f"mark{number}x", Scope(user=f"u{number % 3}", agent=str(number))
        stored = []
        for place in range(draw(st.integers(0, 7))):
            word, conversation = draw(st.sampled_from(WORDS)), draw(st.sampled_from(["a", "b"]))
            speaker = draw(st.sampled_from(["Ann", "Bob", ""]))
            text = f"The {word} of {mark}"
            stored.append(Memory(f"m{place}", scope, conversation, text, speaker, time=float(place)))
        retrievals, answers, feedback = [], [], []
        for place in range(draw(st.integers(0, 3)) if stored else 0):
            word = draw(st.sampled_from(WORDS))
            asked = retrieval(
                scope, f"Where is the {word}?", stored[: draw(st.integers(0, 5))], name=f"{number}-{place}"
            )
            retrievals.append(asked)
            answers.append(Answer(asked.id, f"the {word} of {mark}"))
            for result in asked.results[:2]:
                feedback.append(Feedback(result.memory_id, draw(st.sampled_from(["POSITIVE", "NEGATIVE"])), asked.id))
        logs.append(ScopeLog(scope, (), tuple(stored), tuple(retrievals), tuple(answers), tuple(feedback)))
    return logs


@pytest.mark.slow
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(random_logs(), st.booleans())
def test_no_text_of_one_owner_is_in_another_owners_example(stock_encoder, logs, with_public):
    options = MineSettings(min_confidence=0.0, guard=None, max_plausible=1.0)
    examples = mine(logs, stock_encoder, options, PUBLIC if with_public else None).examples
    marks = {log.scope.owner: f"mark{number}x" for number, log in enumerate(logs)}
    for example in examples:
        for text in texts_of(example):
            assert marks[example.scope.owner] in text or (with_public and text in PUBLIC)
    if any(one.polarity == "POSITIVE" for log in logs for one in log.feedback[-1:]) and with_public:
        assert examples


@pytest.mark.slow
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(random_logs(), st.sampled_from([0.3, 0.4, 0.5]))
def test_no_owner_makes_up_more_than_its_share(stock_encoder, logs, share):
    options = MineSettings(min_confidence=0.0, guard=None, max_plausible=1.0, max_owner_share=share)
    result = mine(logs, stock_encoder, options, PUBLIC)
    counts = [sum(one.scope == log.scope for one in result.examples) for log in logs]
    counts = [count for count in counts if count]
    if len(counts) * share > 1:
        assert max(counts) <= share * sum(counts)
    elif counts and max(counts) > share * sum(counts):
        assert any("share" in note or "held" in note for note in result.report.notes)


def test_the_same_seed_gives_the_same_examples_in_any_order_of_owners(stock_encoder):
    logs = [sailor("ann"), sailor("bea"), other_owner("cem")]
    options = MineSettings(max_owner_share=1.0)
    first = mine(logs, stock_encoder, options, PUBLIC).examples
    assert first == mine(logs, stock_encoder, options, PUBLIC).examples
    turned = mine(logs[::-1], stock_encoder, options, PUBLIC).examples
    assert sorted(map(repr, first)) == sorted(map(repr, turned))
    seeds = {repr(mine(logs, stock_encoder, replace(options, seed=seed), PUBLIC).examples) for seed in range(4)}
    assert len(seeds) > 1


@pytest.mark.parametrize(
    "log",
    [
        ScopeLog(Scope(user="u")),
        ScopeLog(Scope(user="u"), memories=tuple(memories(Scope(user="u"), "c", SAILING))),
        replace(sailor(), answers=()),
        replace(sailor(), memories=(), deleted=14),
        replace(sailor(), retrievals=()),
        ScopeLog(Scope(), turns=(Turn(Scope(), "c", "", ""),), memories=(Memory("m", Scope(), "", "", ""),)),
    ],
    ids=["empty", "no retrievals", "no answers", "all deleted", "answers to nothing", "empty texts"],
)
def test_a_log_without_positives_gives_a_report_that_says_why(stock_encoder, log):
    result = mine([log], stock_encoder, public=PUBLIC)
    assert result.examples == []
    assert result.report.examples == 0
    assert result.report.ratio is not None
    assert result.report.ratio.source == "prior"
    if log.memories or log.retrievals:
        assert result.report.skipped
    json.dumps(result.report.to_dict(), allow_nan=False)


def test_no_owner_at_all(stock_encoder):
    assert mine([], stock_encoder).report.owners == 0


@pytest.mark.slow
def test_odd_texts_are_mined_like_any_other(stock_encoder):
    scope = Scope(user="用户&=%", tenant="\ud800")
    talk = (
        ("小明", "我的猫叫雪球，它喜欢喝牛奶。"),
        ("小红", "我每天早上骑自行车上班。" + "很长" * 25_000),
        ("小明", "🚲🔥 lone \ud83d surrogate \x00 nul"),
        ("小红", "The cat sleeps on the blue sofa all day."),
    )
    stored = memories(scope, "c", talk)
    asked = retrieval(scope, "小明的猫叫什么？", stored)
    log = ScopeLog(scope, memories=tuple(stored), retrievals=(asked,), answers=(Answer(asked.id, "雪球"),))
    result = mine([log], stock_encoder, MineSettings(min_confidence=0.01, guard=None), PUBLIC)
    assert result.examples
    assert result.examples[0].positive.memory_id == stored[0].id
    for example in result.examples:
        assert all(len(text) <= EXAMPLE_CHARS and text.encode() for text in texts_of(example))


def test_scores_are_finite_and_near_ones_come_first(stock_encoder, monkeypatch):
    monkeypatch.setattr(NEAR_POOL, 1)
    result = mine([sailor()], stock_encoder, MineSettings(ratio=Ratio(0, 1, 0), negatives=2))
    for example in result.examples:
        scores = [negative.score for negative in example.negatives]
        assert np.isfinite(scores).all()
        assert scores == sorted(scores, reverse=True)


def test_an_error_in_choosing_negatives_is_not_said_to_be_of_the_store(stock_encoder, monkeypatch):
    def broken(self, *arguments):
        yield from ()
        raise OSError("the vectors cannot be read")

    monkeypatch.setattr(ExampleBuilder, "examples", broken)
    with pytest.raises(OSError, match="the vectors cannot be read"):
        mine([sailor()], stock_encoder)
