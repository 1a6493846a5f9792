"""Keys and passwords are in nothing that is shown, logged or stored; and nobody else can read what is stored."""

from __future__ import annotations

import logging
import os
import stat
import subprocess
import traceback
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hins_adapter_mem0 import Memory
from hins_adapter_mem0.config import store_key
from hins_adapter_mem0.llm import LazyLLM, LazyLLMConfig
from mem0_world import own_memory
from typer.testing import CliRunner

import hins_memory
from hins_memory.cli import app
from hins_memory.common.secrets import masked, secrets_in
from hins_memory.config import Settings
from hins_memory.errors import AgentError, HinsError
from hins_memory.log.capture import flush_all
from hins_memory.sdk.retry import with_retries

CANARY = "canary-0123456789abcdef"


@pytest.fixture
def said(caplog: pytest.LogCaptureFixture) -> Iterator[pytest.LogCaptureFixture]:
    """Everything that is logged meanwhile, at any level; it must not hold the canary."""
    with caplog.at_level(logging.DEBUG):
        yield caplog
    assert CANARY not in caplog.text


def everything(folder: Path) -> bytes:
    return b"".join(path.read_bytes() for path in folder.rglob("*") if path.is_file())


def shown(error: BaseException) -> str:
    """The error as a log or a terminal shows it, causes included."""
    return "".join(traceback.format_exception(error)) + repr(error)


def test_a_key_of_the_configuration_is_nowhere(settings: Settings, tiny_folder: Path, said: Any) -> None:
    llm = {"provider": "openai", "config": {"api_key": CANARY, "openai_base_url": "http://127.0.0.1:9/v1"}}
    memory = Memory({"llm": llm}, settings=settings, model=tiny_folder)
    memory.add("I play the cello.", user_id="ann", infer=False)
    memory.search("Which instrument?", filters={"user_id": "ann"})
    assert flush_all()
    memory.close()
    assert CANARY.encode() not in everything(settings.home)
    assert CANARY not in repr(LazyLLMConfig(config=llm["config"]))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "config",
    [
        {"llm": {"provider": "openai", "config": CANARY}},
        {"llm": {"provider": "openai", "config": {"api_key": CANARY}, "api_key": CANARY}, "vector_store": 7},
        {"llm": {"provider": CANARY[:6], "config": {"api_key": CANARY}}},
        {"vector_store": {"provider": "pgvector", "config": {"connection_string": 7, "password": CANARY, "x": 1}}},
        {"vector_store": {"provider": "qdrant", "config": {"api_key": CANARY, "path": ["x"]}}},
    ],
)
def test_a_configuration_that_is_refused_is_not_repeated(
    config: dict[str, Any], settings: Settings, tiny_folder: Path, said: Any
) -> None:
    for embedder in ("hins", None):
        with pytest.raises(HinsError) as raised:
            Memory(config, settings=settings, model=tiny_folder, embedder=embedder)  # type: ignore[arg-type]
        assert CANARY not in shown(raised.value)


def test_a_language_model_that_cannot_be_set_up_does_not_say_its_key(said: Any) -> None:
    for wrong in ({"openai_base_url": 7}, {"no_such_setting": 1}):
        with pytest.raises(AgentError, match="could not be set up") as raised:
            LazyLLM(LazyLLMConfig("openai", {"api_key": CANARY, **wrong})).generate_response(messages=[])
        assert CANARY not in shown(raised.value)


def test_a_store_that_fails_does_not_say_its_password(said: Any) -> None:
    def fails() -> None:
        raise RuntimeError(f"no connection to postgresql://user:{CANARY}@host/db, password={CANARY}")

    with pytest.raises(RuntimeError):
        with_retries(fails)
    assert said.text.count("***") == 4


@pytest.mark.parametrize(
    ("url", "place"),
    [
        (f"postgresql://user:{CANARY}@Host:5432/db?sslmode=require", "postgresql://host:5432/db"),
        (f"postgresql://user:{CANARY}/x#@host:5432/db", "postgresql://host:5432/db"),
        (f"postgresql://user:a@{CANARY}@host/db", "postgresql://host/db"),
        (f"postgresql://user:a?{CANARY}@host/db", "postgresql://host/db"),
        (f"postgresql:///db?host=/run/pg&password={CANARY}", "postgresql:///run/pg/db"),
        (f"host=db port=5432 dbname=memories user=ann password={CANARY}", "db:5432/memories"),
        (f"host = db password='{CANARY} x' dbname = 'a b'", "db/a b"),
        (f"user:{CANARY}@host:6333", "host:6333"),
        (f"https://:{CANARY}@host:6333/", "https://host:6333"),
    ],
)
def test_the_key_of_a_store_has_no_password(url: str, place: str) -> None:
    config = SimpleNamespace(collection_name="c", client=None, connection_string=url)
    assert store_key("pgvector", config) == f"mem0:pgvector:{place}:c"


def _addresses(tmp_path: Path) -> Iterator[str]:
    """Addresses of logs with a password, none of which can be opened."""
    yield f"postgresql://user:{CANARY}@127.0.0.1:9/db?connect_timeout=1"
    yield f"postgresql+nothing://u:{CANARY}@h/db"
    yield f"postgresql://127.0.0.1:9/db?user=u&password={CANARY}&connect_timeout=1"
    yield f"postgresql//user:{CANARY}@h"
    yield f"sqlite:///{tmp_path}?password={CANARY}"


@pytest.mark.slow
def test_no_process_says_the_password_of_the_log(tmp_path: Path, forked_python: str) -> None:
    for url in _addresses(tmp_path):
        environment = os.environ | {"HINS_LOG_URL": url, "HINS_HOME": str(tmp_path), "OPENAI_API_KEY": CANARY}
        line = [forked_python, "-m", "hins_memory", "status", "--json"]
        done = subprocess.run(line, env=environment, capture_output=True, text=True, timeout=120)
        assert CANARY not in done.stdout + done.stderr, url


@pytest.mark.slow
@pytest.mark.parametrize("command", [["doctor", "--json"], ["log", "show"]])
def test_no_command_says_the_password_of_the_log(
    command: list[str], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    for url in _addresses(tmp_path):
        environment = {"HINS_LOG_URL": url, "HINS_HOME": str(tmp_path), "OPENAI_API_KEY": CANARY}
        done = CliRunner().invoke(app, command, env=environment)
        assert done.exit_code != 0
        assert CANARY not in done.output + "".join(capfd.readouterr()), url


def test_settings_do_not_show_the_url_of_the_log() -> None:
    settings = Settings(log_url=f"postgresql://user:{CANARY}@host/db")
    assert CANARY not in repr(settings) + str(settings)


def test_what_is_masked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_API_KEY", CANARY)
    assert masked(f"the key {CANARY} is wrong") == "the key *** is wrong"
    assert masked("https://host/a@b and http://user@host, 12:30") == "https://host/a@b and http://user@host, 12:30"
    assert masked("{'api_key': 'sk-1', 'model': 'm'}") == "{'api_key': '***', 'model': 'm'}"
    assert secrets_in({"a": [{"password": CANARY, "model": "m"}], "api_keys": ["k1"]}) == {CANARY, "k1"}


def modes(*paths: Path) -> set[str]:
    return {oct(stat.S_IMODE(path.stat().st_mode)) for path in paths}


@pytest.mark.parametrize("provider", [None, "qdrant", "faiss"])
def test_what_is_stored_is_nobody_elses_to_read(
    provider: str | None, settings: Settings, tiny_folder: Path, tmp_path: Path
) -> None:
    before = os.umask(0)
    try:
        place = tmp_path / "named" / "store"
        config = {} if provider is None else {"vector_store": {"provider": provider, "config": {"path": str(place)}}}
        memory = Memory(config, settings=settings, model=tiny_folder)
        memory.add("I play the cello.", user_id="ann", infer=False)
        assert flush_all()
        memory.close()
    finally:
        os.umask(before)
    folder = settings.agent_folder("mem0")
    assert modes(settings.root, folder, folder / "qdrant" if provider is None else place) == {"0o700"}
    assert modes(folder / "history.db", settings.root / "log.db") == {"0o600"}
    if provider == "faiss":
        assert modes(*(path for path in place.iterdir() if not path.name.startswith("."))) == {"0o600"}


def test_a_project_that_others_could_read_is_closed_and_that_is_said(
    settings: Settings, tiny_folder: Path, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    folder = settings.agent_folder("mem0")
    folder.mkdir(parents=True)
    (folder / "history.db").touch(mode=0o644)
    for open_folder in (settings.root, folder):
        open_folder.chmod(0o755)
    Memory(settings=settings, model=tiny_folder).close()
    assert modes(settings.root, folder) == {"0o700"}
    assert modes(folder / "history.db") == {"0o600"}
    assert caplog.text.count("could be read by others") == 3
    settings.root.chmod(0o755)
    own = own_memory(tmp_path / "own")
    hins_memory.detach(hins_memory.attach(own, settings=settings))
    assert modes(settings.root) == {"0o700"}
