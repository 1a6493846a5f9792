"""Capture: nothing is lost but what may be, nothing is raised into the agent, and the hot path stays short."""

from __future__ import annotations

import logging
import sqlite3
import subprocess
import sys
import threading
import time
from pathlib import Path

import pluggy
import pytest

from hins_memory.config import Settings
from hins_memory.database.engine import open_database
from hins_memory.log.capture import Capture
from hins_memory.log.reader import LogReader
from hins_memory.plugins import manager as plugins
from hins_memory.plugins.hookspecs import hookimpl
from hins_memory.types import Answer, Event, Feedback, Memory, RankedMemory, Retrieval, Scope, ScopeLog, Turn

ANN = Scope(user="ann")


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(home=tmp_path, project="p", log_url="", capture=True, flush_seconds=0.05)


def _turn(number: int, text: str = "hello") -> Turn:
    return Turn(ANN, "monday", "Ann", text, id=f"t{number}")


def _retrieval(number: int) -> Retrieval:
    return Retrieval(ANN, "query", (RankedMemory("m1", "text", 0.5),), id=f"r{number}")


def _log(settings: Settings) -> ScopeLog:
    engine = open_database(settings.database_url)
    logs = list(LogReader(engine).scope_logs([ANN]))
    engine.dispose()
    return logs[0] if logs else ScopeLog(ANN)


def _wait_until(condition, seconds: float = 20.0) -> bool:
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.02)
    return bool(condition())


class _Lock:
    """Holds the write lock of a project's database, as another process would."""

    def __init__(self, settings: Settings) -> None:
        open_database(settings.database_url).dispose()
        self._connection = sqlite3.connect(settings.root / "log.db", isolation_level=None)

    def __enter__(self) -> None:
        self._connection.execute("BEGIN IMMEDIATE")

    def __exit__(self, *_: object) -> None:
        self._connection.execute("ROLLBACK")
        self._connection.close()


def test_what_was_recorded_is_in_the_log_after_a_flush(settings):
    events: list[Event] = [
        _turn(1),
        Memory("m1", ANN, "monday", "Ann likes tea", "Ann", ("t1",)),
        _retrieval(1),
        Answer("r1", "Tea."),
        Feedback("m1", "POSITIVE", "r1"),
    ]
    with Capture(settings) as capture:
        for event in events:
            capture.record(event)
        assert capture.flush()
        log = _log(settings)
        assert [*log.turns, *log.memories, *log.retrievals, *log.answers, *log.feedback] == events
    assert capture.dropped == 0


def test_events_reach_the_log_within_a_second_without_a_flush(settings):
    with Capture(settings) as capture:
        capture.record(_turn(1))
        assert capture.flush()  # creates the database
        start = time.monotonic()
        capture.record(_turn(2))
        assert _wait_until(lambda: len(_log(settings).turns) == 2)
        assert time.monotonic() - start < 1.0


def test_recording_takes_microseconds(settings):
    with Capture(settings) as capture:
        retrieval = _retrieval(1)
        durations = []
        for _ in range(2000):
            start = time.perf_counter()
            capture.record(retrieval)
            durations.append(time.perf_counter() - start)
        assert sorted(durations)[1000] < 50e-6


def test_nothing_is_recorded_and_no_file_made_when_capture_is_off(tmp_path):
    settings = Settings(home=tmp_path / "home", project="p", log_url="", capture=False)
    with Capture(settings) as capture:
        capture.record(_turn(1))
        assert capture.flush(1)
    assert not (tmp_path / "home").exists()
    assert capture.dropped == 0


def test_no_file_is_made_before_the_first_event(settings):
    with Capture(settings) as capture:
        assert capture.flush(1)
    assert not settings.root.exists()


def test_a_full_queue_drops_the_oldest_retrievals_and_nothing_else(tmp_path):
    settings = Settings(home=tmp_path, project="p", log_url="", capture=True, queue_size=10, flush_seconds=0.05)
    with _Lock(settings):
        capture = Capture(settings)
        capture.record(_turn(0))
        # The writer now holds this first chunk, and waits for the lock.
        assert _wait_until(lambda: not capture._queue._events)
        for number in range(1, 1001):
            capture.record(_turn(number))
            capture.record(_retrieval(number))
        capture.record(Answer("r1", "to a retrieval that was dropped"))
        capture.record(Answer("r1000", "to one that was kept"))
        assert capture.dropped == 990
        assert not capture.flush(0.1)
    assert capture.flush(60)
    log = _log(settings)
    assert len(log.turns) == 1001
    assert [retrieval.id for retrieval in log.retrievals] == [f"r{number}" for number in range(991, 1001)]
    assert [answer.retrieval_id for answer in log.answers] == ["r1000"]
    capture.close()
    assert capture.dropped == 991


def test_threads_may_share_one_capture(settings):
    with Capture(settings) as capture:

        def record(start: int) -> None:
            for number in range(start, start + 500):
                capture.record(_turn(number))

        threads = [threading.Thread(target=record, args=(start,)) for start in (0, 500, 1000, 1500)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert {turn.id for turn in _log(settings).turns} == {f"t{number}" for number in range(2000)}


def test_a_database_that_cannot_be_opened_costs_nothing_until_it_can(settings, caplog):
    settings.home.mkdir(exist_ok=True)
    settings.root.write_text("a file is in the way of the folder")
    with Capture(settings) as capture, caplog.at_level(logging.WARNING):
        capture.record(_turn(1))
        assert not capture.flush(0.5)
        capture.record(_turn(2))
        assert not capture.flush(0.5)
        settings.root.unlink()
        assert capture.flush(20)
    assert len(_log(settings).turns) == 2
    assert capture.dropped == 0
    assert caplog.text.count("cannot be written") == 1


def test_closing_gives_up_on_a_database_that_stays_away_and_says_what_is_lost(settings, caplog):
    settings.root.write_text("a file is in the way of the folder")
    capture = Capture(settings)
    for number in range(3):
        capture.record(_turn(number))
    start = time.monotonic()
    capture.close(timeout=0.3)
    assert time.monotonic() - start < 5
    assert capture.dropped == 3
    assert "3 events could not be written" in caplog.text


def test_an_event_that_no_database_takes_costs_only_itself(settings):
    with Capture(settings) as capture:
        capture.record(_turn(1))
        capture.record(_turn(2, text="fine"))
        capture.record(Turn(ANN, "monday", "Ann", "too long an id", id="i" * 100_000))
        capture.record("not an event")  # type: ignore[arg-type]
        capture.record(Turn(None, "monday", "Ann", "no scope"))  # type: ignore[arg-type]
        capture.record(Turn(ANN, "monday", "Ann", "lone \ud83d, NUL \x00, 😀", id="t3"))
        assert capture.flush(20)
    assert [turn.text for turn in _log(settings).turns] == ["hello", "fine", "lone \ufffd, NUL \ufffd, 😀"]
    assert capture.dropped == 3


def test_an_outcome_may_come_before_its_retrieval_that_another_process_writes(settings):
    with Capture(settings) as here, Capture(settings) as there:
        here.record(Answer("r1", "Tea."))
        assert here.flush(20)
        assert _log(settings).answers == ()
        there.record(_retrieval(1))
        assert there.flush(20)
        assert _wait_until(lambda: len(_log(settings).answers) == 1)
    assert here.dropped == 0


class _Redaction:
    @hookimpl
    def hins_redact(self, event: Event) -> Event | None:
        if isinstance(event, Turn) and "secret" in event.text:
            return None
        if isinstance(event, Turn) and "broken" in event.text:
            raise RuntimeError("a plugin's own error")
        if isinstance(event, Turn) and "phone" in event.text:
            return Turn(event.scope, event.conversation, event.speaker, "[redacted]", event.time, event.id)
        return event


@pytest.fixture
def redaction() -> object:
    manager: pluggy.PluginManager = plugins.get_plugin_manager()
    plugin = _Redaction()
    manager.register(plugin)
    yield plugin
    manager.unregister(plugin)


@pytest.mark.usefixtures("redaction")
def test_redaction_sees_every_event_before_it_is_written(settings):
    with Capture(settings) as capture:
        for number, text in enumerate(["my secret", "broken", "my phone number", "hello"]):
            capture.record(_turn(number, text))
    assert [turn.text for turn in _log(settings).turns] == ["[redacted]", "hello"]
    content = b"".join(path.read_bytes() for path in settings.root.iterdir())
    assert b"secret" not in content
    # Left out on purpose is not lost.
    assert capture.dropped == 0


def test_after_close_nothing_is_recorded(settings):
    others = set(threading.enumerate())
    capture = Capture(settings)
    capture.record(_turn(1))
    capture.close()
    capture.close()
    capture.record(_turn(2))
    assert capture.flush(1)
    assert len(_log(settings).turns) == 1
    assert "hins-capture" not in [thread.name for thread in set(threading.enumerate()) - others]


def test_what_waits_is_written_when_the_interpreter_ends(tmp_path):
    code = (
        "import sys; from hins_memory.log.capture import Capture; from hins_memory.config import Settings\n"
        "from hins_memory.types import *\n"
        "capture = Capture(Settings(home=sys.argv[1], project='p', log_url='', flush_seconds=0.9))\n"
        "[capture.record(Turn(Scope(user='ann'), 'c', 'Ann', 'text')) for _ in range(700)]\n"
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True, timeout=120)
    assert len(_log(Settings(home=tmp_path, project="p", log_url="")).turns) == 700
