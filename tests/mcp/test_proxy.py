"""The command between a real client and real servers: nothing is changed, and how it ends."""

import asyncio
import json
import os
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from hins_memory.config import Settings
from hins_memory.database.engine import open_database
from hins_memory.log.reader import LogReader
from hins_memory.mcp.traffic import ANSWERED, FEEDBACK
from hins_memory.types import ScopeLog

pytestmark = pytest.mark.usefixtures("forked_programs")

HERE = Path(__file__).parent
NOTES = str(HERE / "notes.toml")


def hins_mcp(home: Path, mapping: str, *server: str) -> list[str]:
    own = [sys.executable, "-m", "hins_memory", "--home", str(home)]
    return [*own, "mcp", "--mapping", mapping, "--user", "ann", "--", *server]


def log_of(home: Path) -> ScopeLog:
    (log,) = LogReader(open_database(Settings(home=home).database_url)).scope_logs()
    return log


def play(command: list[str], calls: list[tuple[str, dict]]) -> tuple[list[str], list[tuple[str, bool]]]:
    """Play calls through the client of the MCP package; return the tools, and each text and whether it failed."""
    mcp = pytest.importorskip("mcp", reason="needs the MCP package")

    async def run() -> tuple[list[str], list[tuple[str, bool]]]:
        server = mcp.StdioServerParameters(command=command[0], args=command[1:], env=dict(os.environ))
        async with mcp.stdio_client(server) as streams, mcp.ClientSession(*streams) as session:
            await session.initialize()
            tools = [tool.name for tool in (await session.list_tools()).tools]
            results = [await session.call_tool(name, arguments) for name, arguments in calls]
            return tools, [(result.content[0].text if result.content else "", result.is_error) for result in results]

    return asyncio.run(run())


@pytest.mark.slow
def test_a_client_and_a_server_of_the_mcp_package(tmp_path: Path) -> None:
    calls: list[tuple[str, dict]] = [
        ("add_note", {"text": "Ann plays the oboe", "about": "Ann"}),
        ("add_note", {"text": "Bob plays the cello", "about": "Bob"}),
        ("find_notes", {"query": "who has an oboe"}),
        ("delete_note", {"id": "note-2"}),
        ("delete_note", {"id": "no such note"}),
        ("no_such_tool", {}),
    ]
    outcomes: list[tuple[str, dict]] = [
        (ANSWERED, {"answer": "Ann."}),
        (FEEDBACK, {"memory": "note-1", "helpful": True}),
    ]
    server = [sys.executable, str(HERE / "notes_server.py")]
    tools, results = play(server, calls)
    assert play(hins_mcp(tmp_path, NOTES, *server), calls + outcomes) == (
        [*tools, ANSWERED, FEEDBACK],
        [*results, ("Recorded.", False), ("Recorded.", False)],
    )
    log = log_of(tmp_path)
    assert [(one.id, one.text, one.speaker) for one in log.memories] == [("note-1", "Ann plays the oboe", "Ann")]
    assert log.deleted == 1
    (search,) = log.retrievals
    assert [one.memory_id for one in search.results] == ["note-1"]
    assert [one.text for one in log.answers] == ["Ann."]
    assert [(one.memory_id, one.retrieval_id) for one in log.feedback] == [("note-1", search.id)]


@pytest.mark.slow  # the command waits for the log at its end
def test_lines_pass_as_they_are_while_the_log_cannot_be_written(tmp_path: Path) -> None:
    own = {"jsonrpc": "2.0", "id": 9, "method": "tools/call", "params": {"name": FEEDBACK, "arguments": {}}}
    lines = [
        b'{"id": "1",  "method": "tools/call", "params": {"name": "find_notes", "arguments": {"query": "oboe"}}}',
        b'{"id":"1","result":{"structuredContent":{"result":[{"id":"n","text":"\xc3\xa9 \\ud83d 1e999"}]}}}',
        b'{"id": [1], "method": "tools/call", "params": {"name": "find_notes"}}',
        b'{"id": 2.50, "method": "unknown/method", "params": {"x": NaN}}',
        b'{"method": "notifications/cancelled", "params": {"requestId": {"a": 1}}}',
        b'{"id": 3, "error": {"code": -32601, "message": "no"}}\r',
        b"\xff\x00 no JSON",
        b"",
        b"[" * 100_000,
        b'{"id": 4, "result": "' + b"x" * 5_000_000 + b'"}',
        b'{"no": "end of line"}',
    ]
    sent = b"\n".join(lines)
    # The server is `cat`: what it gets, it says.
    environment = os.environ | {"HINS_LOG_URL": "sqlite:////dev/null/log.db"}
    done = subprocess.run(
        hins_mcp(tmp_path, NOTES, "cat"),
        input=json.dumps(own).encode() + b"\n" + sent,
        capture_output=True,
        env=environment,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    reply, *passed = [line for line in done.stdout.split(b"\n") if b'"isError"' in line] + [
        line for line in done.stdout.split(b"\n") if b'"isError"' not in line
    ]
    assert passed == lines
    assert json.loads(reply)["id"] == 9
    assert b"log cannot be written" in done.stderr.replace(b"\n", b" ")


@pytest.mark.slow
def test_a_server_that_ends_ends_the_proxy_with_its_status(tmp_path: Path) -> None:
    with subprocess.Popen(
        hins_mcp(tmp_path, "memory", "sh", "-c", "echo started; exec sleep 600"),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as proxy:
        assert proxy.stdin
        assert proxy.stdout
        assert proxy.stdout.readline() == b"started\n"
        # The agent asks for an end; stdin stays open, as it does when a server dies by itself.
        proxy.send_signal(signal.SIGTERM)
        assert proxy.stdout.read() == b""
        assert proxy.wait(60) == 128 + signal.SIGTERM
    done = subprocess.run(hins_mcp(tmp_path, "memory", "no-such-program"), capture_output=True, text=True)
    assert done.returncode == 2
    assert "no-such-program cannot be started" in done.stderr.replace("\n", " ")
    assert not done.stdout


@pytest.mark.parametrize(
    ("mapping", "variable", "calls"),
    [
        (
            "memory",
            "HINS_TEST_MCP_MEMORY",
            [
                ("create_entities", {"entities": [{"name": "Ann", "entityType": "p", "observations": ["an oboe"]}]}),
                ("add_observations", {"observations": [{"entityName": "Ann", "contents": ["a dog"]}]}),
                ("search_nodes", {"query": "oboe"}),
            ],
        ),
        (
            "basic-memory",
            "HINS_TEST_MCP_BASIC_MEMORY",
            [
                ("write_note", {"title": "Ann", "content": "an oboe", "directory": "people"}),
                ("write_note", {"title": "Dog", "content": "a dog", "directory": "people"}),
                ("search_notes", {"query": "oboe"}),
            ],
        ),
        (
            "mcp-memory-service",
            "HINS_TEST_MCP_MEMORY_SERVICE",
            [
                ("memory_store", {"content": "an oboe"}),
                ("memory_store", {"content": "a dog"}),
                ("memory_search", {"query": "oboe"}),
            ],
        ),
    ],
)
def test_a_packaged_mapping_with_its_server(
    tmp_path: Path, mapping: str, variable: str, calls: list[tuple[str, dict]]
) -> None:
    server = os.environ.get(variable)
    if not server:
        pytest.skip(f"{variable} has the server's command, see CONTRIBUTING.md")
    _, results = play(hins_mcp(tmp_path, mapping, *shlex.split(server)), [*calls, (ANSWERED, {"answer": "An oboe."})])
    assert not [text for text, failed in results if failed]
    log = log_of(tmp_path)
    assert [word for one in log.memories for word in ("oboe", "dog") if word in one.text] == ["oboe", "dog"]
    (search,) = log.retrievals
    assert any("oboe" in one.text for one in search.results)
    assert {one.memory_id for one in search.results} <= {one.id for one in log.memories}
    assert [one.retrieval_id for one in log.answers] == [search.id]
