"""Events from Mem0's arguments and results: whatever an agent passes, the functions give well-formed events."""

from __future__ import annotations

import pytest
from hins_adapter_mem0.events import result_events, result_items, retrieval_event, scope_of, search_scope
from hypothesis import given
from hypothesis import strategies as st

from hins_memory.sdk.messages import message_turns
from hins_memory.types import Memory, Scope, Turn

_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20) | st.binary(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
_MESSAGE = st.fixed_dictionaries(
    {},
    optional={
        "role": st.sampled_from(["user", "assistant", "system"]) | _JSON,
        "name": st.text(max_size=8) | _JSON,
        "content": st.text(max_size=30) | _JSON,
    },
)


def test_a_message_with_an_empty_role_and_no_name_is_malformed() -> None:
    said = [{"role": "", "content": "tea"}, {"role": "", "name": "Ann", "content": "oboe"}]
    assert [(turn.speaker, turn.text) for _, turn in message_turns(said, Scope(user="ann"))] == [("Ann", "oboe")]


@pytest.mark.slow
@given(st.lists(_MESSAGE | _JSON, max_size=6) | _JSON | _MESSAGE, _JSON)
def test_any_messages_give_well_formed_events(messages: object, result: object) -> None:
    scope = Scope(user="ann")
    turns = message_turns(messages, scope)
    for _, turn in turns:
        assert isinstance(turn.text, str)
        assert turn.text
        assert isinstance(turn.speaker, str)
        assert turn.speaker
    times = [turn.time for _, turn in turns]
    assert times == sorted(set(times))
    known = {turn.id for _, turn in turns}
    for event in result_events(result_items(result), turns, scope, {}):
        assert isinstance(event, (Turn, Memory))
        if isinstance(event, Memory):
            assert set(event.turn_ids) <= known
    retrieval_event("q", scope, result, "")


@given(st.dictionaries(st.sampled_from(["user_id", "agent_id", "run_id", "x"]), _JSON))
def test_any_filters_give_a_scope(filters: dict[str, object]) -> None:
    for scope in (scope_of(filters), search_scope(filters)):
        assert scope is None or scope.owner.key


@given(st.lists(st.text(min_size=1, max_size=5), min_size=1, max_size=8))
def test_stored_messages_come_from_one_turn_each(contents: list[str]) -> None:
    scope = Scope(user="ann")
    turns = message_turns([{"role": "user", "content": text} for text in contents], scope)
    items = [{"id": str(number), "memory": text, "event": "ADD"} for number, text in enumerate(contents)]
    events = [event for event in result_events(items, turns, scope, {}) if isinstance(event, Memory)]
    assert [event.turn_ids for event in events] == [(turn.id,) for _, turn in turns]


def test_who_an_extracted_memory_is_about() -> None:
    scope = Scope(user="ann")
    messages = [
        {"role": "user", "name": "Ann", "content": "a"},
        {"role": "assistant", "content": "b"},
        {"role": "user", "name": "Ann", "content": "c"},
    ]
    turns = message_turns(messages, scope)
    items = [{"id": "1", "memory": "x"}, {"id": "2", "memory": "y"}]
    payloads = {"1": {"attributed_to": "user"}, "2": {"attributed_to": "assistant"}}
    speakers = [event.speaker for event in result_events(items, turns, scope, payloads) if isinstance(event, Memory)]
    assert speakers == ["Ann", "assistant"]
    # Two people in one role: the role is all that is known.
    turns = message_turns([*messages, {"role": "user", "name": "Bob", "content": "d"}], scope)
    (first,) = [event for event in result_events(items[:1], turns, scope, payloads) if isinstance(event, Memory)]
    assert first.speaker == "user"


def test_ids_are_trimmed_as_mem0_trims_them() -> None:
    assert scope_of({"user_id": " ann ", "agent_id": 7, "run_id": None}) == Scope(user="ann", agent="7")
