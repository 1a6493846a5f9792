"""SQLite's file locks: held as long as the database is open, whatever else the process does, and by each child."""

from __future__ import annotations

import contextlib
import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import sqlalchemy as sa

from hins_memory.database import connections
from hins_memory.database.engine import open_database, reading
from hins_memory.errors import LogError
from hins_memory.log.reader import LogReader
from hins_memory.log.writer import LogWriter
from hins_memory.types import Scope, Turn

pytestmark = [
    pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX signals, locks and fork"),
    pytest.mark.usefixtures("forked_programs"),
]

#: The bytes of a database file that a connection locks for reading, and the byte of its -shm file that says "in use".
_SHARED, _IN_USE = 1073741826, 128

_PRELUDE = """
import os, signal, subprocess, sys
from pathlib import Path
from hins_memory.database.engine import open_database
from hins_memory.log.reader import LogReader
from hins_memory.log.writer import LogWriter
from hins_memory.types import *

url = sys.argv[1]

def write(engine, name, count=100):
    for number in range(count):
        LogWriter(engine).write([Turn(Scope(user=name), "c", name, "text", id=f"{name}-{number}")])

def others():
    # Another process that opens the log, looks and ends, as `hins status` from cron does.
    code = "import sys; from hins_memory.database.engine import *; from hins_memory.log.reader import LogReader;"
    code += "engine = open_database(sys.argv[1]); LogReader(engine).counts(); engine.dispose()"
    for _ in range(2):
        subprocess.run([sys.executable, "-c", code, url], check=True)
"""

_TWO_ENGINES = """
first, second = open_database(url), open_database(url)
write(first, "before", 1)
others()
write(second, "ann")
os.kill(os.getpid(), signal.SIGKILL)
"""

_TWO_MEMORIES = """
from hins_memory.config import Settings
from hins_memory.log.capture import Capture
from hins_memory.registry.registry import Registry

settings = Settings(home=Path(sys.argv[2]), project="p", log_url=url)
captures = [Capture(settings), Capture(settings)]
registries = [Registry(settings), Registry(settings)]
others()
for number in range(100):
    captures[number % 2].record(Turn(Scope(user="ann"), "c", "ann", "text", id=f"ann-{number}"))
assert all(capture.flush(60) for capture in captures)
os.kill(os.getpid(), signal.SIGKILL)
"""

_FORKED = """
first, second = open_database(url), open_database(url)
write(first, "parent", 1)
child = os.fork()
if child == 0:
    write(second, "child")
    others()
    write(open_database(url), "after")
    os.kill(os.getpid(), signal.SIGKILL)
# Closed cleanly while the child writes: the parent's locks are no concern of the child's.
first.dispose()
os.waitpid(child, 0)
os.kill(os.getpid(), signal.SIGKILL)
"""

_AGENT = """
first, second = open_database(url), open_database(url)
write(first, "agent", 50)
others()
write(second, "late", 10)
print("written", flush=True)
sys.stdin.readline()
first.dispose()
second.dispose()
"""

_WORKER = """
engine = open_database(url)
write(engine, "worker", 400)
engine.dispose()
"""


def _start(code: str, url: str, folder: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", _PRELUDE + code, url, str(folder)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def _turns(url: str) -> dict[str, int]:
    engine = open_database(url)
    with engine.connect() as connection:
        assert connection.exec_driver_sql("PRAGMA integrity_check").scalar() == "ok"
    return {log.scope.user: len(log.turns) for log in LogReader(engine).scope_logs()}


@pytest.mark.parametrize(
    ("code", "found"),
    [
        (_TWO_ENGINES, {"before": 1, "ann": 100}),
        (_TWO_MEMORIES, {"ann": 100}),
        (_FORKED, {"parent": 1, "child": 100, "after": 100}),
    ],
    ids=["two engines", "two memories", "a forked child"],
)
@pytest.mark.slow
def test_a_process_that_opened_the_log_twice_loses_nothing_to_a_reader_and_a_kill(tmp_path, code, found):
    url = f"sqlite:///{tmp_path / 'log.db'}"
    process = _start(code, url, tmp_path)
    process.communicate(timeout=120)
    assert process.returncode == -signal.SIGKILL
    assert _turns(url) == found


_REAL_MEMORIES = """
from hins_memory import Memory
from hins_memory.log.capture import flush_all

os.environ.update(HINS_HOME=sys.argv[2], HINS_PROJECT="p", HINS_LOG_URL=url)
path = sys.argv[2] + "/second"
store = {"provider": "qdrant", "config": {"path": path, "embedding_model_dims": 384, "on_disk": True}}
memories = [Memory(embedder="stock"), Memory(embedder="stock", config={"vector_store": store})]
others()
for number in range(20):
    text = {"role": "user", "content": f"I have {number} cats."}
    memories[number % 2].add([text], user_id="ann", infer=False)
assert flush_all(60)
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.slow
def test_two_memories_in_one_process_lose_nothing_to_a_reader_and_a_kill(tmp_path):
    pytest.importorskip("mem0")
    url = f"sqlite:///{tmp_path / 'log.db'}"
    process = _start(_REAL_MEMORIES, url, tmp_path)
    process.communicate(timeout=240)
    assert process.returncode == -signal.SIGKILL
    assert _turns(url) == {"ann": 20}


@pytest.mark.slow
def test_what_another_process_committed_outlives_the_clean_end_of_one_that_opened_the_log_twice(tmp_path):
    url = f"sqlite:///{tmp_path / 'log.db'}"
    agent = _start(_AGENT, url, tmp_path)
    assert agent.stdout is not None
    assert agent.stdout.readline() == "written\n"
    _start(_WORKER, url, tmp_path).communicate(timeout=120)
    agent.communicate("end\n", timeout=120)
    assert agent.returncode == 0
    assert _turns(url) == {"agent": 50, "late": 10, "worker": 400}


def _held(path: Path, pid: int | None = None) -> set[tuple[str, int]]:
    """Return the kind and first byte of the POSIX locks that a process holds on a file."""
    inode, found = path.stat().st_ino, set()
    for line in Path("/proc/locks").read_text().splitlines():
        fields = line.split()
        if fields[1] == "POSIX" and fields[4] == str(pid or os.getpid()) and fields[5].endswith(f":{inode}"):
            found.add((fields[3], int(fields[6])))
    return found


_locks_are_shown = pytest.mark.skipif(not os.access("/proc/locks", os.R_OK), reason="needs /proc/locks")


def _assert_locked(path: Path, pid: int | None = None) -> None:
    assert ("READ", _SHARED) in _held(path, pid)
    assert ("READ", _IN_USE) in _held(path.with_name(f"{path.name}-shm"), pid)


@_locks_are_shown
def test_the_locks_are_held_whatever_else_opens_and_closes_the_log(tmp_path, settings):
    from hins_memory.log.capture import Capture
    from hins_memory.loop.pipeline import Pipeline

    path = tmp_path / "log.db"
    settings = type(settings)(home=tmp_path, project="p", log_url=f"sqlite:///{path}")
    engine = open_database(settings.database_url)
    LogReader(engine).counts()
    _assert_locked(path)
    open_database(settings.database_url)
    _assert_locked(path)
    with Capture(settings) as capture:
        capture.record(Turn(Scope(user="ann"), "c", "Ann", "hello"))
        assert capture.flush(20)
        _assert_locked(path)
    LogReader(engine).counts()
    Pipeline(settings).status()
    _assert_locked(path)


@_locks_are_shown
def test_a_forked_child_holds_locks_of_its_own(tmp_path):
    path = tmp_path / "log.db"
    engine = open_database(f"sqlite:///{path}")
    LogReader(engine).counts()
    to_parent, from_child = os.pipe()
    to_child, from_parent = os.pipe()
    child = os.fork()
    if child == 0:
        LogReader(engine).counts()
        os.write(from_child, b"o")
        os.read(to_child, 1)
        os._exit(0)
    try:
        os.read(to_parent, 1)
        _assert_locked(path, child)
        LogReader(engine).counts()
        _assert_locked(path)
        _assert_locked(path, child)
    finally:
        os.write(from_parent, b"x")
        os.waitpid(child, 0)
        for descriptor in (to_parent, from_child, to_child, from_parent):
            os.close(descriptor)


_COMMANDS = """
opened = []
def hook(event, arguments):
    if event == "open" and isinstance(arguments[0], (str, bytes, os.PathLike)):
        name = os.path.basename(os.fsdecode(arguments[0]))
        if name.startswith("log.db"):
            opened.append(name)

sys.addaudithook(hook)
os.environ.update(HINS_HOME=sys.argv[2], HINS_PROJECT="p")
from hins_memory.log.capture import Capture
from hins_memory.config import Settings
from hins_memory.cli import main

for _ in range(2):
    with Capture(Settings()) as capture:
        capture.record(Turn(Scope(user="ann"), "c", "ann", "text"))
export = os.path.join(sys.argv[2], "export.jsonl")
commands = ["status", "log show", f"log export {export}", "encoders list", "encoders prune"]
for command in [*commands, "log purge --user ann --yes", "status"]:
    sys.argv = ["hins", *command.split()]
    try:
        main()
    except SystemExit:
        pass
assert opened == [], opened
"""


@pytest.mark.slow
def test_no_command_opens_the_database_by_itself(tmp_path):
    # Closing any descriptor of the file drops every lock that the process has on it; SQLite alone may open it.
    process = _start(_COMMANDS, "", tmp_path)
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 0, output
    assert (tmp_path / "p" / "log.db").is_file()


def test_all_who_open_a_log_share_one_engine(tmp_path, monkeypatch):
    path = tmp_path / "project" / "log.db"
    engine = open_database(f"sqlite:///{path}")
    (tmp_path / "link").symlink_to(path.parent)
    monkeypatch.chdir(path.parent)
    urls = [f"sqlite:///{path}", "sqlite:///log.db", f"sqlite:///{tmp_path / 'link' / 'log.db'}"]
    assert all(open_database(url) is engine for url in urls)
    # A relative path goes on meaning the file that it meant.
    monkeypatch.chdir(tmp_path)
    engine.dispose()
    LogWriter(engine).write([Turn(Scope(user="ann"), "c", "Ann", "hello")])
    assert LogReader(open_database(f"sqlite:///{path}")).counts().turns == 1
    assert list(tmp_path.glob("*.db")) == []


def _child_says(work) -> str:
    """Return what `work` gives in a forked child."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            text = str(work())
        except BaseException as error:
            text = f"{type(error).__name__}: {error}"
        os.write(write, text.encode())
        os._exit(0)
    os.waitpid(child, 0)
    text = os.read(read, 100_000).decode()
    os.close(read)
    os.close(write)
    return text


def _insert(connection: sa.Connection, name: str) -> None:
    statement = "INSERT INTO turns (id, conversation, speaker, text, time) VALUES (?, 'c', 'Ann', 'hello', 1.0)"
    connection.exec_driver_sql(statement, (name,))


@pytest.mark.slow
def test_a_child_forked_inside_of_a_transaction_is_refused_and_harms_nothing(tmp_path):
    url = f"sqlite:///{tmp_path / 'log.db'}"
    engine = open_database(url)
    with engine.begin() as connection:
        _insert(connection, "parent")

        def go_on() -> None:
            _insert(connection, "child")
            connection.commit()

        assert "before this process was forked" in _child_says(go_on)
        assert _child_says(connection.close) == "None"
        assert "LogError: " in _child_says(lambda: open_database(url))
        assert "LogError: " in _child_says(lambda: LogReader(engine).counts())
        _insert(connection, "parent too")
    assert LogReader(engine).counts().turns == 2
    # And one that is forked afterwards is not.
    assert _child_says(lambda: LogReader(open_database(url)).counts().turns) == "2"


def test_a_fork_waits_for_the_transaction_of_another_thread(tmp_path):
    url = f"sqlite:///{tmp_path / 'log.db'}"
    engine = open_database(url)
    begun, forking = threading.Event(), threading.Event()

    def write() -> None:
        with engine.begin() as connection:
            begun.set()
            forking.wait(20)
            _insert(connection, "thread")

    thread = threading.Thread(target=write)
    thread.start()
    begun.wait(20)
    threading.Timer(0.3, forking.set).start()
    assert _child_says(lambda: LogReader(open_database(url)).counts().turns) == "1"
    thread.join(20)


def test_a_fork_does_not_wait_for_ever(tmp_path, monkeypatch):
    monkeypatch.setattr(connections, "_FORK_SECONDS", 0.1)
    url = f"sqlite:///{tmp_path / 'log.db'}"
    engine = open_database(url)
    begun, done = threading.Event(), threading.Event()

    def write() -> None:
        with engine.begin() as connection:
            begun.set()
            done.wait(20)
            _insert(connection, "thread")

    thread = threading.Thread(target=write)
    thread.start()
    begun.wait(20)
    assert "forked while a transaction was open" in _child_says(lambda: open_database(url))
    done.set()
    thread.join(20)
    assert LogReader(engine).counts().turns == 1


@pytest.mark.slow
def test_threads_that_write_while_the_process_forks_lose_nothing(tmp_path):
    url = f"sqlite:///{tmp_path / 'log.db'}"
    engine = open_database(url)
    stop, written, failures = threading.Event(), [0] * 3, []

    def work(thread: int) -> None:
        try:
            while not stop.is_set():
                turn = Turn(Scope(user=f"thread {thread}"), "c", "Ann", "hello")
                LogWriter(engine).write([turn])
                written[thread] += 1
                # SQLite is not fair: without a pause the child would wait for its lock for long.
                time.sleep(0.005)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(len(written))]
    for thread in threads:
        thread.start()
    for _ in range(20):
        turn = Turn(Scope(user="child"), "c", "Ann", "hello")
        assert _child_says(lambda turn=turn: LogWriter(engine).write([turn])) == "[]"
    stop.set()
    for thread in threads:
        thread.join(60)
    assert failures == []
    assert _turns(url) == {"child": 20, **{f"thread {number}": count for number, count in enumerate(written)}}


def _write_many(engine, texts: int) -> None:
    for number in range(texts):
        turns = [Turn(Scope(user="ann"), "c", "Ann", f"{number}-{one} {'x' * 4000}") for one in range(100)]
        LogWriter(engine).write(turns)


@pytest.mark.slow
def test_the_write_ahead_log_stays_short_while_others_have_the_log_open(tmp_path, monkeypatch):
    monkeypatch.setattr(connections, "_CHECKPOINT_SECONDS", 0.0)
    url, wal = f"sqlite:///{tmp_path / 'log.db'}", tmp_path / "log.db-wal"
    engine = open_database(url)
    with engine.connect() as held:
        assert held.exec_driver_sql("PRAGMA wal_autocheckpoint").scalar() == 0
        held.rollback()
        # The last connection that closes would write it back; this one stays.
        _write_many(engine, 100)
        assert wal.stat().st_size < 4 * connections.WAL_BYTES
    assert LogReader(engine).counts().turns == 10_000
    # A snapshot holds it back, and nothing waits for that; it is cut once the reader is gone.
    with reading(engine).connect() as reader:
        assert reader.exec_driver_sql("SELECT count(*) FROM turns").scalar() == 10_000
        _write_many(engine, 60)
        assert wal.stat().st_size > 4 * connections.WAL_BYTES
    _write_many(engine, 3)
    assert wal.stat().st_size < 4 * connections.WAL_BYTES
    assert LogReader(engine).counts().turns == 16_300


def test_the_write_ahead_log_is_written_back_while_nothing_can_be_written(tmp_path, monkeypatch):
    monkeypatch.setattr(connections, "WAL_BYTES", 1)
    engine = open_database(f"sqlite:///{tmp_path / 'log.db'}")
    connect, locked = connections._connections.connect, []

    def asked(path, **options):
        with contextlib.closing(sqlite3.connect(path, timeout=0)) as another:
            with pytest.raises(sqlite3.OperationalError, match="locked"):
                another.execute("BEGIN IMMEDIATE")
            locked.append(path)
        return connect(path, **options)

    LogWriter(engine).write([Turn(Scope(user="ann"), "c", "Ann", "hello")])
    with engine.connect():
        # Opened before what a checkpoint opens.
        monkeypatch.setattr(connections._connections, "connect", asked)
        monkeypatch.setattr(connections, "_CHECKPOINT_SECONDS", 0.0)
    assert locked
    LogWriter(engine).write([Turn(Scope(user="ann"), "c", "Ann", "again")])
    assert LogReader(engine).counts().turns == 2


def test_a_log_that_is_moved_away_is_noticed(tmp_path):
    url = f"sqlite:///{tmp_path / 'log.db'}"
    engine = open_database(url)
    LogWriter(engine).write([Turn(Scope(user="ann"), "c", "Ann", "hello")])
    engine.dispose()
    LogReader(engine).counts()
    (tmp_path / "log.db").rename(tmp_path / "old.db")
    # Not written into the file that has another name now.
    with pytest.raises(LogError, match="unable to open"):
        LogWriter(engine).write([Turn(Scope(user="ann"), "c", "Ann", "hello")])
    assert LogWriter(open_database(url)).write([Turn(Scope(user="ann"), "c", "Ann", "hello")]) == []
    assert LogReader(engine).counts().turns == 1
