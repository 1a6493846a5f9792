"""The chat client against a loopback endpoint that answers well, badly, late and not at all."""

import json
import multiprocessing
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from itertools import count

import pytest
from llm_server import LLMServer, Raw
from pydantic import BaseModel

from hins_memory.errors import ConfigError
from hins_memory.llm import BudgetError, ChatClient, LlmError, LlmSettings, ReplyCache

ASK = [{"role": "user", "content": "Who sails?"}]


class Persona(BaseModel):
    name: str
    age: int


def one_client(server, **options):
    options = {"tries": 3, "longest_pause": 0.01, "timeout": 5.0} | options
    return ChatClient(LlmSettings("loopback", server.base_url, "key", **options))


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
        [kept] = tmp_path.rglob("*.json")
        for damage in (b"", b"{", b"[]", b'{"reply": 3}', b'{"reply": {"text": "x"}}', b"\xff\xfe"):
            kept.write_bytes(damage)
            assert client.chat(ASK).text == "Ilse."
        assert client.chat(ASK).cached
        assert len(server.requests) == 7


def test_a_folder_that_cannot_be_written_costs_nothing_but_the_keeping(tmp_path, caplog):
    (tmp_path / "file").write_text("not a folder")
    with LLMServer(default="Ilse.") as server, one_client(server, cache=tmp_path / "file") as client:
        assert [client.chat(ASK).text for _ in range(2)] == ["Ilse.", "Ilse."]
    assert sum("cannot be kept" in record.message for record in caplog.records) == 1


def _put_many(folder, marker):
    cache = ReplyCache(folder)
    for number in range(200):
        cache.put({"n": number % 10}, {"text": marker * 5000})


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
    assert len(list(tmp_path.rglob("*.json"))) == 10
    assert not [path for path in tmp_path.rglob("*") if path.is_file() and path.suffix != ".json"]


@pytest.mark.parametrize("status", [408, 429, 500, 503])
def test_a_busy_endpoint_is_asked_again(status):
    with LLMServer(default=in_turn(Raw(status=status), "Ilse.")) as server, one_client(server) as client:
        assert client.chat(ASK).text == "Ilse."
        assert (client.usage.requests, client.usage.retries, client.usage.failures) == (2, 1, 0)


def test_retry_after_is_waited_for_but_not_for_ever():
    late = Raw(status=429, headers={"retry-after": "0.4"})
    with LLMServer(default=in_turn(late, "Ilse.")) as server, one_client(server, longest_pause=30.0) as client:
        begun = time.monotonic()
        client.chat(ASK)
        assert 0.4 <= time.monotonic() - begun < 5
    for value in ("86400", "Wed, 21 Oct 2065 07:28:00 GMT", "Wed, 21 Oct 2015 07:28:00 GMT", "soon"):
        never = Raw(status=429, headers={"retry-after": value})
        with LLMServer(default=in_turn(never, "Ilse.")) as server, one_client(server, longest_pause=0.05) as client:
            assert client.chat(ASK).text == "Ilse."


BAD = {
    "a truncated body": Raw(b'{"choices": [{"message": {"content": "Il'),
    "no JSON": Raw(b"<html>Bad gateway</html>"),
    "no choices": Raw(b'{"choices": []}'),
    "another form": Raw(b'["Ilse"]'),
    "not UTF-8": Raw(b"\xff\xfe\x00"),
    "an empty reply": "",
    "no content": Raw(b'{"choices": [{"message": {"content": null}, "finish_reason": "content_filter"}]}'),
    "too late": Raw(b"{}", delay=0.6),
}


@pytest.mark.parametrize("bad", BAD.values(), ids=BAD)
def test_garbage_costs_that_question_only_and_is_counted(bad, tmp_path):
    with LLMServer({"garbage": bad}, default="Ilse.") as server:
        with one_client(server, timeout=0.3, tries=2, cache=tmp_path) as client:
            with pytest.raises(LlmError, match="did not answer in 2 tries") as error:
                client.chat([{"role": "user", "content": "garbage"}])
            assert not error.value.refused
            assert client.chat(ASK).text == "Ilse."
            assert (client.usage.failures, client.usage.retries) == (1, 1)
        assert len(list(tmp_path.rglob("*.json"))) == 1


def test_what_is_refused_is_not_asked_again():
    for status, refused in ((401, True), (404, True), (400, False)):
        with LLMServer(default=Raw(b"wrong key", status=status)) as server, one_client(server) as client:
            with pytest.raises(LlmError, match=rf"status {status}: wrong key") as error:
                client.chat(ASK)
            assert error.value.refused is refused
            assert len(server.requests) == 1
    client = ChatClient(LlmSettings("loopback", "http://127.0.0.1:9/v1", tries=2, longest_pause=0.0))
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
        assert not list(tmp_path.rglob("*.json"))
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
    def slow(prompt):
        time.sleep(0.05)
        return "Ilse."

    with LLMServer(default=slow) as server, one_client(server, max_total_tokens=200) as client:

        def ask(number):
            try:
                client.chat([{"role": "user", "content": f"{number}"}], max_tokens=30)
            except BudgetError:
                return 0
            return 1

        with ThreadPoolExecutor(16) as pool:
            asked = sum(pool.map(ask, range(16)))
        # 200 tokens have room for three of about 55 at once; what is used is far less than what was set aside
        assert asked == len(server.requests)
        assert 1 <= asked <= 4
        assert client.usage.prompt_tokens + client.usage.completion_tokens <= 200


def test_rates_are_kept_by_many_threads():
    from hins_memory.llm.limits import RateLimit

    limit = RateLimit(4, seconds=0.3)
    times = []
    lock = threading.Lock()

    def take(_):
        limit.take(1)
        with lock:
            times.append(time.monotonic())

    with ThreadPoolExecutor(12) as pool:
        list(pool.map(take, range(12)))
    times.sort()
    assert all(later - earlier >= 0.29 for earlier, later in zip(times, times[4:], strict=False))
    # more than the limit at once waits for an idle period, and not for ever
    limit.take(100)
    assert RateLimit(0).take(5) is None


def test_odd_texts_are_sent_and_kept(tmp_path):
    texts = ["船 🚲 \x00", "lone \ud800 surrogate", "x" * 100_000]
    with LLMServer(default="好的 🚲") as server, one_client(server, cache=tmp_path) as client:
        for text in texts:
            asked = [{"role": "user", "content": text}]
            assert [client.chat(asked).text for _ in range(2)] == ["好的 🚲"] * 2
        assert [body["messages"][0]["content"] for body in server.requests] == texts


def test_settings_come_from_the_environment_and_are_checked(monkeypatch):
    with pytest.raises(ConfigError, match="needs a key"):
        LlmSettings("gpt")
    monkeypatch.setenv("OPENAI_API_KEY", "secret")
    monkeypatch.setenv("OPENAI_BASE_URL", "http://localhost:1/v1/")
    settings = LlmSettings("gpt")
    assert (settings.base_url, settings.api_key) == ("http://localhost:1/v1", "secret")
    assert settings.name == "gpt at http://localhost:1/v1"
    assert "secret" not in repr(settings)
    bad = [{"model": ""}, {"base_url": "localhost"}, {"tries": 0}, {"timeout": 0.0}, {"max_cost": 1.0}]
    for options in [*bad, {"input_price": -1.0}]:
        with pytest.raises(ConfigError):
            LlmSettings(**({"model": "gpt"} | options))


def test_kept_files_say_what_was_asked(tmp_path):
    with LLMServer(default="Ilse.") as server, one_client(server, cache=tmp_path) as client:
        client.chat(ASK)
        [kept] = tmp_path.rglob("*.json")
        content = json.loads(kept.read_text(encoding="utf-8"))
        assert content["question"]["messages"] == ASK
        assert content["question"]["base_url"] == server.base_url
        assert "key" not in json.dumps(content["question"])
