"""Swapping a MemoryOS store while it is used: every vector of every user, a way back, and kills at any moment."""

from __future__ import annotations

import itertools
import json
import signal
import threading
from pathlib import Path
from typing import Any

import pytest
from child_process import run_python
from hins_adapter_memoryos import Memoryos
from hins_adapter_memoryos.plugin import OpenStore, plugin
from llm_server import LLMServer
from memoryos_world import PAIRS, agent_of, ask, assert_in_one_space, module, options, own_memory, pages, talk

import hins_memory
from hins_memory.config import Settings
from hins_memory.encoders.encoder import Encoder
from hins_memory.errors import SwapError
from hins_memory.loop.pipeline import Pipeline
from hins_memory.registry.registry import EncoderVersion, Registry
from hins_memory.swapping import abandon_swap, plan_swap, retire_agent, rollback_agent, swap_agent

pytestmark = pytest.mark.slow

ENGLISH = (PAIRS[0][0], PAIRS[1][0], PAIRS[3][0], PAIRS[4][0])


def _swap(agent: Any, version: EncoderVersion, settings: Settings) -> Any:
    return swap_agent(agent, version.id, Encoder.load(version.path), Registry(settings), batch_size=3)


def _load(settings: Settings) -> Any:
    registry = Registry(settings)
    return lambda version: Encoder.load(registry.get(version).path if version.startswith("v0") else "stock")


def _text(memory: Any) -> Any:
    """Everything that MemoryOS has saved of a user, without the vectors."""

    def plain(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: plain(one) for key, one in value.items() if "embedding" not in key and key != "hins_encoder"}
        return [plain(one) for one in value] if isinstance(value, list) else value

    parts = (memory.short_term_memory, memory.mid_term_memory, memory.user_long_term_memory)
    files = [Path(part.file_path) for part in (*parts, memory.assistant_long_term_memory)]
    return [plain(json.loads(path.read_text(encoding="utf-8"))) for path in files if path.exists()]


def _world(llm: LLMServer, root: Path, settings: Settings) -> tuple[Any, Any]:
    """Two users that are here, and one that is only on disk."""
    talk(Memoryos(**options(llm, root, "cid", mid_term_heat_threshold=2.9), settings=settings), PAIRS[:4])
    users = [
        Memoryos(**options(llm, root, name, mid_term_heat_threshold=2.9), settings=settings) for name in ("ann", "bob")
    ]
    for user in users:
        talk(user)
    return users[0], users[1]


def test_swap_rollback_and_retire(
    settings: Settings, llm: LLMServer, tmp_path: Path, tiny_version: EncoderVersion, stock_encoder: Encoder
) -> None:
    root, tiny = tmp_path / "store", Encoder.load(tiny_version.path)
    ann, bob = _world(llm, root, settings)
    agent, before = agent_of(ann), [_text(ann), _text(bob)]
    assert agent is agent_of(bob)
    plan = plan_swap(agent, tiny)
    assert {one.kind: one.records for one in plan.indexes} == {"summaries": 3, "pages": 5, "knowledge": 3}
    report = _swap(agent, tiny_version, settings)
    assert {one.kind: one.vectors_checked for one in report.indexes} == {"summaries": 3, "pages": 5, "knowledge": 3}
    for user in (ann, bob):
        assert_in_one_space(user, tiny)
    assert [_text(ann), _text(bob)] == before
    for question in ENGLISH:
        assert pages(ask(ann, question))[0] == question
    # What is said after the swap is there after the rollback, and what it knew is not encoded again.
    talk(ann, [("My bicycle is red.", "A fine colour."), ("It has a basket.", "Practical.")])
    now = _text(ann)
    back = rollback_agent(agent, Registry(settings), _load(settings))
    assert {one.kind: (one.written, one.reused) for one in back.indexes}["pages"] == (2, 5)
    assert _text(ann) == now
    for user in (ann, bob):
        assert_in_one_space(user, stock_encoder)
    assert pages(ask(ann, "My bicycle is red."))[0] == "My bicycle is red."
    assert len(retire_agent(agent, Registry(settings))) == 3
    assert not list((root / ".hins").glob(f"vectors-{tiny_version.id}*"))


def test_swap_from_memoryos_own_encoder(
    settings: Settings, llm: LLMServer, tmp_path: Path, tiny_version: EncoderVersion
) -> None:
    memory = own_memory(llm, tmp_path / "store")
    talk(memory)
    module("utils").get_embedding("something")
    assert module("utils")._embedding_cache
    hins_memory.attach(memory, settings=settings)
    _swap(agent_of(memory), tiny_version, settings)
    assert module("utils")._embedding_cache == {}
    assert_in_one_space(memory, Encoder.load(tiny_version.path))
    with pytest.raises(SwapError, match="Detach"):
        rollback_agent(agent_of(memory), Registry(settings), _load(settings))
    hins_memory.detach(memory)
    assert pages(ask(memory, PAIRS[0][0]))[0] == PAIRS[0][0]
    assert len(memory.mid_term_memory.sessions.popitem()[1]["summary_embedding"]) == 384


def test_the_pipeline_and_the_command_line_swap_the_same(
    settings: Settings, llm: LLMServer, tmp_path: Path, tiny_version: EncoderVersion, stock_encoder: Encoder
) -> None:
    root = tmp_path / "store"
    ann, _ = _world(llm, root, settings)
    assert Pipeline(settings, ann).swap(force=True).version == tiny_version.id
    assert_in_one_space(ann, Encoder.load(tiny_version.path))
    store = plugin.hins_open_agent("memoryos", settings, {"data_storage_path": str(root)})
    assert isinstance(store, OpenStore)
    assert plugin.hins_agent(store).encoder_version == tiny_version.id
    assert Pipeline(settings, store).rollback().version == stock_encoder.version
    assert_in_one_space(ann, stock_encoder)


def test_it_is_used_while_it_is_swapped(
    settings: Settings, llm: LLMServer, tmp_path: Path, tiny_version: EncoderVersion, stock_encoder: Encoder
) -> None:
    root, tiny = tmp_path / "store", Encoder.load(tiny_version.path)
    ann, bob = _world(llm, root, settings)
    stop = threading.Event()
    errors: list[BaseException] = []
    searches: list[str] = []

    def search(number: int) -> None:
        question = ENGLISH[number % len(ENGLISH)]
        assert pages(ask(ann, question))[0] == question
        searches.append(question)

    def add(number: int) -> None:
        bob.add_memory(f"Note {number} about the cello.", "Noted.", timestamp="2026-04-01 10:00:00")

    def repeat(action: Any) -> None:
        try:
            for number in itertools.takewhile(lambda _: not stop.is_set(), itertools.count()):
                action(number)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=repeat, args=(action,)) for action in (search, add)]
    for thread in threads:
        thread.start()
    try:
        _swap(agent_of(ann), tiny_version, settings)
        rollback_agent(agent_of(ann), Registry(settings), _load(settings))
        _swap(agent_of(ann), tiny_version, settings)
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert errors == []
    assert len(searches) > 4
    for user in (ann, bob):
        assert_in_one_space(user, tiny)


def test_an_interrupted_build_resumes(
    settings: Settings, llm: LLMServer, tmp_path: Path, tiny_version: EncoderVersion, stock_encoder: Encoder
) -> None:
    ann, _ = _world(llm, tmp_path / "store", settings)
    agent, tiny = agent_of(ann), Encoder.load(tiny_version.path)

    def stop(what: str, done: int, total: int) -> None:
        if what == "build pages":
            raise RuntimeError("the power is gone")

    with pytest.raises(SwapError, match="power"):
        swap_agent(agent, tiny_version.id, tiny, Registry(settings), batch_size=3, progress=stop)
    assert_in_one_space(ann, stock_encoder)
    report = _swap(agent, tiny_version, settings)
    assert sum(one.reused for one in report.indexes) == 6
    assert_in_one_space(ann, tiny)


def test_an_abandoned_swap_leaves_nothing(
    settings: Settings, llm: LLMServer, tmp_path: Path, tiny_version: EncoderVersion, stock_encoder: Encoder
) -> None:
    root = tmp_path / "store"
    ann, _ = _world(llm, root, settings)
    with pytest.raises(SwapError):
        swap_agent(
            agent_of(ann),
            tiny_version.id,
            Encoder.load(tiny_version.path),
            Registry(settings),
            progress=lambda *_: 1 / 0,
        )
    assert list((root / ".hins").glob(f"vectors-{tiny_version.id}*"))
    assert len(abandon_swap(agent_of(ann), Registry(settings))) == 3
    assert not list((root / ".hins").glob(f"vectors-{tiny_version.id}*"))
    assert_in_one_space(ann, stock_encoder)


_SWAP_AND_DIE = """
import os, signal, sys
from pathlib import Path
from hins_memory.config import Settings
from hins_memory.encoders.encoder import Encoder
from hins_memory.registry.registry import Registry
from hins_memory.swapping import swap_agent
from hins_adapter_memoryos.agent import MemoryosAgent
from hins_adapter_memoryos.plugin import plugin

home, root, version, moment = sys.argv[1:]
settings = Settings(home=Path(home), project="test", log_url="")
agent = plugin.hins_open_agent("memoryos", settings, {"data_storage_path": root}).agent
convert, left = MemoryosAgent.convert_file, [int(moment)]

def dying(self, *args):
    if not left[0]:
        os.kill(os.getpid(), signal.SIGKILL)
    left[0] -= 1
    convert(self, *args)

MemoryosAgent.convert_file = dying
registry = Registry(settings)
swap_agent(agent, version, Encoder.load(registry.get(version).path), registry, batch_size=3)
"""


def _killed(settings: Settings, root: Path, version: str, moment: str) -> None:
    ended = run_python(_SWAP_AND_DIE, str(settings.home), str(root), version, moment)
    assert ended.returncode == -signal.SIGKILL, ended.stderr


@pytest.mark.parametrize("moment", [0, 2])
def test_a_flip_that_was_killed_is_finished_on_opening(
    settings: Settings,
    llm: LLMServer,
    tmp_path: Path,
    tiny_version: EncoderVersion,
    stock_encoder: Encoder,
    moment: int,
) -> None:
    root = tmp_path / "store"
    before = [_text(user) for user in _world(llm, root, settings)]
    _killed(settings, root, tiny_version.id, str(moment))
    # In this process as after a restart: the agent follows what is recorded when somebody opens the store.
    users = [Memoryos(**options(llm, root, name), settings=settings) for name in ("ann", "bob", "cid")]
    for user in users:
        assert_in_one_space(user, Encoder.load(tiny_version.path))
    assert [_text(user) for user in users[:2]] == before
    assert pages(ask(users[0], PAIRS[0][0]))[0] == PAIRS[0][0]
    rollback_agent(agent_of(users[0]), Registry(settings), _load(settings))
    assert_in_one_space(users[0], stock_encoder)


def test_a_store_that_memoryos_itself_wrote_to_meanwhile_is_repaired(
    settings: Settings, llm: LLMServer, tmp_path: Path, tiny_version: EncoderVersion
) -> None:
    root = tmp_path / "store"
    ann, _ = _world(llm, root, settings)
    _swap(agent_of(ann), tiny_version, settings)
    careless = own_memory(llm, root)
    careless.user_long_term_memory.add_user_knowledge("- Sold the bicycle")
    sizes = [len(entry["knowledge_embedding"]) for entry in careless.user_long_term_memory.get_user_knowledge()]
    assert sizes == [32, 32, 384]
    again = Memoryos(**options(llm, root), settings=settings)
    assert_in_one_space(again, Encoder.load(tiny_version.path))
    assert "- Sold the bicycle" in [
        entry["knowledge"] for entry in ask(again, "Sold the bicycle")["retrieved_user_knowledge"]
    ]


def test_a_flip_that_fails_changes_nothing(
    settings: Settings, llm: LLMServer, tmp_path: Path, tiny_version: EncoderVersion, stock_encoder: Encoder
) -> None:
    root = tmp_path / "store"
    ann, bob = _world(llm, root, settings)
    vectors = root / ".hins" / f"vectors-{tiny_version.id}.db"
    registry = Registry(settings)
    begin = registry.flip

    def damage(key: str, suffix: str) -> None:
        vectors.write_bytes(b"not a database" * 100)
        begin(key, suffix)

    registry.flip = damage  # type: ignore[method-assign]  # the disk goes bad in the worst moment
    with pytest.raises(SwapError, match="not a database"):
        swap_agent(agent_of(ann), tiny_version.id, Encoder.load(tiny_version.path), registry)
    live = Registry(settings).live_index(agent_of(ann).store_id)
    assert live is not None
    assert live.version == stock_encoder.version
    for user in (ann, bob):
        assert_in_one_space(user, stock_encoder)
    assert pages(ask(ann, PAIRS[0][0]))[0] == PAIRS[0][0]
    vectors.unlink()
    _swap(agent_of(ann), tiny_version, settings)
    assert_in_one_space(ann, Encoder.load(tiny_version.path))
