"""Logs that earlier releases wrote: they open, migrate, keep everything, and can be mined; damage is told."""

import shutil
from pathlib import Path

import pytest
import sqlalchemy as sa

from hins_memory.database.engine import SCHEMA_REVISION, open_database, reading
from hins_memory.database.tables import agent_indexes, encoder_versions, metadata
from hins_memory.encoders.encoder import Encoder
from hins_memory.errors import LogError
from hins_memory.log.reader import LogReader
from hins_memory.log.writer import LogWriter
from hins_memory.mining import mine
from hins_memory.types import Answer, RankedMemory, Retrieval, Scope

FIXTURES = sorted((Path(__file__).parent / "fixtures").glob("log-*.sqlite"))


@pytest.fixture(params=FIXTURES, ids=lambda path: path.stem)
def old_log(request, tmp_path):
    return Path(shutil.copy(request.param, tmp_path / "log.db"))


def test_there_is_a_log_of_every_schema_that_a_release_had():
    # With a release that changes the schema: run fixtures/make_log.py and add its revision here.
    assert [path.stem for path in FIXTURES] == [f"log-{revision}" for revision in ("0001",)]
    assert int(FIXTURES[-1].stem.removeprefix("log-")) <= int(SCHEMA_REVISION)


def test_an_old_log_is_migrated_with_everything_in_it(old_log):
    engine = open_database(f"sqlite:///{old_log}")
    counts = LogReader(engine).counts()
    assert (counts.turns, counts.memories, counts.retrievals) == (120, 121, 30)
    assert (counts.answers, counts.feedback, counts.owners, counts.conversations) == (30, 1, 4, 4)
    with reading(engine).connect() as connection:
        assert connection.exec_driver_sql("PRAGMA integrity_check").scalar() == "ok"
        assert connection.exec_driver_sql("PRAGMA journal_mode").scalar() == "wal"
        assert connection.exec_driver_sql("SELECT version_num FROM alembic_version").scalar() == SCHEMA_REVISION
        assert set(sa.inspect(connection).get_table_names()) == {*metadata.tables, "alembic_version"}
        assert connection.execute(sa.select(encoder_versions.c.id).where(encoder_versions.c.current)).scalar()
        assert connection.execute(sa.select(agent_indexes.c.state)).scalar() == "live"
    # And it is written on.
    scope = Scope(user="🎻 zoë")
    retrieval = Retrieval(scope, "你好?", (RankedMemory("m-嗨", "我喜欢大提琴 🎻", 0.5),))
    assert LogWriter(engine).write([retrieval, Answer(retrieval.id, "大提琴")]) == []
    (log,) = LogReader(engine).scope_logs([scope])
    assert [memory.text for memory in log.memories] == ["我喜欢大提琴 🎻"]
    assert log.deleted == 1
    assert len(log.answers) == 1


@pytest.mark.slow
def test_an_old_log_can_be_mined(old_log, first_layer_folder):
    logs = LogReader(open_database(f"sqlite:///{old_log}")).scope_logs()
    found = mine(logs, Encoder.load(first_layer_folder))
    assert len(found.examples) >= 16
    assert found.report.owners == 4


def test_opening_again_changes_nothing(old_log):
    engine = open_database(f"sqlite:///{old_log}")
    events = list(LogReader(engine).export())
    engine.dispose()
    assert list(LogReader(open_database(f"sqlite:///{old_log}")).export()) == events


def test_an_old_log_that_lost_its_end_is_an_error_and_left_alone(old_log):
    content = old_log.read_bytes()[: old_log.stat().st_size // 2]
    old_log.write_bytes(content)
    with pytest.raises(LogError, match=r"malformed.*damaged: restore it from a backup"):
        list(LogReader(open_database(f"sqlite:///{old_log}")).export())
    assert old_log.stat().st_size >= len(content)


def test_an_old_log_on_a_full_disk_stays_as_it_was(old_log):
    import sqlite3

    from hins_memory.database.engine import _migrate, _sqlite

    engine = _sqlite(sa.make_url(f"sqlite:///{old_log}"), old_log)

    @sa.event.listens_for(engine, "connect")
    def limit(connection, _):
        connection.execute(f"pragma max_page_count = {old_log.stat().st_size // 4096}")

    with pytest.raises(sa.exc.OperationalError, match="full"):
        _migrate(engine)
    engine.dispose()
    with sqlite3.connect(old_log) as connection:
        assert connection.execute("SELECT version_num FROM alembic_version").fetchall() == [("0001",)]
    assert LogReader(open_database(f"sqlite:///{old_log}")).counts().answers == 30
