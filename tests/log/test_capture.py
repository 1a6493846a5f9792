"""Capture: nothing is lost but what may be, nothing is raised into the agent, and the hot path stays short."""

from __future__ import annotations

import logging
import os
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pluggy
import pytest
from typer.testing import CliRunner

from hins_memory.cli import app
from hins_memory.config import Settings
from hins_memory.database.engine import open_database
from hins_memory.log.capture import Capture
from hins_memory.log.reader import LogReader
from hins_memory.loop.pipeline import Pipeline
from hins_memory.plugins import manager as plugins
from hins_memory.plugins.hookspecs import hookimpl
from hins_memory.types import Answer, Deletion, Event, Feedback, Memory, RankedMemory, Retrieval, Scope, ScopeLog, Turn

ANN = Scope(user="ann")


@pytest.fixture(autouse=True)
def quick_writer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hins_memory.log.capture._FLUSH_SECONDS", 0.05)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(home=tmp_path, project="p", log_url="", capture=True)


def _turn(number: int, text: str = "hello") -> Turn:
    return Turn(ANN, "monday", "Ann", text, id=f"t{number}")


def _retrieval(number: int) -> Retrieval:
    return Retrieval(ANN, "query", (RankedMemory("m1", "text", 0.5),), id=f"r{number}")


def _log(settings: Settings) -> ScopeLog:
    engine = open_database(settings.database_url)
    logs = list(LogReader(engine).scope_logs([ANN]))
    engine.dispose()
    return logs[0] if logs else ScopeLog(ANN)


def _wait_until(condition, seconds: float = 60.0) -> bool:
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
        seconds = []
        # A machine that stalls delays some of them, a slow writer all.
        while len(seconds) < 5 and min(seconds, default=1.0) >= 1.0:
            count = len(seconds) + 2
            start = time.monotonic()
            capture.record(_turn(count))
            assert _wait_until(lambda count=count: len(_log(settings).turns) == count)
            seconds.append(time.monotonic() - start)
        assert min(seconds) < 1.0


def test_recording_takes_microseconds(settings):
    with Capture(settings) as capture:
        retrieval = _retrieval(1)
        medians = []
        for _ in range(5):
            durations = []
            for _ in range(400):
                start = time.perf_counter()
                capture.record(retrieval)
                durations.append(time.perf_counter() - start)
            medians.append(sorted(durations)[200])
        assert min(medians) < 50e-6


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


def test_a_full_queue_drops_the_oldest_retrievals_and_nothing_else(tmp_path, monkeypatch):
    monkeypatch.setattr("hins_memory.log.queue.MAX_RETRIEVALS", 10)
    settings = Settings(home=tmp_path, project="p", log_url="", capture=True)
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


@pytest.mark.slow
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


@pytest.mark.slow
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
    """A plugin with a hook that does what a turn's text says; `go` ends the hanging."""

    def __init__(self) -> None:
        self.go = threading.Event()

    @hookimpl
    def hins_redact(self, event: Event) -> Event | None:
        text = event.text if isinstance(event, Turn) else ""
        if "secret" in text:
            return None
        if "broken" in text:
            raise RuntimeError("a plugin's own error")
        if "exit" in text:
            raise SystemExit(3)
        if "hang" in text:
            self.go.wait(60)
        if isinstance(event, Turn) and "phone" in text:
            return Turn(event.scope, event.conversation, event.speaker, "[redacted]", event.time, event.id)
        return event


@pytest.fixture
def redaction() -> Iterator[_Redaction]:
    manager: pluggy.PluginManager = plugins.get_plugin_manager()
    plugin = _Redaction()
    manager.register(plugin)
    yield plugin
    plugin.go.set()
    manager.unregister(plugin)


@pytest.mark.usefixtures("redaction")
def test_redaction_sees_every_event_before_it_is_written(settings):
    with Capture(settings) as capture:
        for number, text in enumerate(["my secret", "my phone number", "hello"]):
            capture.record(_turn(number, text))
    assert [turn.text for turn in _log(settings).turns] == ["[redacted]", "hello"]
    content = b"".join(path.read_bytes() for path in settings.root.iterdir())
    assert b"secret" not in content
    # Left out on purpose is not lost.
    assert capture.dropped == 0


@pytest.mark.usefixtures("redaction")
def test_a_redaction_that_fails_costs_its_event_and_is_told(settings, caplog):
    with Capture(settings) as capture:
        for number, text in enumerate(["one", "broken", "two", "exit", "three"]):
            capture.record(_turn(number, text))
        assert capture.flush(20)
        capture.record(_turn(9, "four"))
    assert [turn.text for turn in _log(settings).turns] == ["one", "two", "three", "four"]
    assert capture.dropped == capture.stats().redaction_failed == 2
    assert caplog.text.count("the event is left out") == 2


def test_a_redaction_that_hangs_costs_its_event_and_is_told(settings, redaction, monkeypatch, caplog):
    monkeypatch.setattr("hins_memory.log.redaction._HANGS_SECONDS", 0.5)
    with Capture(settings) as capture:
        for number, text in enumerate(["one", "hang", "two", "hang", "three"]):
            capture.record(_turn(number, text))
        assert capture.flush(20)
        assert [turn.text for turn in _log(settings).turns] == ["one", "two", "three"]
        # One that comes back late is not written either: what it took for granted may not be so any more.
        redaction.go.set()
        capture.record(_turn(9, "four"))
    assert [turn.text for turn in _log(settings).turns] == ["one", "two", "three", "four"]
    assert capture.dropped == capture.stats().redaction_hung == 2
    assert caplog.text.count("has not returned") == 2


@pytest.mark.slow
def test_with_four_redactions_hanging_nothing_unredacted_is_written_until_one_returns(
    settings, redaction, monkeypatch, caplog
):
    monkeypatch.setattr("hins_memory.log.redaction._HANGS_SECONDS", 0.1)
    with Capture(settings) as capture:
        for number in range(4):
            capture.record(_turn(number, "hang"))
        capture.record(_turn(5, "my secret"))
        capture.record(_turn(6, "hello"))
        assert _wait_until(lambda: "nothing is recorded until one returns" in caplog.text)
        assert not capture.flush(0.5)
        assert _log(settings).turns == ()
        # What does not hang has as much time as it needs.
        monkeypatch.setattr("hins_memory.log.redaction._HANGS_SECONDS", 30.0)
        redaction.go.set()
        assert capture.flush(20)
    assert [turn.text for turn in _log(settings).turns] == ["hello"]


class _Evil:
    """A value whose text cannot be had."""

    def __init__(self, error: BaseException) -> None:
        self._error = error

    def __str__(self) -> str:
        raise self._error


@pytest.mark.parametrize("error", [SystemExit(1), OverflowError(), RecursionError(), KeyError("x"), MemoryError()])
def test_whatever_an_event_raises_costs_itself_alone(settings, error):
    with Capture(settings) as capture:
        for number in range(400):
            capture.record(_turn(number))
        capture.record(Turn(ANN, "monday", "Ann", _Evil(error)))  # type: ignore[arg-type]
        capture.record(Memory("m", ANN, "monday", "text", time=_Evil(error)))  # type: ignore[arg-type]
        capture.record(_turn(400))
        assert capture.flush(20)
    assert len(_log(settings).turns) == 401
    assert capture.dropped == 2
    assert capture.stats().restarts == 0


def test_a_writer_that_fails_by_what_was_not_foreseen_is_restarted_and_says_so(settings, caplog):
    capture = Capture(settings)
    queue = capture._queue
    failures = [SystemExit(1), RuntimeError("odd")]

    class _Odd(type(queue)):
        def take(self, *arguments):
            if failures:
                raise failures.pop()
            return super().take(*arguments)

    queue.__class__ = _Odd
    capture.record(_turn(1))
    assert capture.flush(20)
    assert len(_log(settings).turns) == 1
    assert capture.stats().restarts == 2
    assert caplog.text.count("was restarted") == 2
    capture.close()


def test_bytes_bound_the_queue_and_the_oldest_retrievals_go_first(tmp_path):
    settings = Settings(home=tmp_path, project="p", log_url="", queue_bytes=1_000_000)
    with _Lock(settings):
        capture = Capture(settings)
        capture.record(_turn(0))
        assert _wait_until(lambda: not capture._queue._events)
        for number in range(1, 41):
            capture.record(Turn(ANN, "monday", "Ann", "x" * 10_000, id=f"t{number}"))
            capture.record(Retrieval(ANN, "q" * 20_000, (), id=f"r{number}"))
        stats = capture.stats()
        assert stats.waiting_bytes <= 1_000_000
        assert (stats.pushed_out, stats.dropped > 0) == (0, True)
    assert capture.flush(60)
    log = _log(settings)
    assert len(log.turns) == 41
    assert [retrieval.id for retrieval in log.retrievals] == [
        f"r{number}" for number in range(41 - len(log.retrievals), 41)
    ]
    assert len(log.retrievals) == 40 - capture.dropped > 0
    capture.close()


def test_turns_go_only_when_there_is_no_retrieval_left_and_deletions_never(tmp_path, caplog):
    settings = Settings(home=tmp_path, project="p", log_url="", queue_bytes=100_000)
    with Capture(settings) as capture:
        capture.record(Memory("m1", ANN, "monday", "Ann likes tea"))
        assert capture.flush(20)
        with _Lock(settings):
            capture.record(_turn(0))
            assert _wait_until(lambda: not capture._queue._events)
            capture.record(Deletion(ANN, "m1"))
            capture.record(_retrieval(1))
            # Larger than the queue by itself: it pushes nothing out.
            capture.record(_turn(1, "x" * 1_000_000))
            assert (capture.stats().pushed_out, capture.dropped) == (1, 1)
            for number in range(2, 22):
                capture.record(_turn(number, "x" * 10_000))
            assert capture.stats().waiting_bytes <= 100_000
        assert capture.flush(60)
    log = _log(settings)
    assert log.deleted == 1
    assert log.retrievals == ()
    kept = [turn.id for turn in log.turns]
    assert kept == ["t0", *(f"t{number}" for number in range(23 - len(kept), 22))]
    assert capture.stats().pushed_out == 22 - len(kept)
    assert "turns, memories or outcomes found no room" in caplog.text


@pytest.mark.usefixtures("redaction")
def test_what_was_lost_is_told_by_status_after_the_process_has_ended(settings):
    with Capture(settings) as capture:
        capture.record(_turn(1))
        assert capture.flush(20)
        assert Pipeline(settings).status().losses == ()
        capture.record(_turn(2, "broken"))
        assert capture.flush(20)
        capture.record(Turn(ANN, "monday", "Ann", "too long an id", id="i" * 100_000))
    (loss,) = Pipeline(settings).status().losses
    assert (loss.dropped, loss.pushed_out, loss.redaction, loss.restarts) == (2, 0, 1, 0)
    assert loss.process.startswith(f"{os.getpid()} on ")
    runner = CliRunner().invoke(app, ["status"], env={"HINS_HOME": str(settings.home), "HINS_PROJECT": "p"})
    assert "2 events (1 whose hins_redact hook failed or hung); last 20" in " ".join(runner.output.split())


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


@pytest.mark.slow
def test_what_waits_is_written_when_the_interpreter_ends(tmp_path):
    code = (
        "import sys; from hins_memory.log.capture import Capture; from hins_memory.config import Settings\n"
        "from hins_memory.types import *\n"
        "sys.modules['hins_memory.log.capture']._FLUSH_SECONDS = 0.9\n"
        "capture = Capture(Settings(home=sys.argv[1], project='p', log_url=''))\n"
        "[capture.record(Turn(Scope(user='ann'), 'c', 'Ann', 'text')) for _ in range(700)]\n"
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True, timeout=120)
    assert len(_log(Settings(home=tmp_path, project="p", log_url="")).turns) == 700


_LEFT_IN_A_CHILD = """
import importlib, sys
from hins_memory.log.capture import Capture
from hins_memory.config import Settings
from hins_memory.types import *

sys.modules["hins_memory.log.capture"]._FLUSH_SECONDS = 0.9
settings = Settings(home=sys.argv[1], project="p", log_url="")

def record(capture, name):
    for number in range(300):
        capture.record(Turn(Scope(user="ann"), "c", "Ann", "text", id=f"{name}-{number}"))

def own(name):
    # Kept alive by a name that outlives the function, as an attached agent does it.
    global capture
    capture = Capture(settings)
    record(capture, name)

def inherited(name):
    record(capture, name)

if __name__ == "__main__":
    processes, method = importlib.import_module(sys.argv[2]), sys.argv[3]
    if method != "pool":
        context = processes.get_context(method)
        children = [context.Process(target=own, args=("own",))]
        if method == "fork":
            capture = Capture(settings)
            children.append(context.Process(target=inherited, args=("inherited",)))
        for child in children:
            child.start()
        for child in children:
            child.join()
        assert [child.exitcode for child in children] == [0] * len(children)
    else:
        pool = processes.Pool(2)
        pool.map(own, ["a", "b"], chunksize=1)
        pool.close()
        pool.join()
"""


@pytest.mark.parametrize(
    ("package", "method", "count"),
    [
        ("multiprocessing", "fork", 600),
        ("multiprocessing", "spawn", 300),
        ("multiprocessing", "forkserver", 300),
        ("multiprocessing", "pool", 600),
        ("billiard", "fork", 600),
    ],
)
@pytest.mark.slow
def test_what_waits_is_written_when_a_child_process_ends(tmp_path, package, method, count):
    pytest.importorskip(package)
    script = tmp_path / "script.py"
    script.write_text(_LEFT_IN_A_CHILD)
    subprocess.run([sys.executable, script, tmp_path, package, method], check=True, timeout=120)
    turns = _log(Settings(home=tmp_path, project="p", log_url="")).turns
    assert len(turns) == count


_CELERY = """
import os
from celery import Celery
from hins_memory.log.capture import Capture
from hins_memory.config import Settings
from hins_memory.types import *

folder = os.environ["FOLDER"]
app = Celery("tasks", broker="filesystem://")
app.conf.broker_transport_options = {"data_folder_in": folder + "/queue", "data_folder_out": folder + "/queue"}
sys.modules["hins_memory.log.capture"]._FLUSH_SECONDS = 0.9
settings = Settings(home=folder, project="p", log_url="")
# Made in the parent, as by a module that attaches to an agent; and one that a task makes.
inherited, own = Capture(settings), []

def turn(name):
    return Turn(Scope(user="ann"), "c", "Ann", "text", id=name)

@app.task
def work():
    own.append(Capture(settings))
    own[0].record(turn("own"))
    inherited.record(turn("inherited"))
    os.kill(os.getppid(), 15)
"""


@pytest.mark.slow
def test_what_waits_is_written_when_a_celery_worker_ends(tmp_path):
    pytest.importorskip("celery")
    (tmp_path / "tasks.py").write_text(_CELERY)
    (tmp_path / "queue").mkdir()
    environment = {**os.environ, "FOLDER": str(tmp_path)}
    options = {"cwd": tmp_path, "env": environment, "timeout": 120, "check": True}
    subprocess.run([sys.executable, "-c", "import tasks; tasks.work.delay()"], **options)
    worker = ["worker", "--pool=prefork", "-c1", "--without-gossip", "--without-mingle", "--without-heartbeat"]
    subprocess.run([sys.executable, "-m", "celery", "-A", "tasks", *worker], **options)
    turns = _log(Settings(home=tmp_path, project="p", log_url="")).turns
    assert {turn.id for turn in turns} == {"own", "inherited"}
