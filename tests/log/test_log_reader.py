"""Reading the log: owners, streaming, order, counts, the latest entries and the export."""

from __future__ import annotations

import json

import sqlalchemy as sa

from hins_memory.log.reader import LogCounts, LogReader
from hins_memory.log.writer import LogWriter
from hins_memory.types import Answer, Deletion, Feedback, Memory, RankedMemory, Retrieval, Scope, ScopeLog, Turn

ANN, BOB = Scope(user="ann", run="r1"), Scope(user="bob", agent="a&b=c%", tenant="acme")


def _events() -> list[Turn | Memory | Retrieval | Answer | Feedback | Deletion]:
    return [
        Turn(ANN, "monday", "Ann", "second", time=2.0, id="t2"),
        Turn(Scope(user="ann", run="r2"), "sunday", "Bot", "first", time=1.0, id="t1"),
        Memory("m1", ANN, "monday", "Ann likes tea", "Ann", ("t2", "redacted"), time=3.0),
        Memory("m2", ANN, "monday", "Ann likes milk", "Ann", time=3.0),
        Deletion(ANN, "m2", time=4.0),
        Retrieval(ANN, "tea?", (RankedMemory("m1", "Ann likes tea", 0.9),), "stock", time=5.0, id="r1"),
        Retrieval(ANN, "milk?", (), time=5.5, id="r2"),
        Answer("r1", "Tea.", time=6.0),
        Feedback("m1", "POSITIVE", time=7.0),
        Turn(BOB, "monday", "Bob", "hello", time=8.0, id="t3"),
    ]


def test_an_empty_log(engine):
    reader = LogReader(engine)
    assert reader.owners() == []
    assert list(reader.scope_logs()) == []
    assert list(reader.scope_logs([ANN])) == []
    assert reader.latest(5) == []
    assert list(reader.export()) == []
    assert reader.counts() == LogCounts(0, 0, 0, 0, 0, 0, 0)


def test_an_owner_is_read_in_order_of_time_across_runs(engine):
    LogWriter(engine).write(_events())
    events = _events()
    ann, bob = LogReader(engine).scope_logs()
    assert bob == ScopeLog(BOB, turns=(events[-1],))
    assert ann == ScopeLog(
        Scope(user="ann"),
        turns=(events[1], events[0]),
        # The turn that is not in the log is not in the memory either.
        memories=(Memory("m1", ANN, "monday", "Ann likes tea", "Ann", ("t2",), time=3.0),),
        retrievals=(events[5], events[6]),
        answers=(events[7],),
        feedback=(Feedback("m1", "POSITIVE", "r1", time=7.0),),
        deleted=1,
    )


def test_owners_can_be_chosen_and_come_once_in_the_order_asked(engine):
    LogWriter(engine).write(_events())
    reader = LogReader(engine)
    assert reader.owners() == [Scope(user="ann"), BOB]
    asked = [BOB, ANN, Scope(user="ann"), Scope(user="nobody")]
    assert [log.scope for log in reader.scope_logs(asked)] == [BOB, Scope(user="ann")]
    assert list(reader.scope_logs([])) == []


def test_the_log_can_be_written_while_it_is_streamed(engine):
    writer = LogWriter(engine)
    writer.write(_events())
    logs = LogReader(engine).scope_logs()
    first = next(logs).scope
    writer.write([Turn(scope, "later", "Ann", "meanwhile") for scope in (ANN, BOB)])
    (second,) = logs
    assert {first, second.scope} == {Scope(user="ann"), BOB}
    assert "meanwhile" in [turn.text for turn in second.turns]


def test_counts(engine):
    LogWriter(engine).write(_events())
    assert LogReader(engine).counts() == LogCounts(
        turns=3, memories=1, retrievals=2, answers=1, feedback=1, owners=2, conversations=3
    )


def test_the_latest_entries_come_newest_first(engine):
    LogWriter(engine).write(_events())
    entries = LogReader(engine).latest(100)
    assert [(entry.kind, entry.text, entry.detail) for entry in entries] == [
        ("turn", "hello", "Bob"),
        ("feedback", "POSITIVE m1", "r1"),
        ("answer", "Tea.", "r1"),
        ("retrieval", "milk?", "0 results, r2"),
        ("retrieval", "tea?", "1 results, r1"),
        ("memory", "Ann likes tea", "Ann"),
        ("turn", "second", "Ann"),
        ("turn", "first", "Bot"),
    ]
    assert entries[2].scope == ANN
    assert LogReader(engine).latest(3) == entries[:3]
    assert LogReader(engine).latest(0) == []


def test_the_export_is_json_and_complete(engine):
    LogWriter(engine).write(_events())
    exported = [json.loads(json.dumps(item, allow_nan=False)) for item in LogReader(engine).export()]
    kinds = [item["type"] for item in exported]
    assert sorted(kinds) == sorted(["turn"] * 3 + ["memory"] * 2 + ["retrieval"] * 2 + ["answer", "feedback"])
    deleted = [item for item in exported if item.get("deleted_at")]
    assert [(item["id"], item["deleted_at"]) for item in deleted] == [("m2", 4.0)]
    retrieval = next(item for item in exported if item.get("id") == "r1")
    assert retrieval["results"] == [{"memory_id": "m1", "text": "Ann likes tea", "score": 0.9}]
    assert retrieval["scope"] == {"user": "ann", "agent": "", "run": "r1", "tenant": ""}


def test_stored_knows_the_texts_of_memories_however_many_are_asked_for(engine):
    LogWriter(engine).write(_events())
    asked = [f"nothing {number}" for number in range(1200)] + ["Ann likes tea", "Ann likes milk", "hello"]
    assert LogReader(engine).stored(asked) == {"Ann likes tea", "Ann likes milk"}
    assert LogReader(engine).stored([]) == set()


def _statements(engine, read):
    """How many statements reading takes."""
    counted = []

    def count(*arguments):
        counted.append(arguments[2])

    sa.event.listen(sa.Engine, "before_cursor_execute", count)
    try:
        read()
    finally:
        sa.event.remove(sa.Engine, "before_cursor_execute", count)
    return counted


def test_owners_are_looked_up_once_however_many_are_exported(engine):
    def owners(statements):
        return sum("DISTINCT" in one for one in statements)

    def turn(number):
        return Turn(Scope(user=f"u{number}"), "c", "x", "hello", time=float(number), id=f"t{number}")

    LogWriter(engine).write([turn(number) for number in range(4)])
    few = _statements(engine, lambda: list(LogReader(engine).export()))
    LogWriter(engine).write([turn(number) for number in range(4, 12)])
    many = _statements(engine, lambda: list(LogReader(engine).export()))
    assert owners(many) == owners(few) > 0
    # three times the owners, at most three times as much of all
    assert len(many) <= 3 * len(few)
    # One that is named is read without a look at the others; one that is not there is left out.
    named = _statements(engine, lambda: list(LogReader(engine).scope_logs([Scope(user="u3"), Scope(user="u99")])))
    assert owners(named) == 0
    assert [log.scope.user for log in LogReader(engine).scope_logs([Scope(user="u99"), Scope(user="u3")])] == ["u3"]
