"""What can go wrong with a real process and a real disk: kill -9, several writers at once, a full disk, a fork."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from hins_memory.config import Settings
from hins_memory.database.engine import open_database, reading
from hins_memory.log.reader import LogReader
from hins_memory.types import ScopeLog

pytestmark = [
    pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX signals, limits and fork"),
    pytest.mark.usefixtures("forked_programs"),
]

_PRELUDE = """
import os, resource, sys, time
from hins_memory.log.capture import Capture
from hins_memory.config import Settings
from hins_memory.types import *

home, name = sys.argv[1:3]
scope = Scope(user=name)

def record(capture, number):
    key = f"{name}-{number}"
    capture.record(Turn(scope, "c", name, "turn " * 20, id="t" + key))
    capture.record(Memory("m" + key, scope, "c", "memory " * 20, name, ("t" + key,)))
    results = tuple(RankedMemory(f"m{name}-{number - rank}", "memory " * 20, 0.5) for rank in range(10))
    capture.record(Retrieval(scope, "query", results, id="r" + key))
    capture.record(Answer("r" + key, "answer " * 20))
    capture.record(Feedback("m" + key, "POSITIVE"))

capture = Capture(Settings(home=home, project="p", log_url=""))
"""

_LOOP = """
record(capture, 0)
assert capture.flush(60)
number = 0
while True:
    number += 1
    record(capture, number)
    print(number, time.time(), flush=True)
    time.sleep(0.002)
"""

_FRESH = """
for number in range(100_000):
    capture.record(Turn(scope, "c", name, "turn", id=str(number)))
    print(number, time.time(), flush=True)
    time.sleep(0.002)
"""

_BURST = """
for number in range(300):
    record(capture, number)
    if number % 100 == 99:
        assert capture.flush(120)
capture.close(120)
sys.exit(capture.dropped)
"""

_FULL_DISK = """
record(capture, 0)
assert capture.flush(60)
size = max(os.path.getsize(os.path.join(home, "p", file)) for file in os.listdir(os.path.join(home, "p")))
unlimited = resource.getrlimit(resource.RLIMIT_FSIZE)
resource.setrlimit(resource.RLIMIT_FSIZE, (size + 4096, unlimited[1]))
for number in range(1, 301):
    record(capture, number)
assert not capture.flush(1.5), "the disk should be full"
resource.setrlimit(resource.RLIMIT_FSIZE, unlimited)
assert capture.flush(60), "the disk has room again"
capture.close()
sys.exit(capture.dropped)
"""

_FORK = """
record(capture, 0)
assert capture.flush(60)
record(capture, 1)  # still in the parent's queue at the fork
go_read, go_write = os.pipe()
child = os.fork()
if child == 0:
    name = "child"
    scope = Scope(user=name)
    record(capture, 0)
    assert capture.flush(60)
    os.read(go_read, 1)  # the parent has closed the database, and would have cut its log if we held no lock
    record(capture, 1)
    capture.close()
    os._exit(capture.dropped)
record(capture, 2)
capture.close()
os.write(go_write, b"g")
_, status = os.waitpid(child, 0)
sys.exit(os.waitstatus_to_exitcode(status) + capture.dropped)
"""


def _start(code: str, home: Path, name: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", _PRELUDE + code, str(home), name]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


#: The machine, not the process, makes it wait for longer than this between two events.
_STALL = 0.05


def _older_than_a_second_at_the_kill(process: subprocess.Popen[str], count: int, seconds: float) -> list[int]:
    """Kill a process that has recorded for some seconds; return the numbers of what it had recorded a second before.

    Time in which the machine let the process wait does not count.
    """
    assert process.stdout is not None
    recorded: list[tuple[int, float]] = []
    running, before = 0.0, 0.0
    while running < seconds or sum(at < running - 1.2 for _, at in recorded) <= count:
        number, at = process.stdout.readline().split()
        running += min(float(at) - before, _STALL) if recorded else 0.0
        before = float(at)
        recorded.append((int(number), running))
    os.kill(process.pid, signal.SIGKILL)
    process.communicate(timeout=60)
    return [number for number, at in recorded if at < running - 1]


def _logs(home: Path) -> dict[str, ScopeLog]:
    engine = open_database(Settings(home=home, project="p", log_url="").database_url)
    with reading(engine).connect() as connection:
        assert connection.exec_driver_sql("PRAGMA integrity_check").scalar() == "ok"
        assert connection.exec_driver_sql("PRAGMA foreign_key_check").all() == []
    logs = {log.scope.user: log for log in LogReader(engine).scope_logs()}
    engine.dispose()
    return logs


def _assert_complete(log: ScopeLog, name: str, count: int) -> None:
    expected = {f"{name}-{number}" for number in range(count)}
    assert {turn.id[1:] for turn in log.turns} == expected
    assert {memory.id[1:] for memory in log.memories} == expected
    assert {retrieval.id[1:] for retrieval in log.retrievals} == expected
    assert {answer.retrieval_id[1:] for answer in log.answers} == expected
    assert {item.retrieval_id[1:] for item in log.feedback} == expected
    assert all(len(retrieval.results) == 10 for retrieval in log.retrievals)


@pytest.mark.slow
def test_kill_9_loses_nothing_older_than_a_second_and_leaves_the_log_consistent(tmp_path):
    process = _start(_LOOP, tmp_path, "ann")
    acknowledged = max(_older_than_a_second_at_the_kill(process, 50, 2.5))
    assert acknowledged > 50
    log = _logs(tmp_path)["ann"]
    turn_ids = {turn.id for turn in log.turns}
    retrieval_ids = {retrieval.id for retrieval in log.retrievals}
    assert {f"tann-{number}" for number in range(acknowledged + 1)} <= turn_ids
    assert {f"rann-{number}" for number in range(acknowledged + 1)} <= {answer.retrieval_id for answer in log.answers}
    # Whatever was being written at the kill is there whole or not at all.
    assert all(len(retrieval.results) == 10 for retrieval in log.retrievals)
    assert all(memory.turn_ids and memory.turn_ids[0] in turn_ids for memory in log.memories)
    assert {outcome.retrieval_id for outcome in (*log.answers, *log.feedback)} <= retrieval_ids


@pytest.mark.slow
def test_kill_9_on_a_fresh_log_loses_nothing_older_than_a_second_either(tmp_path):
    # The database is made while the events wait.
    process = _start(_FRESH, tmp_path, "ann")
    recorded = {str(number) for number in _older_than_a_second_at_the_kill(process, 1, 1.2)}
    assert recorded
    assert recorded <= {turn.id for turn in _logs(tmp_path)["ann"].turns}


@pytest.mark.slow
def test_processes_that_write_at_once_lose_nothing(tmp_path):
    names = ["ann", "bob", "cem", "dua"]
    processes = [_start(_BURST, tmp_path, name) for name in names]
    outputs = [process.communicate(timeout=300) for process in processes]
    assert [process.returncode for process in processes] == [0] * 4, outputs
    logs = _logs(tmp_path)
    for name in names:
        _assert_complete(logs[name], name, 300)


@pytest.mark.slow
def test_a_full_disk_delays_events_and_loses_none(tmp_path):
    process = _start(_FULL_DISK, tmp_path, "ann")
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    # Said once, not with every attempt.
    assert errors.count("cannot be written") == 1
    _assert_complete(_logs(tmp_path)["ann"], "ann", 301)


@pytest.mark.slow
def test_a_forked_child_writes_its_own_events_and_the_parent_its_own(tmp_path):
    process = _start(_FORK, tmp_path, "ann")
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    logs = _logs(tmp_path)
    _assert_complete(logs["ann"], "ann", 3)
    _assert_complete(logs["child"], "child", 2)
