"""Opening, creating and migrating the database, and the errors when that cannot work."""

from __future__ import annotations

import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import sqlalchemy as sa

from hins_memory.database.engine import SCHEMA_REVISION, migration_config, open_database, reading
from hins_memory.database.tables import metadata, turns
from hins_memory.errors import LogError

_OPEN = "import sys; from hins_memory.database.engine import open_database; open_database(sys.argv[1]); print('opened')"


def _turn(number: int) -> dict[str, object]:
    return {"id": str(number), "conversation": "c", "speaker": "Ann", "text": "hello", "time": 1.0}


@pytest.mark.slow
def test_migrations_and_metadata_agree(engine):
    from alembic.autogenerate import compare_metadata
    from alembic.migration import MigrationContext

    with engine.connect() as connection:
        # Alembic takes an empty default for a changed one on SQLite.
        defaults = engine.dialect.name == "postgresql"
        opts = {"compare_type": True, "compare_server_default": defaults}
        context = MigrationContext.configure(connection, opts=opts)
        assert compare_metadata(context, metadata) == []


@pytest.mark.slow
def test_the_newest_migration_is_the_revision_that_the_code_expects(engine):
    from alembic.script import ScriptDirectory

    with engine.connect() as connection:
        assert ScriptDirectory.from_config(migration_config(connection)).get_heads() == [SCHEMA_REVISION]


def test_a_new_sqlite_log_is_in_wal_mode_and_private(tmp_path):
    path = tmp_path / "a b" / "übung" / "log.db"
    engine = open_database(f"sqlite:///{path}")
    with engine.connect() as connection:
        assert connection.exec_driver_sql("PRAGMA journal_mode").scalar() == "wal"
        assert connection.exec_driver_sql("PRAGMA foreign_keys").scalar() == 1
        assert connection.exec_driver_sql("PRAGMA busy_timeout").scalar() == 30_000
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_opening_twice_keeps_what_is_there(log_url):
    first = open_database(log_url)
    with first.begin() as connection:
        connection.execute(sa.insert(turns), [_turn(1)])
    first.dispose()
    second = open_database(log_url)
    with reading(second).connect() as connection:
        assert connection.execute(sa.select(sa.func.count()).select_from(turns)).scalar() == 1
    second.dispose()


@pytest.mark.slow
@pytest.mark.usefixtures("forked_programs")
def test_processes_may_open_a_fresh_log_at_the_same_time(log_url):
    command = [sys.executable, "-c", _OPEN, log_url]
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) for _ in range(4)]
    outputs = [process.communicate(timeout=120) for process in processes]
    assert [out for out, _ in outputs] == [b"opened\n"] * 4, outputs


def test_threads_may_open_a_fresh_log_at_the_same_time(log_url):
    failures: list[BaseException] = []

    def open_it() -> None:
        try:
            open_database(log_url).dispose()
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=open_it) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert failures == []


def test_a_read_goes_on_while_another_connection_writes(tmp_path):
    engine = open_database(f"sqlite:///{tmp_path / 'log.db'}")
    with engine.begin() as writing:
        writing.execute(sa.insert(turns), [_turn(1)])
        with reading(engine).connect() as connection:
            assert connection.execute(sa.select(sa.func.count()).select_from(turns)).scalar() == 0


def test_a_database_of_a_newer_version_is_refused_and_left_alone(log_url):
    engine = open_database(log_url)
    with engine.begin() as connection:
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = '9999'")
    with pytest.raises(LogError, match=r"9999.*pip install -U hins-memory"):
        open_database(log_url)
    with reading(engine).connect() as connection:
        assert connection.exec_driver_sql("SELECT version_num FROM alembic_version").scalar() == "9999"
    engine.dispose()


def test_a_file_that_is_no_database_is_refused_and_left_alone(tmp_path):
    path = tmp_path / "log.db"
    path.write_bytes(b"these are notes, not a database\n" * 100)
    with pytest.raises(LogError, match=r"not a database.*Move the file away"):
        open_database(f"sqlite:///{path}")
    assert path.read_bytes() == b"these are notes, not a database\n" * 100


def test_a_damaged_database_is_refused(tmp_path):
    path = tmp_path / "log.db"
    open_database(f"sqlite:///{path}").dispose()
    content = bytearray(path.read_bytes())
    content[100:] = b"\xff" * (len(content) - 100)
    path.write_bytes(content)
    with pytest.raises(LogError, match="damaged"):
        open_database(f"sqlite:///{path}")


def test_a_folder_that_cannot_be_made_says_what_to_do(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(LogError, match="HINS_HOME"):
        open_database(f"sqlite:///{tmp_path / 'file' / 'project' / 'log.db'}")


def test_tables_of_somebody_else_are_not_touched(tmp_path):
    path = tmp_path / "other.db"
    other = sa.create_engine(f"sqlite:///{path}")
    with other.begin() as connection:
        connection.exec_driver_sql("CREATE TABLE turns (wheel TEXT)")
    other.dispose()
    with pytest.raises(LogError, match="a database of its own"):
        open_database(f"sqlite:///{path}")
    with sa.create_engine(f"sqlite:///{path}").connect() as connection:
        assert sa.inspect(connection).get_table_names() == ["turns"]


@pytest.mark.parametrize("url", ["log.db", "", "nonsense://host/name", "sqlite://host/path", "mysql://host/name"])
def test_a_url_that_is_none_is_refused(url, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(LogError, match="HINS_LOG_URL"):
        open_database(url)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "url", ["sqlite://", "sqlite:///", "sqlite:///:memory:", "sqlite:///file::memory:?uri=true", "sqlite:///a.db?uri=1"]
)
def test_a_log_in_memory_is_refused(url, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(LogError, match=r"not a file.*in memory only is lost.*sqlite:////folder/log.db"):
        open_database(url)
    assert list(tmp_path.iterdir()) == []


def test_a_fresh_database_is_what_the_migrations_make_of_one(log_url):
    from alembic import command

    engine = open_database(log_url)
    fresh = _shape(engine)
    with engine.begin() as connection:
        metadata.drop_all(connection)
        connection.exec_driver_sql("DROP TABLE alembic_version")
    with engine.begin() as connection:
        command.upgrade(migration_config(connection), "head")
    assert _shape(engine) == fresh


def _shape(engine: sa.Engine) -> dict[str, object]:
    """Return everything that the database says of its tables; columns in their order, the rest in any."""
    with engine.connect() as connection:
        found = sa.inspect(connection)
        return {
            name: {
                "columns": [{**column, "type": str(column["type"])} for column in found.get_columns(name)],
                "key": found.get_pk_constraint(name),
                "foreign": sorted(map(str, found.get_foreign_keys(name))),
                "unique": sorted(map(str, found.get_unique_constraints(name))),
                "indexes": sorted(map(str, found.get_indexes(name))),
            }
            for name in found.get_table_names()
        }


def test_making_a_fresh_database_needs_no_alembic(tmp_path):
    # Importing it takes a second on a slow machine, and what was recorded waits for the database.
    code = f"{_OPEN}; assert 'alembic' not in sys.modules"
    subprocess.run([sys.executable, "-c", code, f"sqlite:///{tmp_path / 'log.db'}"], check=True, timeout=60)


def test_a_server_that_is_not_there_is_an_error_without_the_password():
    pytest.importorskip("psycopg")
    with pytest.raises(LogError) as raised:
        open_database("postgresql://ann:secret@127.0.0.1:1/log")
    assert "secret" not in str(raised.value)


def test_a_missing_driver_names_the_command(monkeypatch):
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(LogError, match=r"pip install .psycopg"):
        open_database("postgresql://bob:secret@127.0.0.1:1/log")


def test_migrations_are_part_of_the_package():
    import hins_memory.database.engine as database

    folder = Path(database.__file__).parent / "migrations"
    assert (folder / "env.py").is_file()
    names = sorted(path.name for path in (folder / "versions").glob("*.py"))
    assert names == [
        "0001_schema.py",
        "0002_leases_and_rounds.py",
        "0003_index_changes.py",
        "0004_capture_losses.py",
        "0005_scoped_versions.py",
        "0006_http_versions.py",
        "0007_swap_progress.py",
    ]
