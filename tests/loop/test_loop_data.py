"""What the stages see of the log: every owner is read once, and who the owners are is looked up once a pass."""

from __future__ import annotations

import pytest
import sqlalchemy as sa

from hins_memory.database.engine import open_database
from hins_memory.log.writer import LogWriter
from hins_memory.loop.data import LoopData, LoopSettings
from hins_memory.types import Feedback, Memory, RankedMemory, Retrieval, Scope


@pytest.fixture
def engine(tmp_path):
    engine = open_database(f"sqlite:///{tmp_path / 'log.db'}")
    yield engine
    engine.dispose()


def write(engine, users):
    """Two memories in two conversations of each user, a search for each, and feedback on what it found."""
    for user in users:
        scope = Scope(user=user)
        stored = [Memory(f"{user}{n}", scope, f"c{n}", f"Fact {n} of {user}", user, time=float(n)) for n in range(2)]
        asked = [
            Retrieval(scope, f"Which fact {one.id}?", (RankedMemory(one.id, one.text, 0.5),), time=9.0, id=f"r{one.id}")
            for one in stored
        ]
        liked = [Feedback(one.id, "POSITIVE", f"r{one.id}", time=10.0) for one in stored]
        LogWriter(engine).write([*stored, *asked, *liked])


def owner_lookups(action):
    statements = []

    def count(*arguments):
        statements.append(arguments[2])

    sa.event.listen(sa.Engine, "before_cursor_execute", count)
    try:
        action()
    finally:
        sa.event.remove(sa.Engine, "before_cursor_execute", count)
    return sum("DISTINCT" in one for one in statements)


def test_the_owners_are_looked_up_as_often_for_many_as_for_few(engine, stock_encoder):
    data = LoopData(engine, LoopSettings())

    def read():
        return list(data.to_train_on(stock_encoder).logs)

    write(engine, ("ann", "bea"))
    few = owner_lookups(read)
    write(engine, ("cem", "dov", "eva", "fay"))
    assert owner_lookups(read) == few
    assert len(read()) == 6


def test_the_owners_asked_for_come_once_and_progress_ends_at_their_number(engine, stock_encoder):
    told = []
    write(engine, ("ann", "bea", "cem"))
    data = LoopData(engine, LoopSettings(), lambda *step: told.append(step))
    asked = [Scope(user="cem", run="r1"), Scope(user="ann"), Scope(user="cem"), Scope(user="nobody")]
    found = data.to_train_on(stock_encoder, asked)
    assert [log.scope.user for log in found.logs] == ["cem", "ann"]
    assert told == [("judge", 1, 2), ("judge", 2, 2), ("mine", 1, 2), ("mine", 2, 2)]
