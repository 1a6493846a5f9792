"""What becomes of single messages: recorded, answered by the proxy, or left as they are."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from hins_memory.config import Settings
from hins_memory.database.engine import open_database
from hins_memory.errors import ConfigError
from hins_memory.log.reader import LogReader
from hins_memory.mcp.mapping import packaged, read_mapping
from hins_memory.mcp.session import Session
from hins_memory.mcp.traffic import ANSWERED, FEEDBACK, Traffic
from hins_memory.types import ScopeLog

NOTES = str(Path(__file__).with_name("notes.toml"))


class Played:
    """A session with the mapping of a server, whose messages a test writes."""

    def __init__(self, home: Path, mapping: str = NOTES, **scope: str) -> None:
        self.settings = Settings(home=home)
        self.session = Session(self.settings, read_mapping(mapping), scope or {"user": "ann"})
        self.traffic = Traffic(self.session)

    def call(self, tool: str, arguments: dict, result: object, id_: object = 1) -> bytes:
        """Let a call and its answer pass; return what the agent gets."""
        line = request("tools/call", {"name": tool, "arguments": arguments}, id_)
        assert self.traffic.from_agent(line) == (line, b"")
        return self.traffic.from_server(answer({"structuredContent": result}, id_))

    def ask(self, tool: str, **arguments: object) -> dict:
        """Call one of the proxy's own tools; return its result."""
        line = request("tools/call", {"name": tool, "arguments": arguments}, "own")
        forward, reply = self.traffic.from_agent(line)
        assert not forward
        return json.loads(reply)["result"]

    def log(self) -> ScopeLog:
        self.session.close()
        (log,) = LogReader(open_database(self.settings.database_url)).scope_logs()
        return log


@pytest.fixture
def play(tmp_path: Path) -> Iterator[Callable[..., Played]]:
    opened: list[Played] = []

    def make(*args: str, **scope: str) -> Played:
        opened.append(Played(tmp_path, *args, **scope))
        return opened[-1]

    yield make
    for one in opened:
        one.session.close()


def request(method: str, params: dict, id_: object) -> bytes:
    return json.dumps({"jsonrpc": "2.0", "id": id_, "method": method, "params": params}).encode() + b"\n"


def answer(result: object, id_: object) -> bytes:
    return json.dumps({"jsonrpc": "2.0", "id": id_, "result": result}).encode() + b"\n"


def found(*texts: str) -> dict:
    return {"result": [{"id": f"n{number}", "text": text} for number, text in enumerate(texts)]}


def test_own_tools_are_offered_once_on_the_first_page(play: Callable[..., Played]) -> None:
    traffic = play().traffic
    for cursor, own in ((None, [ANSWERED, FEEDBACK]), ("page 2", [])):
        traffic.from_agent(request("tools/list", {"cursor": cursor} if cursor else {}, 7))
        page = {"tools": [{"name": "find_notes"}], "nextCursor": "page 2"}
        tools = json.loads(traffic.from_server(answer(page, 7)))["result"]["tools"]
        assert [tool["name"] for tool in tools] == ["find_notes", *own]


def test_tools_of_a_proxy_behind_this_one_are_its_own(play: Callable[..., Played]) -> None:
    traffic = play().traffic
    traffic.from_agent(request("tools/list", {}, 7))
    page = answer({"tools": [{"name": ANSWERED}, {"name": FEEDBACK}]}, 7)
    assert traffic.from_server(page) == page
    line = request("tools/call", {"name": ANSWERED, "arguments": {"answer": "yes"}}, 8)
    assert traffic.from_agent(line) == (line, b"")


def test_answers_and_feedback_find_their_searches(play: Callable[..., Played]) -> None:
    played = play()
    assert played.ask(ANSWERED, answer="too early")["isError"]
    played.call("find_notes", {"query": "oboe"}, found("Ann plays the oboe", "Ann sold the oboe"))
    played.call("find_notes", {"query": "cello"}, found("Bob plays the cello"))
    assert not played.ask(ANSWERED, answer="The oboe.")["isError"]
    assert not played.ask(FEEDBACK, memory="PLAYS THE OBOE", helpful=True)["isError"]
    assert not played.ask(FEEDBACK, memory="n1", helpful=False)["isError"]
    for wrong in ({"memory": "Ann", "helpful": True}, {"memory": "n0", "helpful": "yes"}, {"memory": "x"}, {}):
        assert played.ask(FEEDBACK, **wrong)["isError"]
    log = played.log()
    assert {one.retrieval_id for one in log.answers} == {one.id for one in log.retrievals}
    oboe = next(one.id for one in log.retrievals if one.query == "oboe")
    assert [(one.memory_id, one.polarity, one.retrieval_id) for one in log.feedback] == [
        ("n0", "POSITIVE", oboe),
        ("n1", "NEGATIVE", oboe),
    ]


def test_errors_and_cancelled_searches_are_not_recorded(play: Callable[..., Played]) -> None:
    played = play()
    played.call("add_note", {"text": "kept", "about": "Ann"}, {"id": "n1"})
    search = request("tools/call", {"name": "find_notes", "arguments": {"query": "gone"}}, 2)
    played.traffic.from_agent(search)
    played.traffic.from_agent(b'{"method": "notifications/cancelled", "params": {"requestId": 2}}\n')
    played.traffic.from_server(answer({"structuredContent": found("kept")}, 2))
    played.traffic.from_agent(search)
    played.traffic.from_server(answer({"isError": True, "content": [{"type": "text", "text": "down"}]}, 2))
    log = played.log()
    assert [one.text for one in log.memories] == ["kept"]
    assert not log.retrievals


def test_a_batch_is_recorded_and_its_own_calls_are_answered(play: Callable[..., Played]) -> None:
    played = play()
    search = json.loads(request("tools/call", {"name": "find_notes", "arguments": {"query": "oboe"}}, "s"))
    own = json.loads(request("tools/call", {"name": ANSWERED, "arguments": {"answer": "yes"}}, "o"))
    forward, reply = played.traffic.from_agent(json.dumps([search, own]).encode())
    assert json.loads(forward) == [search]
    assert json.loads(reply)["id"] == "o"
    batch = b"[" + answer({"structuredContent": found("oboe")}, "s").strip() + b"]\n"
    assert played.traffic.from_server(batch) == batch
    assert [one.query for one in played.log().retrievals] == ["oboe"]


def test_the_reference_servers_entities_become_memories_and_go(play: Callable[..., Played]) -> None:
    played = play("memory")
    people = [{"name": name, "entityType": "person", "observations": [f"{name} sings"]} for name in ("Ann", "Bob")]
    played.call("create_entities", {"entities": people}, {"entities": people})
    added = {"results": [{"entityName": "Ann", "addedObservations": ["has a dog"]}]}
    played.call("add_observations", {"observations": []}, added)
    gone = {"deletions": [{"entityName": "Ann", "observations": ["has a dog"]}]}
    played.call("delete_observations", gone, {"success": True})
    played.call("delete_entities", {"entityNames": ["Bob"]}, {"success": True})
    log = played.log()
    assert [(one.text, one.speaker, one.topic) for one in log.memories] == [("Ann: Ann sings", "Ann", "person")]
    assert log.deleted == 2


def test_results_without_texts_get_those_of_the_log(play: Callable[..., Played], tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(Path(NOTES).read_text().replace('text = "{item.text}"\n', ""))
    played = play(str(path))
    played.call("add_note", {"text": "Ann plays the oboe", "about": "Ann"}, {"id": "n1"})
    played.call("find_notes", {"query": "oboe"}, {"result": [{"id": "n1"}, {"id": "n2"}]})
    assert not played.ask(FEEDBACK, memory="n1", helpful=True)["isError"]
    log = played.log()
    assert [one.text for one in log.retrievals[0].results] == ["Ann plays the oboe", ""]
    assert [one.retrieval_id for one in log.feedback] == [log.retrievals[0].id]


def test_what_does_not_fit_is_warned_of_once(play: Callable[..., Played], caplog: pytest.LogCaptureFixture) -> None:
    played = play()
    played.traffic.from_agent(request("tools/list", {}, 7))
    schema = {"properties": {"text": {}}}
    played.traffic.from_server(answer({"tools": [{"name": name, "inputSchema": schema} for name in ("add_note",)]}, 7))
    for _ in range(2):
        played.call("find_notes", {"query": "oboe"}, {"found": []})
    assert sorted(record.getMessage() for record in caplog.records) == [
        "The mapping does not fit what the server answers to find_notes: there is no result.result[]",
        "The server has no tool delete_note, which the mapping names",
        "The server has no tool find_notes, which the mapping names",
        "The tool add_note has no argument about, which the mapping reads",
    ]


def test_a_failure_to_record_leaves_the_message(
    play: Callable[..., Played], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    played = play()

    def fail(*_: object) -> None:
        raise RuntimeError("out of order")

    monkeypatch.setattr(played.session._capture, "record", fail)
    line = played.call("find_notes", {"query": "oboe"}, found("oboe"))
    assert line == answer({"structuredContent": found("oboe")}, 1)
    own = request("tools/call", {"name": ANSWERED, "arguments": {"answer": "The oboe."}}, 3)
    assert played.traffic.from_agent(own)[0] in (b"", own)
    assert "out of order" in caplog.text


def test_a_scope_comes_from_the_call_where_the_command_line_gives_none(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text('scope = {user = "{arguments.who}"}\n' + Path(NOTES).read_text())
    for given, users in (({"agent": "bot"}, ["cid"]), ({"user": "ann"}, ["ann"])):
        played = Played(tmp_path / users[0], str(path), **given)
        played.call("add_note", {"text": "x", "about": "", "who": "cid"}, {"id": "n1"})
        assert [one.scope.user for one in played.log().memories] == users


def test_packaged_mappings_can_be_read() -> None:
    assert packaged() == ["basic-memory", "mcp-memory-service", "memory"]
    for name in packaged():
        assert {tool.does for tool in read_mapping(name).tools.values()} == {"search", "add", "delete"}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "no tools"),
        ("tools = 3", "no tools"),
        ("[tools.x]\ndoes = 'guess'", "x: does is 'guess'"),
        ("[tools.x]\ndoes = 'search'", "x: items is missing"),
        ("[tools.x]\ndoes = 'search'\nquery = 'q'\nitems = 'result'", "x: a tool that searches needs id or text"),
        ("[tools.x]\ndoes = 'add'\ntext = '{answer}'", "x: '{answer}' has the name 'answer'"),
        ("[tools.x]\ndoes = 'add'\ntext = '{item'", "a brace"),
        ("[tools.x]\ndoes = 'add'\ntext = '{item}'\nitems = 'output[]'", "items is 'output[]'"),
        ("[tools.x]\ndoes = 'add'\ntext = '{item}'\nitems = 'result'\npattern = '('", "regular expression"),
        ("[tools.x]\ndoes = 'delete'\nid = '{item}'\ntext = '{item}'", "one of id, text and speaker"),
        ("[tools.x]\ndoes = 'add'\ntext = '{item}'\nquery = '{item}'", "has no query"),
        ("[scope]\nowner = 'ann'\n[tools.x]\ndoes = 'add'\ntext = '{item}'", "scope has an unknown name"),
        ("[tools", "cannot be read"),
    ],
)
def test_a_mapping_that_is_not_valid_says_why(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "mapping.toml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=said.replace("[", r"\[").replace("{", r"\{")) as caught:
        read_mapping(str(path))
    assert str(path) in str(caught.value)
    assert caught.value.hint
