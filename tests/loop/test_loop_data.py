"""What the stages see of the log: every owner is read once, and who the owners are is looked up once a pass."""

from __future__ import annotations

import pytest
import sqlalchemy as sa

from hins_memory.database.engine import open_database
from hins_memory.encoders.encoder import Encoder
from hins_memory.errors import HinsError
from hins_memory.log.writer import LogWriter
from hins_memory.loop.data import LoopData
from hins_memory.loop.settings import LoopSettings
from hins_memory.mining import MineSettings
from hins_memory.mining.storage.evidence import EvidenceStore
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


def statements(action):
    found = []

    def note(*arguments):
        found.append(arguments[2])

    sa.event.listen(sa.Engine, "before_cursor_execute", note)
    try:
        action()
    finally:
        sa.event.remove(sa.Engine, "before_cursor_execute", note)
    return found


@pytest.fixture
def encoder(tiny_folder):
    return Encoder.load(tiny_folder)


class CountingEncoder:
    """An encoder that notes which texts it is asked for."""

    def __init__(self, encoder, asked):
        self.version = encoder.version
        self._encoder, self._asked = encoder, asked

    def encode(self, texts, **options):
        self._asked.extend(texts)
        return self._encoder.encode(texts, **options)


@pytest.mark.slow
def test_a_round_reads_each_owner_once_and_looks_up_the_owners_as_often_for_many_as_for_few(engine, encoder, tmp_path):
    data = LoopData(engine, LoopSettings())

    def read():
        with EvidenceStore(tmp_path / "evidence", encoder, MineSettings()) as store:
            data.collect(store)
            data.mine(store, tmp_path / "x.parquet")
            return len(store)

    write(engine, ("ann", "bea"))
    few = statements(read)
    write(engine, ("cem", "dov", "eva", "fay"))
    many = statements(read)
    assert read() == 6
    assert sum("DISTINCT" in one for one in many) == sum("DISTINCT" in one for one in few)
    owners = sum("FROM turns" in one for one in many) - sum("FROM turns" in one for one in few)
    assert owners == 4, "one reading for each of the four more owners"


def test_evidence_is_not_made_again_for_an_owner_that_did_not_change(engine, encoder, tmp_path):
    write(engine, ("ann", "bea"))
    data = LoopData(engine, LoopSettings())
    with EvidenceStore(tmp_path / "evidence", encoder, MineSettings()) as store:
        data.collect(store)
        before = {one.scope.user: one for one in store}
    LogWriter(engine).write([Memory("more", Scope(user="bea"), "c0", "Bea has a dog.", "bea", time=5.0)])
    asked = []
    counting = CountingEncoder(encoder, asked)
    with EvidenceStore(tmp_path / "evidence", counting, MineSettings()) as store:
        data.collect(store)
        after = {one.scope.user: one for one in store}
    assert not any("ann" in text for text in asked)
    assert "Bea has a dog." in asked
    assert after["ann"].content == before["ann"].content != after["bea"].content
    assert after["ann"].queries == before["ann"].queries
    assert after["ann"].owner.memories == before["ann"].owner.memories
    assert (after["ann"].owner.vectors == before["ann"].owner.vectors).all()
    assert len(after["bea"].owner.memories) == 3


@pytest.mark.slow
def test_two_processes_do_not_share_a_store(encoder, tmp_path):
    with (
        EvidenceStore(tmp_path / "evidence", encoder, MineSettings()),
        pytest.raises(HinsError, match="Another process"),
    ):
        EvidenceStore(tmp_path / "evidence", encoder, MineSettings())


@pytest.mark.slow
def test_the_owners_asked_for_come_once_and_progress_ends_at_their_number(engine, encoder, tmp_path):
    told = []
    write(engine, ("ann", "bea", "cem"))
    data = LoopData(engine, LoopSettings(), lambda *step: told.append(step))
    asked = [Scope(user="cem", run="r1"), Scope(user="ann"), Scope(user="cem"), Scope(user="nobody")]
    with EvidenceStore(tmp_path / "evidence", encoder, MineSettings()) as store:
        data.collect(store, asked)
        assert [one.scope.user for one in store] == ["cem", "ann"]
        data.mine(store, tmp_path / "x.parquet")
    assert told == [("read", 1, 2), ("read", 2, 2), ("mine", 1, 2), ("mine", 2, 2)]
