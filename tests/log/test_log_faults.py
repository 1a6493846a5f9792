"""A database that goes away: PostgreSQL's connections, server and conflicts; a disk that is full or read-only."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from hins_memory.config import Settings
from hins_memory.database.engine import open_database
from hins_memory.errors import LogError
from hins_memory.log.capture import Capture
from hins_memory.log.reader import LogReader
from hins_memory.log.writer import LogWriter
from hins_memory.types import Memory, Scope, Turn

ANN = Scope(user="ann")


def _turn(name: object) -> Turn:
    return Turn(ANN, "monday", "Ann", "hello " * 50, id=str(name))


def _settings(folder: Path, url: str = "") -> Settings:
    return Settings(home=folder, project="p", log_url=url, capture=True)


@pytest.fixture
def postgresql_url(request: pytest.FixtureRequest) -> str:
    pytest.importorskip("psycopg")
    request.getfixturevalue("postgresql_server")
    from postgresql import postgresql_schema

    return postgresql_schema(request.getfixturevalue("postgresql_server"), f"faults{abs(hash(request.node.name))}")


def _end_connections(url: str, pids: list[int]) -> None:
    admin = sa.create_engine(url, isolation_level="AUTOCOMMIT")
    with admin.connect() as connection:
        for pid in pids:
            connection.execute(sa.text("SELECT pg_terminate_backend(:pid)"), {"pid": pid})
    admin.dispose()


@pytest.mark.parametrize("table", ["turns", "retrievals", "memories"])
@pytest.mark.slow
def test_a_connection_that_is_lost_in_the_middle_of_a_batch_costs_nothing(tmp_path, postgresql_url, table):
    engine = open_database(postgresql_url)
    ended: list[int] = []

    @sa.event.listens_for(engine, "after_cursor_execute")
    def end(connection, cursor, statement, parameters, context, many):
        if statement.startswith(f"INSERT INTO {table} ") and len(ended) < 2:
            ended.append(connection.connection.driver_connection.info.backend_pid)
            _end_connections(postgresql_url, ended[-1:])

    from hins_memory.types import Answer, Retrieval

    with Capture(_settings(tmp_path, postgresql_url)) as capture:
        for number in range(50):
            capture.record(_turn(number))
            capture.record(Memory(f"m{number}", ANN, "monday", "text", turn_ids=(str(number),)))
            capture.record(Retrieval(ANN, "query", (), id=f"r{number}"))
            capture.record(Answer(f"r{number}", "answer"))
        assert capture.flush(30)
        assert capture.dropped == 0
    assert len(ended) == 2
    counts = LogReader(engine).counts()
    assert (counts.turns, counts.memories, counts.retrievals, counts.answers) == (50, 50, 50, 50)


@pytest.mark.slow
def test_a_server_that_restarts_costs_nothing(tmp_path):
    pgserver = pytest.importorskip("pgserver")
    pytest.importorskip("psycopg")
    with tempfile.TemporaryDirectory(prefix="hins-pg-") as folder:
        server = pgserver.get_server(Path(folder), cleanup_mode="stop")
        url = server.get_uri().replace("postgresql://", "postgresql+psycopg://")
        with Capture(_settings(tmp_path, url)) as capture:
            capture.record(_turn(0))
            assert capture.flush(30)
            server.cleanup()
            for number in range(1, 600):
                capture.record(_turn(number))
            assert not capture.flush(1)
            assert capture.stats().failing
            server = pgserver.get_server(Path(folder), cleanup_mode="stop")
            capture.record(_turn(600))
            assert capture.flush(30)
            assert (capture.dropped, capture.stats().failing) == (0, False)
        assert LogReader(open_database(url)).counts().turns == 601
        server.cleanup()


@pytest.mark.slow
@pytest.mark.parametrize("isolation", ["read committed", "repeatable read", "serializable"])
def test_writers_that_conflict_lose_nothing(tmp_path, postgresql_url, isolation):
    # In opposite order: under "read committed" they deadlock, under the others they are not serializable.
    url = sa.make_url(postgresql_url)
    options = str(url.query["options"]) + " -cdefault_transaction_isolation=" + isolation.replace(" ", "\\ ")
    address = url.update_query_dict({"options": options}).render_as_string(hide_password=False)
    engine = open_database(address)
    with engine.connect() as connection:
        assert connection.exec_driver_sql("SHOW transaction_isolation").scalar() == isolation
    failures: list[BaseException] = []

    def write(writer: int) -> None:
        try:
            for round_ in range(20):
                ids = range(20) if writer else reversed(range(20))
                batch = [Memory(f"m{number}", ANN, "monday", f"{writer} {round_}") for number in ids]
                with Capture(_settings(tmp_path, address)) as capture:
                    for event in [_turn(f"{writer}-{round_}"), *batch]:
                        capture.record(event)
                    assert capture.flush(30)
                    assert capture.dropped == 0
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=write, args=(number,)) for number in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert failures == []
    log = next(LogReader(engine).scope_logs())
    assert len(log.turns) == 40
    assert {memory.text for memory in log.memories} <= {"0 19", "1 19"}


_HOST = """
import os, signal, sys
from hins_memory.log.capture import Capture
from hins_memory.config import Settings
from hins_memory.types import *

home, url, name = sys.argv[1:]
capture = Capture(Settings(home=home, project="p", log_url=url))
for number in range(200):
    capture.record(Turn(Scope(user="ann"), "c", name, "text", id=f"{name}-{number}"))
assert capture.flush(60)
for number in range(200, 400):
    capture.record(Turn(Scope(user="ann"), "c", name, "text", id=f"{name}-{number}"))
if name == "killed":
    os.kill(os.getpid(), signal.SIGKILL)
capture.close(60)
sys.exit(capture.dropped)
"""


@pytest.mark.slow
@pytest.mark.usefixtures("forked_programs")
def test_two_hosts_write_one_log_and_a_kill_of_one_costs_the_other_nothing(tmp_path, postgresql_url):
    names = ["killed", "other"]
    command = [sys.executable, "-c", _HOST]
    hosts = [subprocess.Popen([*command, tmp_path / name, postgresql_url, name]) for name in names]
    assert [host.wait(120) for host in hosts] == [-9, 0]
    found = {turn.id for turn in next(LogReader(open_database(postgresql_url)).scope_logs()).turns}
    assert {f"other-{number}" for number in range(400)} <= found
    assert {f"killed-{number}" for number in range(200)} <= found


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of one megabyte, where the tests may mount one."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", folder], capture_output=True)
    if mounted.returncode:
        pytest.skip("needs the right to mount")
    yield folder
    subprocess.run(["umount", "--lazy", folder], check=True)


def _written(stream: io.FileIO) -> bool:
    try:
        return stream.write(b"x" * 4096) > 0
    except OSError:
        return False


@pytest.mark.slow
def test_a_full_disk_delays_events_and_readers_go_on(small_disk):
    settings = _settings(small_disk)
    with Capture(settings) as capture:
        capture.record(_turn(0))
        assert capture.flush(20)
        ballast = small_disk / "ballast"
        with ballast.open("wb", buffering=0) as stream:
            while _written(stream):
                pass
        for number in range(1, 500):
            capture.record(_turn(number))
        assert not capture.flush(1)
        assert LogReader(open_database(settings.database_url)).counts().turns >= 1
        with pytest.raises(LogError, match=r"full.*Free disk space"):
            LogWriter(open_database(settings.database_url)).write([_turn(f"big {n}") for n in range(2000)])
        ballast.unlink()
        assert capture.flush(20)
        assert capture.dropped == 0
    assert LogReader(open_database(settings.database_url)).counts().turns == 500


@pytest.mark.slow
def test_a_disk_that_becomes_read_only_delays_events(small_disk):
    settings = _settings(small_disk)
    with Capture(settings) as capture:
        capture.record(_turn(0))
        assert capture.flush(20)
        open_database(settings.database_url).dispose()
        subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
        try:
            capture.record(_turn(1))
            assert not capture.flush(1)
            with pytest.raises(LogError, match="writable for this user"):
                LogWriter(open_database(settings.database_url)).write([_turn(2)])
        finally:
            subprocess.run(["mount", "-o", "remount,rw", small_disk], check=True)
        assert capture.flush(20)
        assert capture.dropped == 0
    assert LogReader(open_database(settings.database_url)).counts().turns == 2


_READ_ONLY_FOLDER = """
import os, sys
os.umask(0o22)
from hins_memory.database.engine import open_database
from hins_memory.errors import LogError
from hins_memory.log.writer import LogWriter
from hins_memory.types import *

if os.geteuid() == 0:
    # Modes do not hold the superuser back.
    os.chown(sys.argv[1], 65534, 65534)
    os.setgid(65534)
    os.setuid(65534)
folder = sys.argv[1]
url = f"sqlite:///{folder}/log.db"

def refused(work):
    try:
        work()
    except LogError as error:
        assert "writable for this user" in str(error), error
        return
    raise AssertionError("not refused")

os.chmod(folder, 0o500)
refused(lambda: open_database(url))
assert os.listdir(folder) == []
os.chmod(folder, 0o700)
engine = open_database(url)
event = Turn(Scope(user="ann"), "c", "Ann", "text")
LogWriter(engine).write([event])
engine.dispose()
os.chmod(folder, 0o500)
refused(lambda: LogWriter(open_database(url)).write([event]))
os.chmod(folder, 0o700)
assert LogWriter(open_database(url)).write([event]) == []
os.chmod(f"{folder}/log.db", 0o400)
engine.dispose()
refused(lambda: LogWriter(open_database(url)).write([event]))
"""


def test_a_folder_or_file_that_is_read_only_says_what_to_do():
    # Not under tmp_path: its parents are closed to the user that the test becomes where it runs as root.
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([sys.executable, "-c", _READ_ONLY_FOLDER, folder], check=True, timeout=60)
    assert not os.path.exists(folder)
