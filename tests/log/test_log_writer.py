"""Writing events: idempotence, updates, deletions, the tie of outcomes to retrievals, odd texts, purging."""

from __future__ import annotations

import math
import uuid
from enum import Enum

import numpy as np
import pytest
import sqlalchemy as sa

from hins_memory.database.engine import open_database
from hins_memory.errors import LogError
from hins_memory.log.reader import LogReader
from hins_memory.log.writer import EventRefusedError, LogWriter
from hins_memory.types import (
    Answer,
    Deletion,
    Feedback,
    Memory,
    RankedMemory,
    Retrieval,
    Scope,
    ScopeLog,
    Turn,
    synthetic_tenant,
)

ANN, BOB = Scope(user="ann"), Scope(user="bob")


def _memory(memory_id: str = "m1", text: str = "Ann likes tea", scope: Scope = ANN, **fields: object) -> Memory:
    return Memory(memory_id, scope, "monday", text, **fields)  # type: ignore[arg-type]


def _retrieval(retrieval_id: str, *memory_ids: str, scope: Scope = ANN, **fields: object) -> Retrieval:
    results = tuple(RankedMemory(memory_id, f"text of {memory_id}", 0.5) for memory_id in memory_ids)
    return Retrieval(scope, "what does Ann like?", results, id=retrieval_id, **fields)  # type: ignore[arg-type]


def _log(engine: sa.Engine, scope: Scope = ANN) -> ScopeLog:
    return next(LogReader(engine).scope_logs([scope]))


def test_writing_the_same_events_twice_is_harmless(engine):
    events = [
        Turn(ANN, "monday", "Ann", "I like tea"),
        _memory(),
        _retrieval("r1", "m1", "m2"),
        Answer("r1", "Tea."),
        Feedback("m1", "POSITIVE"),
        Deletion(ANN, "m1"),
    ]
    writer = LogWriter(engine)
    assert writer.write(events) == []
    once = _log(engine)
    assert writer.write(events) == []
    assert writer.write([*events, *events]) == []
    assert _log(engine) == once
    assert (len(once.turns), len(once.memories), once.deleted) == (1, 0, 1)
    assert (len(once.retrievals), len(once.answers), len(once.feedback)) == (1, 1, 1)


def test_a_known_memory_is_updated_and_keeps_what_the_update_leaves_empty(engine):
    writer = LogWriter(engine)
    writer.write([Turn(ANN, "monday", "Ann", "I like tea", id="t1")])
    writer.write([_memory(speaker="Ann", turn_ids=("t1",), topic="drinks", time=1.0)])
    writer.write([Memory("m1", ANN, "", "Ann likes coffee", time=2.0)])
    assert _log(engine).memories == (
        Memory("m1", ANN, "monday", "Ann likes coffee", "Ann", ("t1",), "drinks", time=1.0),
    )
    writer.write([_memory(text="Ann likes milk", speaker="Bob", topic="food", time=3.0)])
    assert _log(engine).memories == (
        _memory(text="Ann likes milk", speaker="Bob", turn_ids=("t1",), topic="food", time=1.0),
    )


def test_the_same_memory_id_of_another_owner_is_another_memory(engine):
    LogWriter(engine).write([_memory(text="Ann's"), _memory(text="Bob's", scope=BOB), Deletion(ANN, "m1")])
    assert [memory.text for memory in _log(engine, BOB).memories] == ["Bob's"]
    assert _log(engine, ANN).memories == ()


def test_a_memory_added_again_after_deletion_lives_again_as_given(engine):
    writer = LogWriter(engine)
    # Its time lies before the deletion's: an agent may give a memory the time of a conversation long past.
    again = _memory(text="Ann likes tea again", time=5.0)
    writer.write([_memory(speaker="Ann", topic="drinks", time=1.0), Deletion(ANN, "m1", time=9.0), again])
    assert _log(engine).memories == (again,)
    assert _log(engine).deleted == 0


def test_a_deletion_without_a_tenant_leaves_the_tenants_alone(engine):
    scopes = {tenant: Scope(user="ann", tenant=tenant) for tenant in ("", "acme", synthetic_tenant(""))}
    writer = LogWriter(engine)
    writer.write([_memory(text=tenant, scope=scope) for tenant, scope in scopes.items()])
    writer.write([Deletion(ANN), Deletion(ANN, "m1")])
    living = [memory.text for log in LogReader(engine).scope_logs() for memory in log.memories]
    assert sorted(living) == sorted(["acme", synthetic_tenant("")])


def test_an_id_alone_is_refused_when_two_owners_have_it(engine):
    writer = LogWriter(engine)
    writer.write([_memory(text="Ann's"), _memory(text="Bob's", scope=BOB)])
    writer.write([_retrieval("r1", "m1"), _retrieval("r2", "m1", scope=BOB)])
    for event in (Deletion(Scope(), "m1"), Feedback("m1", "NEGATIVE")):
        with pytest.raises(EventRefusedError, match="Two owners") as refused:
            writer.write([event])
        assert refused.value.hint
    assert {memory.text for log in LogReader(engine).scope_logs() for memory in log.memories} == {"Ann's", "Bob's"}
    assert LogReader(engine).counts().feedback == 0


def test_feedback_on_a_memory_unknown_to_the_log_stays_with_the_one_owner_that_found_it(engine):
    writer = LogWriter(engine)
    writer.write([_retrieval("r1", "m1"), _retrieval("r2", "m2", scope=BOB), Feedback("m1", "POSITIVE")])
    assert [one.retrieval_id for one in _log(engine).feedback] == ["r1"]
    writer.write([_retrieval("r3", "m1", scope=BOB)])
    with pytest.raises(EventRefusedError, match="Two owners"):
        writer.write([Feedback("m1", "NEGATIVE")])


@pytest.mark.parametrize(
    ("deletion", "left"),
    [
        (Deletion(Scope(user="ann")), ["other"]),
        (Deletion(Scope(user="ann", agent="bot")), ["plain", "run", "other"]),
        (Deletion(Scope(user="ann", run="r1")), ["plain", "agent", "other"]),
        (Deletion(Scope(user="ann", run="r2"), "run"), ["plain", "agent", "other"]),
        (Deletion(Scope(), "agent"), ["plain", "run", "other"]),
        (Deletion(Scope(tenant="acme")), ["plain", "agent", "run", "other"]),
        (Deletion(Scope(user="ann"), "no such id"), ["plain", "agent", "run", "other"]),
    ],
)
def test_a_deletion_reaches_what_its_scope_gives(engine, deletion, left):
    scopes = {
        "plain": ANN,
        "agent": Scope(user="ann", agent="bot"),
        "run": Scope(user="ann", run="r1"),
        "other": BOB,
    }
    LogWriter(engine).write([_memory(name, scope=scope) for name, scope in scopes.items()] + [deletion])
    living = [memory.id for log in LogReader(engine).scope_logs() for memory in log.memories]
    assert sorted(living) == sorted(left)


def test_a_retrieval_id_used_twice_never_mixes_two_result_lists(engine):
    writer = LogWriter(engine)
    writer.write([_retrieval("r1", "a", "b")])
    writer.write([_retrieval("r1", "x", "y", "z")])
    assert [result.memory_id for result in _log(engine).retrievals[0].results] == ["a", "b"]


def test_feedback_without_a_retrieval_goes_to_the_latest_one_before_it_that_returned_the_memory(engine):
    writer = LogWriter(engine)
    writer.write([_retrieval("r1", "m1", time=9.0), _retrieval("r2", "m1", time=1.0), _retrieval("r3", "m2")])
    # A retrieval that is recorded after the feedback, even in the same batch, is not the one that was meant.
    writer.write([Feedback("m1", "POSITIVE", time=5.0), _retrieval("r4", "m1"), Feedback("m1", "NEGATIVE", time=6.0)])
    assert [(item.retrieval_id, item.polarity) for item in _log(engine).feedback] == [
        ("r2", "POSITIVE"),
        ("r4", "NEGATIVE"),
    ]


def test_searches_of_one_person_with_and_without_an_agent_may_find_the_same_memory(engine):
    anns = Scope(user="ann", agent="bot")
    writer = LogWriter(engine)
    writer.write([_memory(scope=anns), _retrieval("r1", "m1", scope=anns), _retrieval("r2", "m1")])
    writer.write([Feedback("m1", "POSITIVE")])
    assert [one.retrieval_id for one in _log(engine).feedback] == ["r2"]


def test_feedback_names_its_retrieval(engine):
    LogWriter(engine).write([_retrieval("r1", "m1"), _retrieval("r2", "m1"), Feedback("m9", "POSITIVE", "r1")])
    assert [(item.retrieval_id, item.memory_id) for item in _log(engine).feedback] == [("r1", "m9")]


def test_an_outcome_without_its_retrieval_is_given_back_and_not_kept(engine):
    lost = [Answer("unknown", "Tea."), Feedback("m1", "POSITIVE", "unknown"), Feedback("never returned", "NEGATIVE")]
    kept = Answer("r1", "Coffee.")
    assert LogWriter(engine).write([lost[0], _retrieval("r1", "m1"), kept, *lost[1:]]) == lost
    counts = LogReader(engine).counts()
    assert (counts.answers, counts.feedback) == (1, 0)


@pytest.mark.parametrize(
    ("text", "stored"),
    [
        ("😀 👩‍👩‍👧 é", None),
        ("我搬到了奥斯陆。", None),
        ("line\r\nline\ttab \u202e \ufeff", None),
        ("long " * 20_000, None),
        ("", None),
        ("'; DROP TABLE turns; -- %s :name {row}", None),
        ("a\x00b", "a\ufffdb"),
        ("lone \ud83d half", "lone \ufffd half"),
        ("two halves \ud83d\ude00", "two halves 😀"),
    ],
)
def test_any_text_is_stored(engine, text, stored):
    stored = text if stored is None else stored
    scope = Scope(user="ann&=%", agent="波特", run=text[:20])
    LogWriter(engine).write(
        [
            Turn(scope, text, text, text, id="t1"),
            Memory("m1", scope, text, text, text, ("t1",), text),
            Retrieval(scope, text, (RankedMemory("m1", text, 1.0),), id="r1"),
            Answer("r1", text),
        ]
    )
    log = _log(engine, scope)
    turn, memory, retrieval = log.turns[0], log.memories[0], log.retrievals[0]
    assert turn.scope.owner == log.scope == scope.owner
    assert {turn.text, turn.speaker, turn.conversation, memory.text, memory.topic, retrieval.query} == {stored}
    assert (retrieval.results[0].text, log.answers[0].text) == (stored, stored)


@pytest.mark.parametrize(
    "event",
    [
        Turn(ANN, "monday", "Ann", "text", id="i" * 100_000),
        Turn(Scope(user="u" * 100_000), "monday", "Ann", "text"),
        Feedback("m1", "PERHAPS"),  # type: ignore[arg-type]
        Turn(None, "monday", "Ann", "text"),  # type: ignore[arg-type]
        Turn(ANN, "monday", "Ann", "text", time="yesterday"),  # type: ignore[arg-type]
        _retrieval("r1", "i" * 100_000),
        "not an event",
    ],
)
def test_an_event_that_can_never_be_written_is_refused_with_its_whole_batch(engine, event):
    with pytest.raises(EventRefusedError):
        LogWriter(engine).write([Turn(ANN, "monday", "Ann", "fine"), event])
    assert LogReader(engine).owners() == []


def test_values_of_a_wrong_kind_are_taken_as_text(engine):
    scope = Scope(user=42)  # type: ignore[arg-type]
    results = (RankedMemory(7, "text", math.nan),)  # type: ignore[arg-type]
    LogWriter(engine).write([Turn(scope, 1, None, 2.5), Retrieval(scope, "q", results)])  # type: ignore[arg-type]
    log = _log(engine, Scope(user="42"))
    assert (log.turns[0].conversation, log.turns[0].speaker, log.turns[0].text) == ("1", "", "2.5")
    assert log.retrievals[0].results == (RankedMemory("7", "text", 0.0),)


class _Name(str, Enum):
    ANN = "ann"

    def __str__(self) -> str:
        return "not this"


@pytest.mark.parametrize(
    ("name", "text"),
    [
        (uuid.UUID(int=7), str(uuid.UUID(int=7))),
        (np.int64(5), "5"),
        (np.str_("ann"), "ann"),
        (2**80, str(2**80)),
        (1.5, "1.5"),
        (_Name.ANN, "ann"),
    ],
)
def test_names_that_are_no_str_are_taken_as_text(engine, name, text):
    scope = Scope(user=name, agent=name, run=name, tenant=name)
    results = (RankedMemory(name, "text", 0.5),)
    LogWriter(engine).write(
        [
            Turn(scope, name, name, "hello", id=name),
            Memory(name, scope, name, "Ann likes tea", name, (name,)),
            Retrieval(scope, "query", results, id=name),
            Answer(name, "Tea."),
            Feedback(name, "POSITIVE"),
        ]
    )
    (log,) = LogReader(engine).scope_logs()
    assert log.scope == Scope(user=text, agent=text, tenant=text)
    assert (log.turns[0].id, log.memories[0].id, log.memories[0].turn_ids) == (text, text, (text,))
    assert (log.retrievals[0].id, log.retrievals[0].results[0].memory_id) == (text, text)
    assert (log.answers[0].retrieval_id, log.feedback[0].memory_id) == (text, text)
    LogWriter(engine).write([Deletion(scope, name)])
    assert next(LogReader(engine).scope_logs()).memories == ()


@pytest.mark.parametrize("scope", [Scope(), Scope(None, None, None, None), Scope(user=None)])  # type: ignore[arg-type]
@pytest.mark.parametrize("memory_id", ["", None])
def test_a_deletion_of_everything_is_refused(engine, scope, memory_id):
    writer = LogWriter(engine)
    writer.write([_memory(), _memory(scope=BOB)])
    with pytest.raises(EventRefusedError, match="neither a memory nor a scope"):
        writer.write([Deletion(scope, memory_id)])
    assert LogReader(engine).counts().memories == 2


@pytest.mark.parametrize("time", [1e300, -1e300, math.nan, math.inf, 10**400, 1.7e12, np.float64(1e300), 253402300800])
@pytest.mark.slow
def test_a_time_that_no_calendar_has_is_unknown(engine, time):
    LogWriter(engine).write(
        [
            Turn(ANN, "c", "Ann", "hello", time),
            Memory("m1", ANN, "c", "text", time=time),
            Retrieval(ANN, "query", (), time=time, id="r1"),
            Answer("r1", "Tea.", time),
            Feedback("m1", "POSITIVE", "r1", time),
            Deletion(BOB, "m1", time),
        ]
    )
    log = _log(engine)
    events = (*log.turns, *log.memories, *log.retrievals, *log.answers, *log.feedback)
    assert [event.time for event in events] == [0.0] * 5


@pytest.mark.parametrize(
    ("score", "stored"),
    [
        (10**400, 0.0),
        (2**70, float(2**70)),
        (math.inf, 0.0),
        (-math.inf, 0.0),
        (1.7e308, 1.7e308),
        (5e-324, 5e-324),
        (np.float32(0.5), 0.5),
        (np.int64(3), 3.0),
        (True, 1.0),
    ],
)
def test_any_number_is_a_score(engine, score, stored):
    LogWriter(engine).write([Retrieval(ANN, "q", (RankedMemory("m1", "text", score),))])
    assert _log(engine).retrievals[0].results[0].score == stored


def test_a_negative_score_is_kept(engine):
    LogWriter(engine).write(
        [Retrieval(ANN, "q", (RankedMemory("m1", "text", -1.25), RankedMemory("m2", "text", -0.0)))]
    )
    assert [str(result.score) for result in _log(engine).retrievals[0].results] == ["-1.25", "0.0"]


def test_a_log_that_cannot_be_written_is_an_error_that_says_what_to_do(tmp_path):
    engine = open_database(f"sqlite:///{tmp_path / 'log.db'}")
    with engine.connect() as connection:
        pages = connection.exec_driver_sql("PRAGMA page_count").scalar()
        connection.exec_driver_sql(f"PRAGMA max_page_count={pages}")
    with pytest.raises(LogError, match=r"full.*Free disk space") as raised:
        LogWriter(engine).write([Turn(ANN, "monday", "Ann", "a secret " * 10_000)])
    assert not isinstance(raised.value, EventRefusedError)
    assert "secret" not in str(raised.value)
