"""A second process that has the same MemoryOS store open follows a swap within a second."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from hins_adapter_memoryos.attaching import attach
from llm_server import LLMServer
from memoryos_world import agent_of, ask, assert_in_one_space, own_memory, pages, talk

from hins_memory.config import Settings
from hins_memory.encoders.encoder import Encoder
from hins_memory.registry.registry import EncoderVersion, Registry
from hins_memory.swapping import swap_agent

# Works on the same store as another user: asks now and then which encoder answered, until a line comes.
CHILD = """
import json, sys, threading, time
from pathlib import Path
from memoryos_world import PAIRS, ask, module, own_memory, pages, talk
from hins_adapter_memoryos.attaching import attach
from hins_memory.config import Settings
from hins_memory.encoders.encoder import Encoder

given = json.loads(sys.argv[1])
class Server:
    base_url = given["url"]
name = "all-MiniLM-L6-v2"
for key in (name, json.dumps({"model_name": name})):
    module("utils")._model_cache[key] = Encoder.load().model
memory = own_memory(Server, Path(given["root"]), "bob")
attach(memory, embedder="hins", settings=Settings(home=Path(given["home"]), project="test", log_url=""))
talk(memory, PAIRS[:3])
stop = threading.Event()
threading.Thread(target=lambda: (sys.stdin.readline(), stop.set()), daemon=True).start()
print(json.dumps("open"), flush=True)
seen, failures = [], []
while not stop.is_set():
    started = time.time()
    try:
        found = ask(memory, "Which instrument do I play?")
        if not pages(found):
            failures.append("nothing found")
        version = memory.hins_encoder.version
        if not seen or seen[-1][0] != version:
            seen.append([version, started])
    except Exception as error:
        failures.append(repr(error))
    time.sleep(0.02)
talk(memory, PAIRS[3:])
print(json.dumps({"seen": seen, "failures": failures, "pages": pages(ask(memory, "the garden"))}), flush=True)
"""


@pytest.mark.slow
def test_another_process_follows_a_swap_of_the_store(
    llm: LLMServer, settings: Settings, tmp_path: Path, tiny_version: EncoderVersion
) -> None:
    root = tmp_path / "store"
    memory = own_memory(llm, root)
    attach(memory, embedder="hins", settings=settings)
    talk(memory)
    stock = agent_of(memory).encoder_version
    given = {"url": llm.base_url, "root": str(root), "home": str(settings.home)}
    here = Path(__file__).parent
    path = os.pathsep.join(filter(None, (str(here), str(here.parents[1]), os.environ.get("PYTHONPATH", ""))))
    with subprocess.Popen(
        [sys.executable, "-c", CHILD, json.dumps(given)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": path},
    ) as process:
        try:
            said = _reader(process)
            assert next(said) == "open"
            time.sleep(0.3)
            encoder = Encoder.load(tiny_version.path)
            swap_agent(agent_of(memory), tiny_version.id, encoder, Registry(settings))
            flipped = time.time()
            time.sleep(1.5)
            assert process.stdin is not None
            process.stdin.write("\n")
            process.stdin.flush()
            result = next(said)
        finally:
            process.kill()
    assert result["failures"] == []
    assert [version for version, _ in result["seen"]] == [stock, tiny_version.id]
    assert result["seen"][1][1] - flipped < 1.0
    assert result["pages"]
    # Whatever the other process saved before and after it followed, no file mixes two encoders.
    assert assert_in_one_space(memory, encoder) > 5
    assert pages(ask(memory, "Which instrument do I play?"))


def _reader(process: subprocess.Popen[str]) -> Any:
    """Yield the values that the child prints in lines of JSON; MemoryOS prints other lines, too."""
    assert process.stdout is not None
    for line in process.stdout:
        try:
            value = json.loads(line)
        except ValueError:
            continue
        if value == "open" or isinstance(value, dict):
            yield value
