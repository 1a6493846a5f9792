"""Purging a person from the log: what goes, what stays, and that no trace is left in the database's files."""

from __future__ import annotations

import sqlite3
import threading
from contextlib import closing
from pathlib import Path
from random import Random

import pytest
import sqlalchemy as sa

from hins_memory.database.engine import open_database, reading
from hins_memory.database.tables import answers, feedback, memories, retrieval_results, retrievals, turns
from hins_memory.errors import LogError
from hins_memory.log.purge import purge_count, purge_rows, tenants_of
from hins_memory.log.reader import LogReader
from hins_memory.log.writer import LogWriter
from hins_memory.types import Answer, Event, Feedback, Memory, RankedMemory, Retrieval, Scope, ScopeLog, Turn

ANN, BOB, BOT = Scope(user="ann"), Scope(user="bob"), Scope(agent="bot")
PASSPORT = "The number of Ann's passport is 7719"


def _memory(memory_id: str = "m1", text: str = "Ann likes tea", scope: Scope = ANN) -> Memory:
    return Memory(memory_id, scope, "monday", text)


def _retrieval(retrieval_id: str, *memory_ids: str, scope: Scope = ANN) -> Retrieval:
    results = tuple(RankedMemory(memory_id, f"text of {memory_id}", 0.5) for memory_id in memory_ids)
    return Retrieval(scope, "what does Ann like?", results, id=retrieval_id)


def _found(retrieval_id: str, scope: Scope, *results: tuple[str, str]) -> Retrieval:
    return Retrieval(scope, "which number?", tuple(RankedMemory(*one, 0.5) for one in results), id=retrieval_id)


def _log(engine: sa.Engine, scope: Scope = ANN) -> ScopeLog:
    return next(LogReader(engine).scope_logs([scope]))


def _rows_of(engine: sa.Engine) -> dict[str, int]:
    tables = (turns, memories, retrievals, retrieval_results, answers, feedback)
    with engine.connect() as connection:
        count = sa.select(sa.func.count())
        return {table.name: connection.execute(count.select_from(table)).scalar_one() for table in tables}


def _traffic(scope: Scope, name: str) -> list[object]:
    return [
        Turn(scope, "monday", name, f"{name} turn"),
        _memory(f"{name}-1", f"{name} one", scope),
        _memory("shared-id", f"{name} shared", scope),
        _retrieval(f"{name}-r", f"{name}-1", "shared-id", scope=scope),
        Answer(f"{name}-r", f"{name} answer"),
        Feedback(f"{name}-1", "POSITIVE"),
    ]


def test_a_purge_removes_every_row_of_a_user_and_nothing_else(engine):
    ann_elsewhere = Scope(user="ann", agent="bot", tenant="acme", run="r")
    writer = LogWriter(engine)
    writer.write(_traffic(BOB, "bob"))  # type: ignore[arg-type]
    before, rows = _log(engine, BOB), _rows_of(engine)
    writer.write([*_traffic(ANN, "ann"), *_traffic(ann_elsewhere, "ann2")])  # type: ignore[list-item]
    removed = writer.purge("ann")
    assert removed == {
        "answers": 2, "feedback": 2, "retrieval_results": 4, "retrievals": 2, "memories": 4, "turns": 2,
    }  # fmt: skip
    assert LogReader(engine).owners() == [BOB]
    assert _log(engine, BOB) == before
    assert _rows_of(engine) == rows
    assert writer.purge("ann") == dict.fromkeys(removed, 0)


def test_a_purge_reaches_what_others_retrieved_of_the_user_and_what_came_of_it(engine):
    writer = LogWriter(engine)
    writer.write([_memory("secret", PASSPORT), _memory("bobs", "Bob's", BOB)])
    writer.write([_retrieval("r1", "secret", "bobs", scope=BOB), _retrieval("r2", "bobs", scope=BOB)])
    writer.write([Answer("r1", f"{PASSPORT}."), Answer("r2", "Bob's"), Feedback("secret", "NEGATIVE", "r1")])
    writer.write([Feedback("bobs", "POSITIVE", "r1")])
    writer.purge("ann")
    log = _log(engine, BOB)
    assert [[result.memory_id for result in one.results] for one in log.retrievals] == [["bobs"], ["bobs"]]
    assert [answer.text for answer in log.answers] == ["Bob's"]
    assert [one.memory_id for one in log.feedback] == ["bobs"]


def test_a_search_without_a_user_that_returned_a_purged_memory_goes_whole(engine):
    writer = LogWriter(engine)
    writer.write([_memory("secret", PASSPORT), _memory("bobs", "Bob's", BOB)])
    for name, found in (("r1", ("secret", "bobs")), ("r2", ("bobs",))):
        asked = [
            _retrieval(name, *found, scope=BOT),
            Answer(name, f"answer {name}"),
            Feedback("bobs", "POSITIVE", name),
        ]
        writer.write(asked)
    writer.purge("ann")
    log = _log(engine, BOT)
    assert [one.id for one in log.retrievals] == ["r2"]
    assert [one.text for one in log.answers] == ["answer r2"]
    assert len(log.feedback) == 1


def test_a_memory_that_was_never_recorded_is_known_by_its_owners_searches(engine):
    """Whoever attaches to a store that is there has searches, and no record of how its memories came."""
    writer = LogWriter(engine)
    writer.write([_retrieval("own", "old-1", "old-2"), _retrieval("bobs", "old-2", "old-3", scope=BOB)])
    writer.write([_retrieval("all", "old-1", scope=BOT), _retrieval("other", "old-2", "old-3", scope=BOT)])
    writer.purge("ann")
    assert [one.id for one in _log(engine, BOT).retrievals] == ["other"]
    # returned to Bob as well, so that nobody can say that it was Ann's
    assert [one.memory_id for one in _log(engine, BOB).retrievals[0].results] == ["old-2", "old-3"]


def test_the_answer_of_a_turn_goes_from_all_its_searches(engine):
    writer = LogWriter(engine)
    writer.write([_memory("secret", PASSPORT)])
    writer.write([_retrieval("r1", "secret"), _retrieval("r2", scope=BOT), _retrieval("r3", scope=BOB)])
    writer.write([Answer(name, f"You asked: {PASSPORT}.", time=100.0 + at) for at, name in enumerate(("r1", "r2"))])
    writer.write([Answer("r3", f"You asked: {PASSPORT}.", time=100.5), Answer("r3", "I don't know.", time=100.0)])
    writer.write([Answer("r1", "I don't know.", time=100.0), Answer("r2", "Something else.", time=100.0)])
    writer.purge("ann")
    assert [one.text for one in _log(engine, BOT).answers] == ["Something else."]
    assert [one.text for one in _log(engine, BOB).answers] == ["I don't know."]


def test_an_equal_id_of_somebody_else_is_told_apart_by_the_text(engine):
    writer = LogWriter(engine)
    writer.write([_memory("1", "Ann's first"), _memory("1", "Bob's first", BOB)])
    writer.write([_found("r1", BOT, ("1", "Bob's first")), _found("r2", BOT, ("1", "Ann's before an update"))])
    writer.write([_found("r3", BOB, ("1", "Bob's before an update")), _found("r4", BOT, ("new", "Ann's first"))])
    writer.purge("ann")
    assert [one.id for one in _log(engine, BOT).retrievals] == ["r1"]
    assert len(_log(engine, BOB).retrievals[0].results) == 1


def test_equal_names_of_two_tenants_are_two_people(engine):
    acme, globex = Scope(user="ann", tenant="acme"), Scope(user="ann", tenant="globex")
    writer = LogWriter(engine)
    for scope in (acme, globex, ANN):
        seen = Scope(tenant=scope.tenant, agent="bot")
        writer.write([*_traffic(scope, f"of {scope.tenant}")])
        writer.write([_retrieval(f"seen {scope.tenant}", f"of {scope.tenant}-1", scope=seen)])
    assert tenants_of(engine, "ann") == ["", "acme", "globex"]
    before = {scope: _log(engine, scope) for scope in LogReader(engine).owners()}
    purged = purge_rows(engine, "ann", "acme")
    assert purged.removed["retrievals"] == 2
    assert purged.conversations == ((acme, "monday"),)
    left = {scope: _log(engine, scope) for scope in LogReader(engine).owners()}
    assert left == {scope: log for scope, log in before.items() if scope.tenant != "acme"}
    assert tenants_of(engine, "ann") == ["", "globex"]
    writer.purge("ann", "")
    assert LogReader(engine).owners() == [Scope(agent="bot", tenant="globex"), globex]


def test_purges_are_counted_when_they_removed_something(engine):
    assert purge_count(engine) == 0
    LogWriter(engine).write([_memory()])
    for _ in range(2):
        LogWriter(engine).purge("ann")
    assert purge_count(engine) == 1
    LogWriter(engine).write([_memory()])
    LogWriter(engine).purge("ann")
    assert purge_count(engine) == 2


@pytest.mark.slow
def test_a_purge_leaves_no_text_in_the_files(tmp_path: Path):
    engine = open_database(f"sqlite:///{tmp_path / 'log.db'}")
    writer = LogWriter(engine)
    writer.write([Turn(BOB, "monday", "Bob", "harmless")])
    for number in range(50):
        writer.write([Turn(ANN, "monday", "Ann", f"zanzibar {number} " * 200), _memory("m1", f"zanzibar {number}")])
    writer.write([_retrieval("r1", "m1"), Answer("r1", "zanzibar")])
    writer.purge("ann")
    content = b"".join(path.read_bytes() for path in tmp_path.iterdir())
    assert b"harmless" in content
    assert b"zanzibar" not in content


def test_a_purge_needs_a_user(engine):
    with pytest.raises(LogError, match="No user"):
        LogWriter(engine).purge("")


def _bytes(folder: Path) -> bytes:
    return b"".join(path.read_bytes() for path in folder.rglob("*") if path.is_file())


def test_no_copy_is_left_in_the_unused_parts_of_pages(tmp_path: Path):
    """SQLite's secure_delete zeroes what is deleted, but not what moving it from page to page left behind."""
    engine = open_database(f"sqlite:///{tmp_path / 'log.db'}")
    writer, random = LogWriter(engine), Random(5)
    for batch in range(40):
        events: list[Event] = []
        for number in range(20):
            scope, word = random.choice([(ANN, "zanzibar"), (BOB, "harmless")])
            text = f"{word} {random.random()} " * random.choice([1, 3, 10, 50, 200])
            events.append(_memory(f"{word}{random.randrange(300)}", text, scope))
            events.append(Turn(scope, word, word, text, id=f"{word}-{batch}-{number}"))
        writer.write(events)
    writer.purge("ann")
    assert b"harmless" in _bytes(tmp_path)
    assert b"zanzibar" not in _bytes(tmp_path)


def test_a_reader_makes_a_purge_fail_with_what_to_do_until_it_has_ended(tmp_path: Path):
    engine = open_database(f"sqlite:///{tmp_path / 'log.db'}")
    writer = LogWriter(engine)
    writer.write([_memory(text="zanzibar " * 100)])
    with closing(sqlite3.connect(tmp_path / "log.db", isolation_level=None)) as other:
        other.execute("BEGIN")
        other.execute("SELECT count(*) FROM memories").fetchall()
        with pytest.raises(LogError, match=r"rows are removed, but copies .* run the purge again"):
            writer.purge("ann", wait=0.3)
        assert LogReader(engine).counts().memories == 0
        assert b"zanzibar" in _bytes(tmp_path)
    assert not any(writer.purge("ann").values())
    assert b"zanzibar" not in _bytes(tmp_path)
    with engine.connect() as connection:
        assert connection.exec_driver_sql("PRAGMA busy_timeout").scalar() > 1000


def test_a_purge_waits_for_a_reader_that_ends_in_time(tmp_path: Path):
    engine = open_database(f"sqlite:///{tmp_path / 'log.db'}")
    LogWriter(engine).write([_memory(text="zanzibar " * 100)])
    reader = reading(engine).connect()
    reader.execute(sa.select(memories)).all()
    ending = threading.Timer(0.5, reader.close)
    ending.start()
    LogWriter(engine).purge("ann")
    ending.join()
    assert b"zanzibar" not in _bytes(tmp_path)
