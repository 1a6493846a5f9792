"""The clients of capture, in Python and in TypeScript, against a real server."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("fastapi", reason="the extra serve is not installed")
from live_server import served

from hins_memory.client import AsyncClient, Client, ClientError
from hins_memory.config import Settings
from hins_memory.database.engine import open_database
from hins_memory.log.capture import flush_all
from hins_memory.log.reader import LogReader
from hins_memory.server.app import create_app
from hins_memory.server.settings import ServeSettings
from hins_memory.types import Answer, Deletion, Feedback, Memory, RankedMemory, Retrieval, Scope, ScopeLog, Turn

ROOT = Path(__file__).resolve().parents[2]
ANN = Scope(user="ann", run="monday")


def owner_log(settings: Settings) -> ScopeLog:
    assert flush_all()
    (found,) = LogReader(open_database(settings.database_url)).scope_logs()
    return found


def test_what_the_client_sends_is_what_the_log_has(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path, project="p")
    turn = Turn(ANN, "monday", "Ann", "I play the oboe now.", 5.25, "t1")
    memory = Memory("m1", ANN, "monday", "Ann plays the oboe.", "Ann", ("t1",), "music", 6.5)
    search = Retrieval(ANN, "Which?", (RankedMemory("m1", memory.text, 0.1),), "v0001-01234567", 7.125, "s1")
    events = [turn, memory, search, Answer("s1", "The oboe.", 8.0), Feedback("m1", "NEGATIVE", "s1", 9.0)]
    with served(create_app(settings, ServeSettings(keys=("secret",)))) as url:
        client = Client(url, "secret")
        assert client.record([*events, Deletion(ANN, "m2")]).recorded == 6
        assert client.record(events).known == 4
        with pytest.raises(ClientError) as refused:
            client.record([Turn(ANN, "monday", "Ann", "Another.", 5.25, "t1")])
        assert refused.value.status == 409
        with pytest.raises(ClientError) as unknown:
            Client(url, "wrong").answered("s1", "The oboe.")
        assert unknown.value.status == 401

        async def agent() -> None:
            later = AsyncClient(url, "secret")
            name = await later.retrieved("Who?", search.results, ANN)
            await later.answered(name, "Ann.")
            await later.feedback(name, "m1", "POSITIVE")

        asyncio.run(agent())
    log = owner_log(settings)
    assert (log.turns, log.memories, log.retrievals[0]) == ((turn,), (memory,), search)
    assert (log.answers[0], log.feedback[0]) == (events[3], events[4])
    assert [len(log.retrievals), len(log.answers), len(log.feedback)] == [2, 2, 2]


def test_a_server_that_is_not_there() -> None:
    with pytest.raises(ClientError, match="does not answer"):
        Client("http://127.0.0.1:9").answered("s1", "The oboe.")


def test_the_client_needs_no_other_package() -> None:
    heavy = ("fastapi", "httpx", "numpy", "pydantic", "sqlalchemy", "torch")
    code = f"import sys, hins_memory.client; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.skipif(shutil.which("node") is None, reason="node is not installed")
def test_the_typescript_example_runs(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path, project="p")
    with served(create_app(settings)) as url:
        command = ["node", str(ROOT / "examples" / "typescript" / "agent.mjs"), url]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        "recorded 0, known 1",
        "refused with 409: Another retrieval has the id 'search-1'. Nothing was recorded. "
        "A retrieval is never changed: use a new id, or send what was sent before.",
    ]
    log = owner_log(settings)
    assert [one.text for one in log.memories] == ["Ann plays the oboe."]
    assert [log.answers[0].retrieval_id, log.feedback[0].polarity] == ["search-1", "POSITIVE"]
