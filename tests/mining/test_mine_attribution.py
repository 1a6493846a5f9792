"""Answer attribution and positives."""

import re
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from mine_logs import COOKING, SAILING, memories, retrieval, sailor

from hins_memory.mining.owner.owner import build_owner
from hins_memory.mining.positives.attribution import (
    SIGNALS,
    Question,
    attribute,
    choose_sources,
    features,
    is_refusal,
    signals,
    supports,
    unretrieved_source,
)
from hins_memory.mining.positives.find import find_positives
from hins_memory.mining.settings import MineSettings
from hins_memory.types import Answer, Feedback, Memory, Scope, ScopeLog


def evidence_of(log, encoder, **options):
    skipped = Counter()
    owner = build_owner(log, encoder, skipped)
    found = find_positives(log, owner, encoder, MineSettings(**options), skipped)
    return owner, {one.query: one for one in found}, skipped


def question(encoder, text, answer):
    joint, alone = encoder.encode([f"{text} {answer}", answer], role="query")
    return Question(text, answer, joint, alone)


@pytest.mark.slow
def test_the_answer_comes_from_the_memory_that_says_it(stock_encoder):
    log = sailor()
    owner = build_owner(log, stock_encoder, Counter())
    ranked = list(range(12))
    asked = question(stock_encoder, "What is Bram's pan made of?", "cast iron")
    confidence = attribute(supports(owner, asked), ranked)
    assert owner.texts[int(confidence.argmax())] == "Bram: I only own one pan, and it is made of cast iron."
    assert np.all((confidence >= 0) & (confidence <= 1))


@pytest.mark.slow
def test_the_speaker_that_the_question_names_decides_between_twins(stock_encoder):
    scope = Scope(user="u")
    twins = memories(scope, "c", [("Ilse", "My sail is orange."), ("Bram", "My sail is orange.")])
    owner = build_owner(ScopeLog(scope, memories=tuple(twins)), stock_encoder, Counter())
    for speaker, row in (("Ilse", 0), ("Bram", 1)):
        asked = question(stock_encoder, f"Which colour is {speaker}'s sail?", "orange")
        assert attribute(supports(owner, asked), [1 - row, row]).argmax() == row


@pytest.mark.slow
def test_only_speakers_whose_letters_the_question_has_are_looked_for(stock_encoder, monkeypatch):
    scope = Scope(user="u")
    said = [(f"Speaker{number:02}", f"My sail is orange {number}.") for number in range(30)]
    owner = build_owner(ScopeLog(scope, memories=tuple(memories(scope, "c", said))), stock_encoder, Counter())
    asked = question(stock_encoder, "Which colour is Speaker07's sail?", "orange")
    patterns, search = [], re.search
    monkeypatch.setattr(re, "search", lambda pattern, text: patterns.append(pattern) or search(pattern, text))
    assert signals(owner, asked)[:, SIGNALS.index("speaker")].tolist() == [
        1.0 if row == 7 else -1.0 for row in range(30)
    ]
    assert len([one for one in patterns if "speaker" in one]) == 1


@pytest.mark.slow
def test_the_date_of_the_answer_points_to_the_memory_of_that_day(stock_encoder):
    scope = Scope(user="u")
    text = "Ilse: I went sailing yesterday."
    days = (1_680_000_000.0, 1_683_460_800.0, 1_690_000_000.0)
    stored = [Memory(f"m{n}", scope, "c", f"{text} {n}", speaker="Ilse", time=day) for n, day in enumerate(days)]
    owner = build_owner(ScopeLog(scope, memories=tuple(stored)), stock_encoder, Counter())
    asked = question(stock_encoder, "When did Ilse go sailing?", "7 May 2023")
    assert attribute(supports(owner, asked), [0, 1, 2]).argmax() == 1


@pytest.mark.parametrize(
    "answer",
    ["I don't know", "I don’t know.", "No information available.", "Not mentioned in the conversation", "", "  ", "n/a",
     "I don't have any information about that.", "I cannot find that.", "Unknown"],
)  # fmt: skip
def test_a_refusal_has_no_source(stock_encoder, answer):
    assert is_refusal(answer)
    log = sailor()
    log = replace(log, answers=tuple(Answer(one.id, answer) for one in log.retrievals))
    _, found, skipped = evidence_of(log, stock_encoder, min_confidence=0.0)
    assert not any(one.positives for one in found.values())
    assert skipped["answers that say nothing was found"] == 3


@pytest.mark.parametrize("answer", ["Möwe", "She does not know how to swim", "yes", "none of her boats leak", "2022"])
def test_an_answer_is_no_refusal(answer):
    assert not is_refusal(answer)


def test_features_rank_and_compare_with_all_memories():
    rows = features(np.array([0.5, 2.0, 1.5]), [2, 0])
    assert rows[:, 0].tolist() == [0.5, 2.0, 1.5]
    assert rows[:, 1].tolist() == pytest.approx([1 / 3, 1.0, 1 / 2])
    assert rows[:, 2].tolist() == [0.5, 0.0, 1.0]
    assert rows[:, 3].tolist() == pytest.approx([-1.5, 0.5, -0.5])


def test_further_sources_must_be_surer_than_the_first():
    confidence = np.array([0.6, 0.95, 0.92, 0.8, 0.99])
    assert choose_sources(confidence, [0, 1, 2, 3], 0.5, 3) == [1, 2]
    assert choose_sources(confidence, [0, 3], 0.5, 3) == [3]
    assert choose_sources(confidence, [0, 1, 2], 0.5, 1) == [1]
    assert choose_sources(confidence, [0], 0.7, 3) == []


def test_only_the_best_supported_memory_can_have_been_missed_and_a_clear_lead_makes_it_surer():
    assert unretrieved_source(np.array([0.5, 3.0, 1.5]), [1, 0]) is None
    assert unretrieved_source(np.array([3.0]), [0]) is None
    alone, contested = (unretrieved_source(np.array([0.5, 3.0, second]), [0, 2]) for second in (0.0, 2.9))
    assert alone is not None
    assert contested is not None
    assert alone[0] == contested[0] == 1
    assert 0 < contested[1] < alone[1] < 1
    weak = unretrieved_source(np.array([0.5, 0.6, 0.1]), [])
    assert weak is not None
    assert weak[1] < 0.1


PAN = "Bram: I only own one pan, and it is made of cast iron."


def asked_of_the_pan(returned=(), later=(), **times):
    """Return the sailor's log with one search, which returned those memories, answered with what the pan is made of."""
    log = sailor()
    stored = [replace(one, **times) if one.text == PAN else one for one in log.memories] + list(later)
    found = retrieval(
        log.scope, "What is Bram's pan made of?", [one for one in stored if one.text in returned], name="r"
    )
    return replace(log, memories=tuple(stored), retrievals=(found,), answers=(Answer("r", "cast iron"),))


@pytest.mark.parametrize("others", [0, 3])
def test_what_a_search_missed_is_a_positive(stock_encoder, others):
    log = asked_of_the_pan([one.text for one in sailor().memories if one.text != PAN][:others])
    owner, found, skipped = evidence_of(log, stock_encoder)
    (one,) = found.values()
    assert [(owner.texts[row], positive.source) for row, positive in one.positives.items()] == [(PAN, "unretrieved")]
    assert all(0.5 <= positive.confidence < 1 for positive in one.positives.values())
    assert not skipped["answers that point to no memory surely enough"]
    _, found, skipped = evidence_of(log, stock_encoder, unretrieved=False)
    assert not any(one.positives for one in found.values())


def test_what_was_stored_after_the_search_was_not_missed_by_it(stock_encoder):
    log = asked_of_the_pan()
    later = log.retrievals[0].time + 1
    _, found, _ = evidence_of(asked_of_the_pan(time=later), stock_encoder)
    assert not any(one.positives for one in found.values())
    # What the agent makes of its own answer does not hide where that came from.
    echo = Memory("echo", log.scope, "c", "Bram: Bram's pan is made of cast iron", speaker="Bram", time=later)
    owner, found, _ = evidence_of(asked_of_the_pan(later=[echo]), stock_encoder)
    (one,) = found.values()
    assert [owner.texts[row] for row in one.positives] == [PAN]
    assert "echo" in {owner.memories[row].id for row in one.plausible}


@pytest.mark.slow
def test_positives_of_the_sample_log(stock_encoder):
    owner, found, _ = evidence_of(sailor(), stock_encoder)
    texts = {query: [owner.texts[row] for row in one.positives] for query, one in found.items()}
    assert texts["What is Ilse's dinghy called?"] == [f"Ilse: {SAILING[0][1]}"]
    assert texts["Which cake did Ilse bake for her sister?"] == [f"Ilse: {COOKING[0][1]}"]
    assert texts["What is Bram's pan made of?"] == [f"Bram: {COOKING[3][1]}"]
    assert all(one.source == "answer" for query in found.values() for one in query.positives.values())


def test_feedback_is_certain_and_the_latest_word_counts(stock_encoder):
    log = sailor()
    asked = log.retrievals[0]
    liked, other = asked.results[2].memory_id, asked.results[0].memory_id
    words = (
        Feedback(liked, "NEGATIVE", asked.id, time=1.0),
        Feedback(liked, "POSITIVE", asked.id, time=2.0),
        Feedback(other, "NEGATIVE", asked.id, time=3.0),
    )
    owner, found, _ = evidence_of(replace(log, feedback=words), stock_encoder)
    one = found[asked.query]
    assert {owner.memories[row].id: value.confidence for row, value in one.positives.items()} == {liked: 1.0}
    assert [owner.memories[row].id for row in one.rejected] == [other]


def test_feedback_without_a_retrieval_is_on_the_latest_that_returned_the_memory(stock_encoder):
    log = sailor()
    memory = log.retrievals[2].results[0].memory_id
    _, found, _ = evidence_of(replace(log, feedback=(Feedback(memory, "POSITIVE"),)), stock_encoder)
    holders = [query for query, one in found.items() if any(p.source == "feedback" for p in one.positives.values())]
    assert len(holders) == 1


def test_what_was_deleted_or_changed_since_is_counted_and_left_out(stock_encoder):
    log = sailor()
    changed = replace(log.memories[0], text="Ilse: I sold the dinghy.")
    log = replace(log, memories=(changed, *log.memories[2:]))
    _, found, skipped = evidence_of(log, stock_encoder)
    assert not found["What is Ilse's dinghy called?"].positives
    assert skipped["results changed since"] == 2
    assert skipped["results deleted since or never recorded"] == 2


def test_a_repeated_query_is_one_query(stock_encoder):
    log = sailor()
    again = retrieval(log.scope, "what is  ilse's DINGHY called?", log.memories[:3], name="again")
    log = replace(log, retrievals=(*log.retrievals, again), answers=(*log.answers, Answer("again", "Möwe")))
    _, found, _ = evidence_of(log, stock_encoder)
    assert len(found) == 3
