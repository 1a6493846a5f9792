"""A machine that uses one log from several processes, kills them, forks them, and knows what was acknowledged.

HINS_ATTACK_STEPS=2000 says how many steps it takes; docs/reliability.md has the figures of a long run.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from multiprocessing.connection import Connection, Listener
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test
from log_worker import work

from hins_memory.config import Settings
from hins_memory.database.engine import open_database, reading
from hins_memory.log.reader import LogReader
from hins_memory.types import Deletion, Event, Memory, Scope, Turn

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX signals and fork")

_STEPS = int(os.environ.get("HINS_ATTACK_STEPS", "120"))
_STEPS_OF_ONE = 40
_WORKERS = 4
_SECONDS = 60.0
_users = st.sampled_from(["ann", "bob"])
_which = st.integers(0, _WORKERS - 1)
_context = multiprocessing.get_context("fork")
#: What all runs did, for the figures.
done: Counter[str] = Counter()


class _Process:
    """A worker, and what it has recorded that it need not have written yet."""

    def __init__(self, channel: Connection) -> None:
        self.channel = channel
        self.pid: int = channel.recv()
        self.pending: dict[str, str] = {}
        self.open = False

    def ask(self, name: str, *arguments: object) -> object:
        self.channel.send((name, arguments))
        assert self.channel.poll(_SECONDS), f"a worker did not answer {name}"
        answer = self.channel.recv()
        if isinstance(answer, BaseException):
            raise answer
        return answer

    def wait_for_end(self) -> None:
        with contextlib.suppress(EOFError, ConnectionError):
            while self.channel.poll(_SECONDS):
                self.channel.recv()
        with contextlib.suppress(ChildProcessError):
            os.waitpid(self.pid, 0)
        self.channel.close()


class LogMachine(RuleBasedStateMachine):
    """Several processes over one log. `turns` and `memories` are what the log must hold, `perhaps` what it may."""

    def __init__(self) -> None:
        super().__init__()
        self._folder = tempfile.mkdtemp(prefix="hins-attack-")
        self._listener = Listener(f"{self._folder}/socket", "AF_UNIX")
        self._settings = Settings(home=Path(self._folder), project="p", log_url="")
        self._workers: list[_Process] = []
        self._numbers = iter(range(1_000_000))
        self.turns: dict[str, str] = {}
        self.memories: dict[str, tuple[str, str]] = {}
        # Turns of transactions that a kill interrupted, and those that wait in a queue: together, or none.
        self.perhaps: list[set[str]] = []
        self._start()

    def _start(self) -> None:
        process = _context.Process(target=work, args=(self._listener.address, self._folder), daemon=True)
        process.start()
        self._workers.append(_Process(self._listener.accept()))

    def _worker(self, which: int) -> _Process:
        return self._workers[which % len(self._workers)]

    def _turn(self, user: str) -> Turn:
        return Turn(Scope(user=user), "c", "Ann", "text " * 100, id=f"t{next(self._numbers)}")

    @precondition(lambda self: len(self._workers) < _WORKERS)
    @rule()
    def start(self) -> None:
        done["start"] += 1
        self._start()

    @rule(which=_which, user=_users, count=st.integers(1, 40))
    def write(self, which: int, user: str, count: int) -> None:
        done["write"] += 1
        turns = [self._turn(user) for _ in range(count)]
        worker = self._worker(which)
        worker.ask("write", turns)
        worker.open = True
        self.turns.update((turn.id, user) for turn in turns)

    @rule(which=_which, user=_users, memory=st.integers(0, 5), delete=st.booleans())
    def change_a_memory(self, which: int, user: str, memory: int, delete: bool) -> None:
        done["change a memory"] += 1
        memory_id = f"{user}-{memory}"
        event: Event = Deletion(Scope(user=user), memory_id)
        if not delete:
            event = Memory(memory_id, Scope(user=user), "c", f"text {next(self._numbers)}")
        worker = self._worker(which)
        worker.ask("write", [event])
        worker.open = True
        if isinstance(event, Memory):
            self.memories[memory_id] = (user, event.text)
        else:
            self.memories.pop(memory_id, None)

    @rule(which=_which, user=_users, count=st.integers(1, 40), flush=st.booleans())
    def record(self, which: int, user: str, count: int, flush: bool) -> None:
        done["record"] += 1
        turns = {turn.id: turn for turn in (self._turn(user) for _ in range(count))}
        worker = self._worker(which)
        worker.pending.update(dict.fromkeys(turns, user))
        if worker.ask("record", list(turns.values()), flush):
            worker.open = True
            self._written(worker)
        else:
            assert not flush

    def _written(self, worker: _Process) -> None:
        self.turns.update(worker.pending)
        worker.pending = {}

    @rule(which=_which)
    def open_again(self, which: int) -> None:
        done["open again"] += 1
        self._worker(which).ask("open_again")

    @rule(which=_which)
    def let_go(self, which: int) -> None:
        done["close"] += 1
        worker = self._worker(which)
        worker.ask("let_go")
        # Its capture may be about to open it again.
        worker.open = False

    @rule(which=_which)
    def read(self, which: int) -> None:
        done["read"] += 1
        self._check(*self._worker(which).ask("read"))  # type: ignore[misc]

    @rule(which=_which, user=_users)
    def purge(self, which: int, user: str) -> None:
        done["purge"] += 1
        self._worker(which).ask("purge", user)
        self.turns = {turn: owner for turn, owner in self.turns.items() if owner != user}
        self.memories = {memory: pair for memory, pair in self.memories.items() if pair[0] != user}
        # What waits in a queue may have been written before the purge, or may come after it.
        for worker in self._workers:
            waiting = {turn for turn, owner in worker.pending.items() if owner == user}
            worker.pending = {turn: owner for turn, owner in worker.pending.items() if owner != user}
            self.perhaps += [{turn} for turn in waiting]

    @precondition(lambda self: len(self._workers) < _WORKERS)
    @rule(which=_which)
    def fork(self, which: int) -> None:
        done["fork"] += 1
        worker = self._worker(which)
        worker.ask("fork")
        self._workers.append(_Process(self._listener.accept()))
        worker.open = False

    @rule(which=_which, user=_users)
    def fork_in_a_transaction(self, which: int, user: str) -> None:
        done["fork in a transaction"] += 1
        turn_id = f"t{next(self._numbers)}"
        self._worker(which).ask("fork_in_transaction", user, turn_id)
        self.turns[turn_id] = user

    @rule(which=_which, user=_users, delay=st.floats(0, 0.02))
    def kill_while_it_writes(self, which: int, user: str, delay: float) -> None:
        done["kill -9 in a write"] += 1
        worker = self._worker(which)
        batch = [self._turn(user) for _ in range(400)]
        worker.channel.send(("write", (batch,)))
        time.sleep(delay)
        self._kill(worker)
        self.perhaps.append({turn.id for turn in batch})

    @rule(which=_which)
    def kill(self, which: int) -> None:
        done["kill -9"] += 1
        self._kill(self._worker(which))

    def _kill(self, worker: _Process) -> None:
        os.kill(worker.pid, signal.SIGKILL)
        worker.wait_for_end()
        self.perhaps += [{turn} for turn in worker.pending]
        self._gone(worker)

    @rule(which=_which)
    def end(self, which: int) -> None:
        done["clean end"] += 1
        worker = self._worker(which)
        worker.ask("end")
        self._written(worker)
        worker.wait_for_end()
        self._gone(worker)

    def _gone(self, worker: _Process) -> None:
        self._workers.remove(worker)
        if not self._workers:
            self._start()

    @rule()
    def look_from_elsewhere(self) -> None:
        """Another process opens the log, looks and ends, as `hins status` does."""
        done["status"] += 1
        process = _context.Process(target=_status, args=(self._settings.database_url,))
        process.start()
        process.join(_SECONDS)
        assert process.exitcode == 0

    @invariant()
    def nothing_acknowledged_is_lost(self) -> None:
        # By this process, which thereby opens and closes the log all the time, too.
        engine = open_database(self._settings.database_url)
        logs = list(LogReader(engine).scope_logs())
        self._check(
            {turn.id for log in logs for turn in log.turns},
            {memory.id: memory.text for log in logs for memory in log.memories},
        )
        engine.dispose()

    def _check(self, turns: set[str], memories: dict[str, str]) -> None:
        missing = set(self.turns) - turns
        assert not missing, f"{len(missing)} acknowledged turns are lost"
        assert memories == {memory: text for memory, (_, text) in self.memories.items()}
        others = turns - set(self.turns) - {turn for worker in self._workers for turn in worker.pending}
        for batch in self.perhaps:
            assert not batch & turns or batch <= turns, "half of a transaction is there"
            others -= batch
        assert not others, "there are turns that were purged, or that nobody wrote"

    @invariant()
    def who_has_the_log_open_holds_its_locks(self) -> None:
        if not os.access("/proc/locks", os.R_OK):
            return
        inode = (self._settings.root / "log.db").stat().st_ino
        fields = [line.split() for line in Path("/proc/locks").read_text().splitlines()]
        holders = {
            field[4]
            for field in fields
            if field[1:4] == ["POSIX", "ADVISORY", "READ"] and field[5].endswith(f":{inode}")
        }
        assert {str(worker.pid) for worker in self._workers if worker.open} <= holders

    def teardown(self) -> None:
        for worker in self._workers:
            with contextlib.suppress(ProcessLookupError):
                os.kill(worker.pid, signal.SIGKILL)
            worker.wait_for_end()
        self._listener.close()
        try:
            engine = open_database(self._settings.database_url)
            with reading(engine).connect() as connection:
                assert connection.exec_driver_sql("PRAGMA integrity_check").scalar() == "ok"
                assert connection.exec_driver_sql("PRAGMA foreign_key_check").all() == []
            engine.dispose()
        finally:
            shutil.rmtree(self._folder)


def _status(url: str) -> None:
    engine = open_database(url)
    LogReader(engine).counts()
    engine.dispose()


@pytest.mark.slow
def test_nothing_acknowledged_is_lost_whatever_processes_do():
    run_state_machine_as_test(
        LogMachine,
        settings=settings(
            max_examples=max(_STEPS // _STEPS_OF_ONE, 1),
            stateful_step_count=_STEPS_OF_ONE,
            deadline=None,
            # No shrinking: what processes do in which order is not the same twice.
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        ),
    )
    print(sum(done.values()), "steps:", dict(done.most_common()))  # noqa: T201
