"""The chat client against a loopback endpoint that answers well, badly, late and not at all."""

import multiprocessing
import os
import pickle
import sqlite3
import stat
import sys
import threading
import time
import traceback
from concurrent.futures import ThreadPoolExecutor, as_completed
from itertools import count, islice
from pathlib import Path

import pytest
from llm_server import LLMServer, Raw
from pydantic import BaseModel

from hins_memory.errors import ConfigError
from hins_memory.llm import BudgetError, ChatClient, LlmError, LlmSettings, ReplyCache, clear_cache

KEY = "sk-loopback-secret"
ASK = [{"role": "user", "content": "Who sails?"}]


class Persona(BaseModel):
    name: str
    age: int


def one_client(server, **options):
    options = {"tries": 3, "timeout": 5.0} | options
    return ChatClient(LlmSettings("loopback", server.base_url, KEY, **options))


def kept_in(folder):
    """The number of replies kept, read without the cache."""
    if not (folder / "cache.db").exists():
        return 0
    with sqlite3.connect(folder / "cache.db") as connection:
        return connection.execute("SELECT count(*) FROM Cache").fetchone()[0]


def tampered(folder, statement, *values):
    with sqlite3.connect(folder / "cache.db", isolation_level=None) as connection:
        connection.execute(statement, values)


def in_turn(*replies):
    """Return a function that gives the replies one after another, the last one for ever."""
    numbers = count()
    lock = threading.Lock()

    def reply(prompt):
        with lock:
            return replies[min(next(numbers), len(replies) - 1)]

    return reply


def test_a_question_is_answered_and_asked_only_once(tmp_path):
    with LLMServer(default="Ilse.") as server:
        with one_client(server, cache=tmp_path, input_price=1e6, output_price=2e6) as client:
            first, again = client.chat(ASK), client.chat(ASK)
            assert (first.text, first.cached, again.text, again.cached) == ("Ilse.", False, "Ilse.", True)
            other = client.chat(ASK, max_tokens=5)
            assert not other.cached
            used = client.usage
            assert (used.requests, used.cached, used.failures) == (2, 1, 0)
            assert (used.cost, used.full_cost) == (6.0, 9.0)
        with one_client(server, cache=tmp_path) as client:
            assert client.chat(ASK).cached
        assert len(server.requests) == 2
        assert server.requests[0]["temperature"] == 0


def test_a_kept_reply_that_is_damaged_is_asked_for_again(tmp_path):
    with LLMServer(default="Ilse.") as server, one_client(server, cache=tmp_path) as client:
        client.chat(ASK)
        for damage in ("", "{", "[]", "3", '{"text": "x"}', b"\xff\xfe", 7, None, '{"text": "x", "other": 1}'):
            tampered(tmp_path, "UPDATE Cache SET value = ?", damage)
            assert client.chat(ASK).text == "Ilse."
        assert client.chat(ASK).cached
        assert len(server.requests) == 10


@pytest.mark.slow
def test_a_cache_that_was_tampered_with_runs_no_code_and_touches_no_other_file(tmp_path, caplog):
    folder, other = tmp_path / "replies", tmp_path / "other.txt"
    other.write_text('{"text": "of another file"}')
    payload = pickle.dumps(_Touch(tmp_path / "ran"))
    (tmp_path / "payload").write_bytes(payload)
    with LLMServer(default="Ilse.") as server:
        for mode, filename, value in (
            (4, None, payload),
            (4, "../payload", None),
            (2, "../other.txt", None),
            (3, "../other.txt", None),
        ):
            with one_client(server, cache=folder) as client:
                client.chat(ASK)
                tampered(folder, "UPDATE Cache SET mode = ?, filename = ?, value = ?", mode, filename, value)
                assert client.chat(ASK).text == "Ilse."
                tampered(folder, "UPDATE Cache SET mode = ?, filename = ?, value = ?", mode, filename, value)
            with one_client(server, cache=folder) as client:
                assert not client.chat(ASK).cached
            tampered(folder, "UPDATE Cache SET mode = ?, filename = ?, value = ?", mode, filename, value)
            assert clear_cache(folder) == 1
    assert not (tmp_path / "ran").exists()
    assert other.exists()
    pickle.loads(payload)
    assert (tmp_path / "ran").exists(), "the payload would have run"
    assert "delete the folder" in caplog.text


class _Touch:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (Path.touch, (self.path,))


def test_replies_are_for_their_owner_alone(tmp_path):
    mask = os.umask(0)
    try:
        with LLMServer(default="Ilse.") as server, one_client(server, cache=tmp_path / "a" / "replies") as client:
            client.chat(ASK)
    finally:
        os.umask(mask)
    assert stat.S_IMODE((tmp_path / "a" / "replies").stat().st_mode) == 0o700
    assert stat.S_IMODE((tmp_path / "a" / "replies" / "cache.db").stat().st_mode) == 0o600


def test_what_is_cleared_is_in_no_file_and_in_no_process(tmp_path):
    assert clear_cache(tmp_path / "none") == 0
    assert not (tmp_path / "none").exists()
    (tmp_path / "0a").mkdir()
    (tmp_path / "0a" / "old.json").write_text("Ilse, as an earlier version kept it")
    (tmp_path / "mine.json").write_text("not a reply")
    with LLMServer(default="Ilse. " * 20_000) as server, one_client(server, cache=tmp_path) as client:
        client.chat(ASK)
        client.chat(ASK, seed=1)
        assert b"Ilse" in (tmp_path / "cache.db").read_bytes()
        assert clear_cache(tmp_path) == 3
        assert not any(b"Ilse" in path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
        assert (tmp_path / "mine.json").exists()
        assert not client.chat(ASK).cached
        assert client.chat(ASK).cached
    (tmp_path / "cache.db").write_bytes(b"no database" * 1000)
    with pytest.raises(LlmError, match="cannot be removed"):
        clear_cache(tmp_path)


def test_a_folder_that_cannot_be_written_costs_nothing_but_the_keeping(tmp_path, caplog):
    (tmp_path / "file").write_text("not a folder")
    with LLMServer(default="Ilse.") as server, one_client(server, cache=tmp_path / "file") as client:
        assert [client.chat(ASK).text for _ in range(2)] == ["Ilse.", "Ilse."]
    assert sum("cannot be kept" in record.message for record in caplog.records) == 1


def _put_many(folder, marker):
    cache = ReplyCache(folder)
    for number in range(200):
        cache.put({"n": number % 10}, {"text": marker * 5000})


@pytest.mark.slow
def test_two_processes_keep_the_same_replies(tmp_path):
    spawn = multiprocessing.get_context("fork")
    writers = [spawn.Process(target=_put_many, args=(tmp_path, marker)) for marker in "ab"]
    for one in writers:
        one.start()
    cache = ReplyCache(tmp_path)
    while any(one.is_alive() for one in writers):
        for number in range(10):
            found = cache.get({"n": number})
            assert found is None or found["text"] in ("a" * 5000, "b" * 5000)
    assert [one.exitcode for one in writers] == [0, 0]
    assert kept_in(tmp_path) == 10


@pytest.mark.parametrize("status", [408, 429, 500, 503])
def test_a_busy_endpoint_is_asked_again(status):
    with LLMServer(default=in_turn(Raw(status=status), "Ilse.")) as server, one_client(server) as client:
        assert client.chat(ASK).text == "Ilse."
        assert (client.usage.requests, client.usage.retries, client.usage.failures) == (2, 1, 0)


@pytest.mark.slow
def test_retry_after_is_waited_for():
    late = Raw(status=429, headers={"retry-after": "0.9"})
    with LLMServer(default=in_turn(late, "Ilse.")) as server, one_client(server) as client:
        begun = time.monotonic()
        client.chat(ASK)
        assert time.monotonic() - begun >= 0.9


@pytest.mark.parametrize("value", ["86400", "Wed, 21 Oct 2065 07:28:00 GMT", "Wed, 21 Oct 2015 07:28:00 GMT", "soon"])
def test_retry_after_is_not_waited_for_for_ever(value):
    never = Raw(status=429, headers={"retry-after": value})
    with LLMServer(default=in_turn(never, "Ilse.")) as server, one_client(server) as client:
        begun = time.monotonic()
        if value in ("86400", "Wed, 21 Oct 2065 07:28:00 GMT"):
            # The SDK gives up at once on an endpoint that allows nothing before tomorrow.
            with pytest.raises(LlmError, match="did not answer in 1 tries: status 429"):
                client.chat(ASK)
        else:
            assert client.chat(ASK).text == "Ilse."
        # Not as long as was told: a day, or longer than the SDK waits at most.
        assert time.monotonic() - begun < 60


BAD = {
    "a truncated body": Raw(b'{"choices": [{"message": {"content": "Il'),
    "no JSON": Raw(b"<html>Bad gateway</html>"),
    "no choices": Raw(b'{"choices": []}'),
    "another form": Raw(b'["Ilse"]'),
    "not UTF-8": Raw(b"\xff\xfe\x00"),
    "an empty reply": "",
    "no content": Raw(b'{"choices": [{"message": {"content": null}, "finish_reason": "content_filter"}]}'),
    "too late": Raw(b"{}", delay=2.5),
}


@pytest.mark.slow
@pytest.mark.parametrize("bad", BAD.values(), ids=BAD)
def test_garbage_costs_that_question_only_and_is_counted(bad, tmp_path):
    with LLMServer({"garbage": bad}, default="Ilse.") as server:
        with one_client(server, timeout=1.0, tries=2, cache=tmp_path) as client:
            with pytest.raises(LlmError, match="did not answer in 2 tries") as error:
                client.chat([{"role": "user", "content": "garbage"}])
            assert not error.value.refused
            assert client.chat(ASK).text == "Ilse."
            assert (client.usage.failures, client.usage.retries) == (1, 1)
        assert kept_in(tmp_path) == 1


def test_what_is_refused_is_not_asked_again():
    for status, refused in ((401, True), (404, True), (400, False)):
        with LLMServer(default=Raw(b"wrong key", status=status)) as server, one_client(server) as client:
            with pytest.raises(LlmError, match=rf"status {status}: wrong key") as error:
                client.chat(ASK)
            assert error.value.refused is refused
            assert len(server.requests) == 1
    client = ChatClient(LlmSettings("loopback", "http://127.0.0.1:9/v1", tries=1))
    with pytest.raises(LlmError, match="ConnectError"):
        client.chat(ASK)


def test_a_typed_reply_is_repaired_by_the_model(tmp_path):
    replies = in_turn("Here you are:", '{"name": "Ilse"}', 'Sure! ```json\n{"name": "Ilse", "age": 41}\n```')
    with LLMServer(default=replies) as server, one_client(server, cache=tmp_path) as client:
        assert client.structured(ASK, Persona) == Persona(name="Ilse", age=41)
        repair = server.requests[2]["messages"]
        assert [message["role"] for message in repair] == ["user", "assistant", "user", "assistant", "user"]
        assert "age: Field required" in repair[-1]["content"]
        assert '"age"' in repair[0]["content"]
        # only what validated is kept, under the first question
        assert client.structured(ASK, Persona).name == "Ilse"
        assert len(server.requests) == 3
        assert client.usage.failures == 0


def test_a_typed_reply_that_never_validates_is_an_error(tmp_path):
    with LLMServer(default='{"name": "Ilse", "age": 4') as server, one_client(server, cache=tmp_path) as client:
        with pytest.raises(LlmError, match="no valid Persona in 2 replies"):
            client.structured(ASK, Persona, repairs=1)
        assert client.usage.failures == 1
        assert kept_in(tmp_path) == 0
        assert len(server.requests) == 2


def test_a_request_for_json_takes_nothing_else():
    with LLMServer(default=in_turn('{"memory": [', '{"memory": []}')) as server, one_client(server) as client:
        reply = client.complete({"messages": ASK, "response_format": {"type": "json_object"}, "stream": False})
        assert reply["choices"][0]["message"]["content"] == '{"memory": []}'
        assert reply["usage"]["total_tokens"] == 2
        assert "stream" not in server.requests[0]
        assert len(server.requests) == 2


def test_the_budget_stops_requests_and_not_what_is_kept(tmp_path):
    with LLMServer(default="Ilse.") as server:
        with one_client(server, cache=tmp_path, max_total_tokens=60) as client:
            client.chat(ASK, max_tokens=10)
            with pytest.raises(BudgetError, match="60 tokens"):
                client.chat([{"role": "user", "content": "x" * 400}], max_tokens=10)
            assert client.chat(ASK, max_tokens=10).cached
        with one_client(server, input_price=1.0, max_cost=1e-9) as client, pytest.raises(BudgetError, match="spent"):
            client.chat(ASK)
        assert len(server.requests) == 1


def test_a_budget_holds_for_requests_under_way_at_once():
    all_asked = threading.Event()
    with LLMServer(default=lambda prompt: all_asked.wait(60) and "Ilse.") as server:
        with one_client(server, max_total_tokens=200) as client, ThreadPoolExecutor(16) as pool:
            asks = [pool.submit(client.chat, [{"role": "user", "content": f"{n}"}], max_tokens=30) for n in range(16)]
            # 200 tokens have room for three of about 55 at once; the others are refused while these wait
            refused = list(islice(as_completed(asks, timeout=60), 13))
            all_asked.set()
        assert all(isinstance(ask.exception(), BudgetError) for ask in refused)
        assert [ask.result().text for ask in asks if ask not in refused] == ["Ilse."] * 3
        assert len(server.requests) == 3
        # what is used is far less than what was set aside
        assert client.usage.prompt_tokens + client.usage.completion_tokens <= 200


def test_odd_texts_are_sent_and_kept(tmp_path):
    texts = ["船 🚲 \x00", "lone \ud800 surrogate", "x" * 100_000]
    with LLMServer(default="好的 🚲") as server, one_client(server, cache=tmp_path) as client:
        for text in texts:
            asked = [{"role": "user", "content": text}]
            assert [client.chat(asked).text for _ in range(2)] == ["好的 🚲"] * 2
        sent = [body["messages"][0]["content"] for body in server.requests]
    # a lone surrogate cannot be sent
    assert sent == [texts[0], "lone ? surrogate", texts[2]]


def test_settings_come_from_the_environment_and_are_checked(monkeypatch):
    with pytest.raises(ConfigError, match="needs a key"):
        LlmSettings("gpt")
    monkeypatch.setenv("OPENAI_API_KEY", "secret")
    monkeypatch.setenv("OPENAI_BASE_URL", "http://localhost:1/v1/")
    settings = LlmSettings("gpt")
    assert (settings.base_url, settings.api_key) == ("http://localhost:1/v1", "secret")
    assert settings.name == "gpt at http://localhost:1/v1"
    assert "secret" not in repr(settings)
    assert LlmSettings("gpt", api_key=" secret\n").api_key == "secret"
    bad = [
        {"base_url": "http://me:secret@localhost/v1"},
        {"model": ""},
        {"base_url": "localhost"},
        {"tries": 0},
        {"timeout": 0.0},
        {"max_cost": 1.0},
        {"api_key": "a\nb"},
    ]
    for options in [*bad, {"input_price": -1.0}]:
        with pytest.raises(ConfigError):
            LlmSettings(**({"model": "gpt"} | options))


@pytest.mark.parametrize("status", [200, 400, 401, 429, 500])
def test_the_key_is_in_no_error_no_log_and_no_file(status, tmp_path, caplog):
    echo = Raw(f"{{Incorrect key: {KEY}".encode(), status=status)
    caplog.set_level("DEBUG")
    with LLMServer(default=in_turn("Ilse.", echo)) as server, one_client(server, cache=tmp_path, tries=2) as client:
        client.chat(ASK)
        with pytest.raises(LlmError) as error:
            client.chat(ASK, seed=status)
    shown = "".join(traceback.format_exception(error.value))
    assert KEY not in shown + repr(client.settings) + client.settings.name
    assert KEY not in caplog.text
    assert not any(KEY.encode() in path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())


def test_an_endpoint_without_a_key_is_sent_none(monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with LLMServer(default="Ilse.") as server:
        for key, sent in ((KEY, f"Bearer {KEY}"), ("", None)):
            with ChatClient(LlmSettings("loopback", server.base_url, key)) as client:
                client.chat(ASK)
            assert server.headers[-1].get("authorization") == sent


@pytest.mark.parametrize("name", ["openai", "diskcache"])
def test_a_package_that_is_missing_is_named_with_its_extra(name, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ConfigError, match=rf"{name}(.|\n)*hins-memory\[synthesis\]"):
        ChatClient(LlmSettings("loopback", "http://127.0.0.1:9/v1", cache=tmp_path))
