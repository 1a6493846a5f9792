"""The log on PostgreSQL at sizes where it matters: COPY, and statements that read what they need and not all rows."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import sqlalchemy as sa

from hins_memory.database.engine import open_database
from hins_memory.database.tables import answers, feedback, memories, retrieval_results, retrievals, turns
from hins_memory.log import bulk, counts
from hins_memory.log.bulk import put
from hins_memory.log.reader import LogReader
from hins_memory.log.retain import retain
from hins_memory.log.writer import LogWriter
from hins_memory.types import Answer, Deletion, Event, Feedback, Memory, RankedMemory, Retrieval, Scope, Turn

TABLES = (turns, memories, retrievals, retrieval_results, answers, feedback)
NASTY = ("", "a\tb", "two\nlines\r\n", "back\\slash \\N \\.", "\N{VIOLIN} 我喜欢", "'\"", "x" * 5000)


@pytest.fixture
def log_url(request: pytest.FixtureRequest) -> str:
    pytest.importorskip("pgserver")
    pytest.importorskip("psycopg")
    from log_fixtures import _numbers, postgresql_schema

    return postgresql_schema(request.getfixturevalue("postgresql_server"), f"log{next(_numbers)}")


def _batch(rng: random.Random, count: int) -> list[Event]:
    """Events of all kinds; ids come again, and texts are what COPY has to escape."""
    events: list[Event] = []
    for _ in range(count):
        n, text, scope = rng.randrange(count), rng.choice(NASTY), Scope(user=rng.choice("ab"))
        results = tuple(RankedMemory(f"m{rank}", text, rng.random()) for rank in range(3))
        events += [
            Turn(scope, text, text, text, float(n), f"t{n}"),
            Memory(f"m{scope.user}{n}", scope, rng.choice(["", text]), text, turn_ids=(text,), time=float(n)),
            Retrieval(scope, text, results, text, float(n), f"r{n}"),
            Answer(f"r{n}", text, float(n)),
            Feedback("m0", "POSITIVE", f"r{n}", float(n)),
        ]
        if rng.random() < 0.1:
            events.append(Deletion(scope, f"m{scope.user}{n}", float(n)))
    return events


def _rows(engine: sa.Engine) -> list[list[dict[str, Any]]]:
    """Every row in the order of writing, by its place among them: sequences leave gaps."""
    with engine.connect() as connection:
        found = []
        for table in TABLES:
            order = table.c.seq if "seq" in table.columns else sa.tuple_(*table.primary_key.columns)
            rows = [dict(row) for row in connection.execute(sa.select(table).order_by(order)).mappings()]
            found.append([{name: value for name, value in row.items() if name != "seq"} for row in rows])
        return found


@pytest.mark.slow
def test_rows_that_are_copied_are_those_that_would_be_inserted(log_url, request, monkeypatch):
    from log_fixtures import _numbers, postgresql_schema

    schema = f"log{next(_numbers)}"
    logs = [
        open_database(url) for url in (log_url, postgresql_schema(request.getfixturevalue("postgresql_server"), schema))
    ]
    for engine, least in zip(logs, (1, 10**9), strict=True):
        monkeypatch.setattr(bulk, "_COPY_ROWS", least)
        rng = random.Random(7)
        for _ in range(6):
            LogWriter(engine).write(_batch(rng, 40))
    copied, inserted = map(_rows, logs)
    assert copied == inserted
    assert all(copied)
    # What a database refuses is refused in the same way, without the text in the message.
    row = {**copied[0][0], "id": "new", "text": "secret\x00"}
    monkeypatch.setattr(bulk, "_COPY_ROWS", 1)
    with pytest.raises(sa.exc.DBAPIError) as refused, logs[0].begin() as connection:
        put(connection, turns, [row], lambda statement: statement.on_conflict_do_nothing())
    assert "secret" not in str(refused.value)
    for engine in logs:
        engine.dispose()


@contextmanager
def _scans(engine: sa.Engine) -> Iterator[list[str]]:
    """Give the log's tables that the block's statements read from end to end, because no index leads to the rows."""
    asked: list[tuple[str, Any]] = []

    def note(_connection: Any, _cursor: Any, statement: str, parameters: Any, *_: Any) -> None:
        if statement.split()[0] in ("SELECT", "DELETE", "UPDATE"):
            asked.append((statement, parameters))

    found: list[str] = []
    sa.event.listen(engine, "before_cursor_execute", note)
    try:
        yield found
    finally:
        sa.event.remove(engine, "before_cursor_execute", note)
    names = {table.name for table in TABLES}
    assert asked
    with engine.connect() as connection:
        for statement, parameters in asked:
            plan = connection.exec_driver_sql(f"EXPLAIN (FORMAT JSON) {statement}", parameters).scalar_one()
            found += [f"{name}: {statement}" for name in _sequential(plan[0]["Plan"]) if name in names]


def _sequential(plan: dict[str, Any]) -> Iterator[str]:
    if plan["Node Type"] == "Seq Scan":
        yield plan["Relation Name"]
    for part in plan.get("Plans", ()):
        yield from _sequential(part)


@pytest.mark.parametrize(
    "work",
    [
        lambda engine: list(LogReader(engine).scope_logs([Scope(user="u7")])),
        lambda engine: LogReader(engine).owners(),
        lambda engine: LogReader(engine).latest(20),
        lambda engine: LogReader(engine).counts(),
        lambda engine: retain(engine, 90, dry_run=True),
        lambda engine: retain(engine, 90),
        lambda engine: retain(engine, 90, "outcomes"),
    ],
    ids=["one owner", "owners", "latest page", "status", "what would go", "retain", "retain and keep outcomes"],
)
def test_nothing_reads_a_table_from_end_to_end(log_url, monkeypatch, work: Callable[[sa.Engine], object]):
    # Without this, the planner reads small tables whole although there is an index.
    engine = open_database(log_url.replace("-csearch_path", "-cenable_seqscan%3Doff -csearch_path"))
    monkeypatch.setattr(counts, "_EXACT_ROWS", 1)
    events: list[Event] = []
    for n in range(60):
        scope = Scope(user=f"u{n % 20}")
        events += [Turn(scope, "c", "x", "a turn", float(n)), Memory(f"m{n}", scope, "c", "a memory", time=float(n))]
        events += [Retrieval(scope, "query", (RankedMemory(f"m{n}", "a memory", 0.5),), time=float(n), id=f"r{n}")]
        events += [Answer(f"r{n}", "answer", float(n)), Feedback(f"m{n}", "POSITIVE", f"r{n}", float(n))]
        events += [Deletion(scope, f"m{n}", 1.0)] if n % 5 == 0 else []
    LogWriter(engine).write(events)
    with engine.begin() as connection:
        connection.exec_driver_sql("ANALYZE")
    with _scans(engine) as found:
        work(engine)
    assert found == []
    engine.dispose()


def test_the_counts_of_a_large_log_are_the_servers_estimates(engine, monkeypatch):
    LogWriter(engine).write(
        [Memory(f"m{n}", Scope(user=f"u{n % 20}"), f"c{n % 40}", "text", time=1.0) for n in range(400)]
        + [Deletion(Scope(user=f"u{n % 20}"), f"m{n}", 1.0) for n in range(100)]
    )
    exact = LogReader(engine).counts()
    assert (exact.memories, exact.owners, exact.conversations, exact.estimated) == (300, 20, 40, False)
    monkeypatch.setattr(counts, "_EXACT_ROWS", 100)
    # Never analysed: there is no estimate yet.
    assert LogReader(engine).counts() == exact
    with engine.begin() as connection:
        connection.exec_driver_sql("ANALYZE")
    about = LogReader(engine).counts()
    assert about.estimated
    assert (about.memories, about.owners, about.conversations) == (300, 20, 40)
