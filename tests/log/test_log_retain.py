"""Retention: what goes and what stays, and that writers, readers, kills and second retentions do no harm."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import sqlalchemy as sa
from child_process import Child, children

from hins_memory.database.engine import open_database, reading
from hins_memory.database.tables import answers, feedback, memories, retrieval_results, retrievals, turns
from hins_memory.encoders.encoder import Encoder
from hins_memory.log import retain as retention
from hins_memory.log.reader import LogReader
from hins_memory.log.retain import retain
from hins_memory.log.writer import LogWriter
from hins_memory.mining import MineSettings
from hins_memory.mining.positives.followups import FOLLOWUP_SECONDS
from hins_memory.mining.storage.evidence import collect
from hins_memory.types import (
    Answer,
    Deletion,
    Event,
    Feedback,
    Memory,
    RankedMemory,
    Retrieval,
    Scope,
    Turn,
    now,
    synthetic_tenant,
)

ANN, BOB = Scope(user="ann"), Scope(user="bob")
DAY = 86_400.0


def _search(id: str, time: float, memory: str = "live", scope: Scope = ANN, query: str = "What?") -> Retrieval:
    return Retrieval(scope, query, (RankedMemory(memory, f"text of {memory}", 0.5),), time=time, id=id)


def _ids(engine: sa.Engine, table: sa.Table) -> set[str]:
    with engine.connect() as connection:
        return set(connection.execute(sa.select(table.c.id)).scalars())


def _everything(old: float, recent: float) -> list[Event]:
    made_up = Scope(user="ann", tenant=synthetic_tenant(""))
    return [
        Memory("live", ANN, "c", "Ann plays the oboe", time=old),
        Memory("gone", ANN, "c", "Ann played the cello", time=old),
        Memory("gone-but-returned", ANN, "c", "Ann played the viola", time=old),
        Deletion(ANN, "gone", old),
        Deletion(ANN, "gone-but-returned", old),
        Turn(ANN, "c", "Ann", "an old turn", old - DAY, "t-old"),
        Turn(ANN, "c", "Ann", "no, I meant the oboe", old + 60, "t-correction"),
        Turn(ANN, "c", "Ann", "a recent turn", recent, "t-recent"),
        _search("s-plain", old - DAY),
        _search("s-answered", old),
        Answer("s-answered", "The oboe.", old),
        _search("s-follows", old + 50),
        _search("s-liked", old - 2 * DAY),
        Feedback("live", "POSITIVE", "s-liked", old - 2 * DAY),
        _search("s-answered-lately", old + DAY),
        Answer("s-answered-lately", "The oboe it is.", recent),
        _search("s-recent", recent, "gone-but-returned", BOB),
        Turn(made_up, "c", "Ann", "made up", 1.0, "t-synthetic"),
        _search("s-synthetic", 1.0, scope=made_up),
    ]


@pytest.mark.parametrize("keep", ["", "outcomes"])
def test_what_is_old_goes_and_what_is_searched_or_learned_from_stays(engine, keep):
    old, recent = now() - 100 * DAY, now() - DAY
    LogWriter(engine).write(_everything(old, recent))
    counted = retain(engine, 90, keep, dry_run=True)
    before = (_ids(engine, retrievals), _ids(engine, turns), _ids(engine, memories))
    assert retain(engine, 90, keep).removed == counted.removed
    gone = tuple(ids - _ids(engine, table) for ids, table in zip(before, (retrievals, turns, memories), strict=True))
    if keep:
        assert gone == ({"s-plain"}, {"t-old"}, {"gone"})
        assert counted.removed["answers"] == counted.removed["feedback"] == 0
    else:
        searches = {"s-plain", "s-answered", "s-follows", "s-liked"}
        assert gone == (searches, {"t-old", "t-correction"}, {"gone"})
        assert counted.removed == {
            "retrievals": 4, "retrieval_results": 4, "answers": 1, "feedback": 1, "turns": 2, "memories": 1,
        }  # fmt: skip
    assert not any(retain(engine, 90, keep).removed.values())
    # The row of a deleted memory stays as long as somebody's search returned it: a purge finds that search by it.
    assert "s-recent" in _ids(engine, retrievals)
    LogWriter(engine).purge("ann")
    with engine.connect() as connection:
        texts = set(connection.execute(sa.select(retrieval_results.c.text)).scalars())
    assert "text of gone-but-returned" not in texts


@pytest.mark.slow
def test_training_has_the_same_evidence_after_a_retention_that_keeps_outcomes(engine, tiny_folder):
    encoder, old = Encoder.load(tiny_folder), now() - 100 * DAY
    said = ["Ann plays the oboe", "Ann lives in Rome", "Ann has a dog"]
    LogWriter(engine).write([Memory(f"m{n}", ANN, "c", text, "Ann", time=old) for n, text in enumerate(said)])
    for n in range(12):
        begun, id = old + n * 1000, f"s{n}"
        LogWriter(engine).write([_search(id, begun, f"m{n % 3}", query=f"Which of them is number {n}?")])
        if n % 3 == 0:
            LogWriter(engine).write([Feedback("m0", "POSITIVE", id, begun)])
        elif n % 3 == 1:
            again = _search(f"{id}-again", begun + 60, "m2", query=f"Which of them is the number {n}?")
            LogWriter(engine).write([Answer(id, "She lives in Rome", begun), again])
    assert retention.FOLLOWUP_SECONDS >= FOLLOWUP_SECONDS

    def evidence() -> list[Any]:
        (log,) = LogReader(engine).scope_logs([ANN])
        return [
            (query.query, query.positives, query.rejected)
            for query in collect(log, encoder, MineSettings(), None).queries
            if query.positives
        ]

    before = evidence()
    assert before
    assert retain(engine, 90, "outcomes").removed["retrievals"] == 4
    assert evidence() == before


def _many(engine: sa.Engine, searches: int) -> None:
    old = now() - 100 * DAY
    events: list[Event] = []
    for n in range(searches):
        events += [Turn(ANN, "c", "Ann", f"turn {n}", old, f"t{n}"), _search(f"s{n}", old)]
        events += [Answer(f"s{n}", f"answer {n}", old)] if n % 2 else []
    LogWriter(engine).write(events)


def _retain_slowly(channel: Any, url: str, waits_in: int = 0) -> None:
    """Say that a transaction begins, each time, and at the end how many rows went; wait for ever in one of them."""
    retention._BATCH = 50
    remove = retention._remove

    def told(connection: sa.Connection, *arguments: Any) -> Counter[str]:
        nonlocal waits_in
        channel.send("removing")
        waits_in -= 1
        if not waits_in:
            channel.recv()
        return remove(connection, *arguments)

    retention._remove = told
    channel.send(sum(retain(open_database(url), 90).removed.values()))


@contextmanager
def _writing(engine: sa.Engine) -> Iterator[list[str]]:
    """Write searches with answers all the while, and give the ids of those that were written."""
    stop, written = threading.Event(), []

    def write() -> None:
        while not stop.is_set():
            id = f"new{len(written)}"
            LogWriter(engine).write([_search(id, now(), scope=BOB), Answer(id, "new")])
            written.append(id)
            stop.wait(0.02)

    thread = threading.Thread(target=write)
    thread.start()
    try:
        yield written
    finally:
        stop.set()
        thread.join(30)


@pytest.mark.slow
def test_a_killed_retention_goes_on_beside_writers_readers_and_a_second_one(engine, log_url):
    _many(engine, 600)
    with _writing(engine) as written, reading(engine).connect() as snapshot:
        seen = snapshot.execute(sa.select(sa.func.count()).select_from(answers)).scalar_one()
        with children(Child(_retain_slowly, log_url, 4)) as (killed,):
            for _ in range(4):
                killed.read()
            killed.kill()
        # The rows that follow a search went with it, or stayed with it.
        with reading(engine).connect() as connection:
            left = set(connection.execute(sa.select(retrievals.c.id)).scalars())
            for table in (retrieval_results, answers):
                assert set(connection.execute(sa.select(table.c.retrieval_id)).scalars()) <= left
        assert 300 < len([id for id in left if id.startswith("s")]) < 600
        with children(Child(_retain_slowly, log_url), Child(_retain_slowly, log_url)) as both:
            totals = [next(said for said in iter(child.read, None) if said != "removing") for child in both]
        assert 0 < sum(totals) < 600 + 600 + 600 + 300
        # The reader still sees what it saw.
        assert snapshot.execute(sa.select(sa.func.count()).select_from(answers)).scalar_one() == seen
    assert _ids(engine, retrievals) == set(written)
    assert not _ids(engine, turns)
    with engine.connect() as connection:
        assert connection.execute(sa.select(sa.func.count()).select_from(answers)).scalar_one() == len(written)


def _until_it_waits(engine: sa.Engine) -> None:
    waits = sa.text("SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'")
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        with engine.connect() as connection:
            if connection.execute(waits).scalar_one():
                return
        time.sleep(0.02)
    raise AssertionError("nobody waits")


def test_an_outcome_that_is_being_written_keeps_its_search_or_waits_for_it_in_vain(engine):
    if engine.dialect.name != "postgresql":
        pytest.skip("on SQLite no two processes write at once")
    old = now() - 100 * DAY
    LogWriter(engine).write([_search("kept", old), _search("removed", old - DAY)])
    results: list[Any] = []
    answer = {"id": "a", "retrieval_id": "kept", "text": "late", "time": now()}
    with engine.begin() as connection:
        connection.execute(sa.insert(answers).values(**answer))
        retaining = threading.Thread(target=lambda: results.append(retain(engine, 90)))
        retaining.start()
        _until_it_waits(engine)
    retaining.join(30)
    assert results[0].removed["retrievals"] == 1
    assert _ids(engine, answers) == {"a"}

    LogWriter(engine).write([_search("removed", old)])
    late = Answer("removed", "late", now())
    with engine.begin() as connection:
        connection.execute(sa.delete(retrievals).where(retrievals.c.id == "removed"))
        writing = threading.Thread(target=lambda: results.append(LogWriter(engine).write([late])))
        writing.start()
        _until_it_waits(engine)
    writing.join(30)
    # Left out, as every outcome without its search, and not refused.
    assert results[1] == [late]


def test_retention_knows_every_table_that_belongs_to_a_search():
    referring = {table for table in retrievals.metadata.tables.values() for key in table.foreign_keys}
    assert referring == {answers, feedback, retrieval_results} == set(retention._OF_SEARCH)
