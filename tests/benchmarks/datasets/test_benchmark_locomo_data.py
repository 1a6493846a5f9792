"""The reader of LoCoMo's format: what is kept, what is normalised, what is refused."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hins_memory.errors import ConfigError
from parts.datasets.locomo import documents, eval_set, load_locomo, relevant, sample_conversations, sample_sets


def _write(path, content) -> str:
    path.write_text(json.dumps(content), encoding="utf-8")
    return str(path)


def test_a_file_loads_whole(tiny_file):
    conversations = load_locomo(tiny_file)
    assert [one.id for one in conversations] == ["tiny-1", "tiny-2", "tiny-3", "tiny-4"]
    first = conversations[0]
    assert first.speakers == ("Ilse", "Bram")
    assert [turn.id for turn in first.turns] == [f"D{s}:{n}" for s in range(1, 7) for n in range(1, 7 if s < 3 else 9)]
    assert first.turns[0].time is not None
    assert first.turns[0].time.isoformat() == "2023-05-01T13:56:00"
    assert first.turns[8].text == "Did you see the clock museum there? [shares a photo of a tower clock]"
    assert len(first.facts) == 43
    assert (first.facts[3].speaker, first.facts[3].session, first.facts[3].evidence) == ("Bram", 1, ("D1:2",))
    trap = first.questions[-1]
    assert (trap.category, trap.answer, trap.trap) == (5, "", "A quince tree")


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        (["D1:1", "D2:2"], ("D1:1", "D2:2")),
        (["D1:1; D2:2"], ("D1:1", "D2:2")),
        (["D1:1 D1:2 D1:2"], ("D1:1", "D1:2")),
        ("D1:3, D1:4", ("D1:3", "D1:4")),
        (["D1:05"], ("D1:5",)),
        (["D:2:3"], ("D2:3",)),
        (["D"], ()),
        (["D9:19"], ()),
        ([], ()),
        (None, ()),
        ([None, 3], ()),
    ],
)
def test_evidence_keeps_what_is_certain(tiny_samples, tmp_path, raw, expected):
    tiny_samples[0]["qa"][0]["evidence"] = raw
    tiny_samples[0]["observation"]["session_1_observation"]["Ilse"][0][1] = raw
    conversation = load_locomo(_write(tmp_path / "x.json", tiny_samples))[0]
    assert conversation.questions[0].evidence == expected
    assert conversation.facts[0].evidence == expected


def test_turns_are_written_with_their_speaker_and_facts_as_they_are(tiny_file):
    conversation = load_locomo(tiny_file)[0]
    turns, facts = documents(conversation, "turns"), documents(conversation, "facts")
    assert turns[1].text == "Bram: Nice! My lemon tree on the balcony froze in January."
    assert (facts[1].text, facts[1].speaker, facts[1].evidence) == ("Slugs ate Ilse's lettuce.", "Ilse", ("D1:3",))
    assert all(document.evidence == (document.id,) for document in turns)


def test_gold_of_facts_are_those_whose_evidence_meets_the_questions(tiny_samples, tmp_path):
    tiny_samples[0]["observation"]["session_2_observation"]["Ilse"][0][1] = ["D1:1", "D2:1"]
    tiny_samples[0]["qa"][1]["evidence"] = ["D9:9"]
    conversation = load_locomo(_write(tmp_path / "x.json", tiny_samples))[0]
    found = relevant(conversation, "facts")
    texts = {fact.id: fact.text for fact in conversation.facts}
    assert {texts[name] for name in found[0]} == {"Ilse planted a quince tree.", "Ilse's ferry was cancelled."}
    assert found[1] == frozenset()
    scored = eval_set(conversation, "facts")
    assert len(scored.queries) == len(conversation.questions) - 1
    assert scored.queries[0].relevant == found[0]
    assert scored.queries[0].group == "2"


def test_numbers_as_answers_missing_ids_and_empty_sessions_load(tiny_samples, tmp_path):
    del tiny_samples[0]["sample_id"]
    tiny_samples[0]["qa"][0]["answer"] = 2022
    tiny_samples[0]["conversation"]["session_2_date_time"] = "some day"
    tiny_samples[0]["conversation"]["session_8"] = []
    conversation = load_locomo(_write(tmp_path / "x.json", tiny_samples))[0]
    assert conversation.id == "conv-1"
    assert conversation.questions[0].answer == "2022"
    assert {turn.session for turn in conversation.turns} == {1, 2, 3, 4, 5, 6}
    assert {turn.session for turn in conversation.turns if turn.time is None} == {2}


def _drop_text(samples):
    del samples[1]["conversation"]["session_1"][0]["text"]


def _repeat_turn(samples):
    samples[1]["conversation"]["session_1"][1]["dia_id"] = "D1:1"


def _no_turns(samples):
    samples[1]["conversation"] = {"speaker_a": "A", "speaker_b": "B"}


def _bad_category(samples):
    samples[1]["qa"][0]["category"] = "open"


def _not_a_mapping(samples):
    samples[1] = "a conversation"


@pytest.mark.parametrize("spoil", [_drop_text, _repeat_turn, _no_turns, _bad_category, _not_a_mapping])
def test_a_spoilt_conversation_is_named(tiny_samples, tmp_path, spoil):
    spoil(tiny_samples)
    with pytest.raises(ConfigError, match=r"Conversation 2 of .* is not in LoCoMo's format"):
        load_locomo(_write(tmp_path / "x.json", tiny_samples))


def test_unreadable_files_are_refused(tiny_samples, tmp_path):
    with pytest.raises(ConfigError, match="cannot be read"):
        load_locomo(tmp_path / "absent.json")
    (tmp_path / "broken.json").write_text("{", encoding="utf-8")
    with pytest.raises(ConfigError, match="cannot be read"):
        load_locomo(tmp_path / "broken.json")
    with pytest.raises(ConfigError, match="no list of conversations"):
        load_locomo(_write(tmp_path / "x.json", {}))
    with pytest.raises(ConfigError, match="same sample_id"):
        load_locomo(_write(tmp_path / "y.json", [tiny_samples[0], tiny_samples[0]]))


def test_facts_are_asked_of_a_file_without_any(tiny_samples, tmp_path):
    del tiny_samples[0]["observation"]
    conversation = load_locomo(_write(tmp_path / "x.json", tiny_samples))[0]
    with pytest.raises(ConfigError, match="no extracted facts"):
        documents(conversation, "facts")


@given(evidence=st.lists(st.text(max_size=20) | st.integers() | st.none(), max_size=4))
def test_no_evidence_entry_names_a_turn_that_is_not_there(tiny_path_factory, evidence):
    conversation = tiny_path_factory(evidence)
    assert set(conversation.questions[0].evidence) <= {turn.id for turn in conversation.turns}


@pytest.fixture(scope="module")
def tiny_path_factory(tmp_path_factory):
    """Return a function that loads one small conversation whose first question has the given evidence."""
    path = tmp_path_factory.mktemp("locomo") / "x.json"
    turns = [{"dia_id": f"D1:{n}", "speaker": "A", "text": "t"} for n in (1, 2, 10)]

    def load(evidence):
        question = {"question": "q", "answer": "a", "category": 1, "evidence": evidence}
        return load_locomo(_write(path, [{"conversation": {"session_1": turns}, "qa": [question]}]))[0]

    return load


def test_the_sample_is_scored_over_turns_and_over_facts():
    for one, over_turns in zip(sample_conversations(), sample_sets(), strict=True):
        turns = {turn.id for turn in one.turns}
        assert len({fact.text for fact in one.facts}) == len(one.facts) >= 100
        for fact in one.facts:
            assert fact.evidence
            assert turns.issuperset(fact.evidence)
            assert fact.speaker in fact.text
        assert [query.text for query in eval_set(one, "facts").queries] == [query.text for query in over_turns.queries]
