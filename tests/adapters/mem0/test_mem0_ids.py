"""Whose something is: ids of every type that Mem0 takes, filters across owners, deletions that reach no one else."""

from __future__ import annotations

import asyncio
import enum
import logging
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hins_adapter_mem0 import AsyncMemory, Memory
from hins_adapter_mem0.events import scope_of, search_scope
from hins_adapter_mem0.recorder import Mem0Recorder
from hypothesis import given
from hypothesis import strategies as st
from mem0.memory.main import _validate_and_trim_entity_id
from mem0_world import logged

from hins_memory.config import Settings
from hins_memory.log.capture import flush_all
from hins_memory.types import Scope


class Colour(str, enum.Enum):
    RED = "red"


class Number(enum.Enum):
    ONE = 1


class Name(str):
    """A string of a type of its own, which shows itself as something else."""

    __slots__ = ()

    def __str__(self) -> str:
        return f"Name({super().__str__()})"


#: ids that Mem0 takes, and the name that it stores; each is another person's
IDS: list[tuple[Any, str]] = [
    ("ann", "ann"),
    ("  bob ", "bob"),
    (7, "7"),
    (7.5, "7.5"),
    (True, "True"),
    (uuid.UUID(int=5), "00000000-0000-0000-0000-000000000005"),
    (np.int64(11), "11"),
    (np.float32(0.25), "0.25"),
    (np.str_("numpy"), "numpy"),
    (b"cia", "b'cia'"),
    (Colour.RED, "red"),
    (Number.ONE, "Number.ONE"),
    (Name("dai"), "dai"),
    ("安&娜=%🍵", "安&娜=%🍵"),
]


@pytest.fixture
def memory(settings: Settings, tiny_folder: Path) -> Iterator[Any]:
    made = Memory(settings=settings, model=tiny_folder)
    yield made
    made.close()


def living(settings: Settings) -> dict[str, list[str]]:
    """The texts of the memories that the log holds as alive, by user."""
    assert flush_all()
    found: dict[str, list[str]] = {}
    for log in logged(settings):
        found.setdefault(log.scope.user, []).extend(memory.text for memory in log.memories)
    return {user: sorted(texts) for user, texts in found.items() if texts}


@pytest.mark.slow
def test_every_id_that_mem0_takes_is_an_owner_of_its_own(memory: Any, settings: Settings) -> None:
    for id_, _ in IDS:
        memory.add(f"This is {id_!r}.", user_id=id_, infer=False)
        assert memory.search("Who is this?", filters={"user_id": id_})["retrieval_id"]
    wanted = {name: [f"This is {id_!r}."] for id_, name in IDS}
    assert living(settings) == wanted
    stored = {row.payload["user_id"] for row in memory.vector_store.list(filters=None, top_k=99)[0]}
    assert stored == set(wanted), "Mem0 names them otherwise"
    for log in logged(settings):
        assert [one.scope.user for one in (*log.turns, *log.retrievals)] == [log.scope.user] * 2
    for id_, name in IDS:
        memory.delete_all(user_id=id_)
        del wanted[name]
        assert living(settings) == wanted


_IDS = st.sampled_from([id_ for id_, _ in IDS]) | st.one_of(
    st.none(), st.text(max_size=6), st.integers(), st.floats(), st.binary(max_size=4), st.uuids(), st.dates()
)


@given(_IDS)
def test_ids_are_named_as_mem0_names_them(id_: Any) -> None:
    try:
        wanted = _validate_and_trim_entity_id(id_, "user_id")
    except ValueError:
        assert scope_of({"user_id": id_}) is None
        return
    scope = scope_of({"user_id": id_, "agent_id": "bot"})
    if wanted is not None and ("\x00" in wanted or not _writable(wanted)):
        assert scope is None
    else:
        assert scope == Scope(user=wanted or "", agent="bot")


def _writable(text: str) -> bool:
    return text == text.encode("utf-8", "replace").decode("utf-8")


@pytest.mark.parametrize(
    ("filters", "scope"),
    [
        ({"user_id": "ann"}, Scope("ann")),
        ({"user_id": 7, "agent_id": "bot", "run_id": "r"}, Scope("7", "bot", "r")),
        ({"user_id": "*"}, None),
        ({"user_id": "*", "agent_id": "bot"}, None),
        ({"user_id": "ann", "agent_id": "*"}, Scope("ann")),
        ({"user_id": "ann", "run_id": "*"}, Scope("ann")),
        ({"run_id": "*"}, None),
        ({"agent_id": "*"}, None),
        ({"user_id": {"in": ["ann", "bob"]}}, None),
        ({"user_id": {"ne": "ann"}}, None),
        # What is under AND counts as much as what stands beside it, and the last one wins.
        ({"user_id": "ann", "AND": [{"user_id": "bob"}]}, Scope("bob")),
        ({"AND": [{"user_id": "bob"}], "user_id": "ann"}, Scope("ann")),
        ({"agent_id": "bot", "AND": [{"user_id": {"in": ["ann", "bob"]}}]}, None),
        ({"agent_id": "bot", "AND": [{"user_id": {"in": ["ann"]}}]}, Scope("ann", "bot")),
        ({"agent_id": "bot", "AND": [{"user_id": {"eq": "ann"}}]}, Scope("ann", "bot")),
        ({"agent_id": "bot", "AND": [{"user_id": {"contains": "a"}}]}, None),
        ({"agent_id": "bot", "AND": [{"user_id": 7}]}, None),
        ({"user_id": "ann", "AND": [{"run_id": {"in": ["r", "s"]}}]}, Scope("ann")),
        ({"user_id": "ann", "AND": [{"topic": "tea"}]}, Scope("ann")),
        ({"agent_id": "bot", "OR": [{"user_id": "ann"}, {"user_id": "bob"}]}, None),
        ({"agent_id": "bot", "NOT": [{"user_id": "ann"}]}, None),
        ({"agent_id": "bot", "$or": [{"user_id": "ann"}, {"user_id": "bob"}]}, None),
        ({"user_id": "ann", "OR": [{"run_id": "r"}, {"run_id": "s"}]}, Scope("ann")),
        ({"user_id": "ann", "NOT": [{"user_id": "bob"}]}, Scope("ann")),
        ({"run_id": "r"}, Scope(run="r")),
        ({"topic": "tea"}, None),
        ({}, None),
    ],
)
def test_the_scope_of_a_search(filters: dict[str, Any], scope: Scope | None) -> None:
    assert search_scope(filters) == scope


@pytest.mark.slow
@pytest.mark.parametrize(
    ("filters", "users", "recorded"),
    [
        ({"user_id": "*"}, {"ann", "bob"}, ""),
        ({"user_id": "ann", "AND": [{"user_id": "bob"}]}, {"bob"}, "bob"),
        ({"AND": [{"user_id": "bob"}], "user_id": "ann"}, {"ann"}, "ann"),
        ({"agent_id": "bot", "OR": [{"user_id": "ann"}, {"user_id": "bob"}]}, {"ann", "bob"}, ""),
        ({"agent_id": "bot", "NOT": [{"user_id": "ann"}]}, {"bob"}, ""),
        ({"user_id": "ann", "agent_id": "*"}, {"ann"}, "ann"),
    ],
)
def test_what_is_recorded_under_a_user_holds_nothing_of_another(
    memory: Any, settings: Settings, filters: dict[str, Any], users: set[str], recorded: str
) -> None:
    for user in ("ann", "bob"):
        memory.add(f"Tea is what {user} drinks.", user_id=user, agent_id="bot", infer=False)
    found = memory.search("Who drinks tea?", filters=filters, threshold=0.0)
    assert {item["user_id"] for item in found["results"]} == users, "Mem0 searches otherwise"
    assert flush_all()
    assert [one.scope.user for log in logged(settings) for one in log.retrievals] == ([recorded] if recorded else [])
    assert bool(found["retrieval_id"]) == bool(recorded)


def test_sessions_of_nobody_are_owners_of_their_own(memory: Any, settings: Settings) -> None:
    for run in ("r1", "r2"):
        memory.add(f"Said in {run}.", run_id=run, infer=False)
    assert flush_all()
    assert {log.scope.key: [one.text for one in log.memories] for log in logged(settings)} == {
        "run=r1": ["Said in r1."],
        "run=r2": ["Said in r2."],
    }


def test_a_deletion_reaches_only_what_the_store_deleted(settings: Settings, tiny_folder: Path, tmp_path: Path) -> None:
    def opened(name: str) -> Any:
        store = {"provider": "qdrant", "config": {"path": str(tmp_path / name), "on_disk": True}}
        return Memory({"vector_store": store}, settings=settings, model=tiny_folder)

    first, second = opened("first"), opened("second")
    try:
        for memory in (first, second):
            for user in ("ann", "bob"):
                memory.add(f"{user} in {memory.config.vector_store.config.path[-6:]}", user_id=user, infer=False)
        first.delete_all(user_id="ann")
        assert living(settings) == {"ann": ["ann in second"], "bob": ["bob in /first", "bob in second"]}
        # Mem0's Qdrant takes this for a wildcard.
        first.delete_all(user_id="*")
        assert living(settings) == {"ann": ["ann in second"], "bob": ["bob in second"]}
        first.add("again", user_id="ann", infer=False)
        first.reset()
        assert living(settings) == {"ann": ["ann in second"], "bob": ["bob in second"]}
    finally:
        first.close()
        second.close()


def test_an_id_in_another_spelling_is_the_same_memory(memory: Any, settings: Settings) -> None:
    (item,) = memory.add("I live in Oslo.", user_id="ann", infer=False)["results"]
    spelled = uuid.UUID(item["id"]).hex
    memory.update(spelled, "I live in Bergen.")
    assert living(settings) == {"ann": ["I live in Bergen."]}
    memory.delete(spelled)
    assert living(settings) == {}


def test_a_deletion_that_fails_after_the_store_is_recorded(memory: Any, settings: Settings) -> None:
    ids = [memory.add(f"Fact {n}.", user_id="ann", infer=False)["results"][0]["id"] for n in range(3)]
    memory.db.connection.execute("ALTER TABLE history RENAME TO away")
    with pytest.raises(Exception, match="history"):
        memory.delete(ids[0])
    with pytest.raises(Exception, match="history"):
        memory.update(ids[1], "Another fact.")
    assert living(settings) == {"ann": ["Another fact.", "Fact 2."]}
    with pytest.raises(ValueError, match="not found"):
        memory.delete(str(uuid.uuid4()))
    assert living(settings) == {"ann": ["Another fact.", "Fact 2."]}


def test_async_deletions_are_recorded_one_by_one(settings: Settings, tiny_folder: Path) -> None:
    async def work() -> None:
        memory = AsyncMemory(settings=settings, model=tiny_folder)
        ids = []
        for user in (uuid.UUID(int=1), uuid.UUID(int=2)):
            for number in range(3):
                added = await memory.add(f"{user.int}.{number}", user_id=user, infer=False)
                ids.append(added["results"][0]["id"])
        await memory.delete_all(user_id=uuid.UUID(int=1))
        await memory.delete(ids[-1])
        await memory.delete(ids[-2], capture=False)
        memory.close()

    asyncio.run(work())
    assert living(settings) == {str(uuid.UUID(int=2)): ["2.0", "2.1"]}


def test_what_names_nobody_is_counted_and_said_once(caplog: pytest.LogCaptureFixture) -> None:
    recorder = Mem0Recorder(None)
    with caplog.at_level(logging.WARNING):
        for id_ in ("", "a b", "a\x00", "\ud800"):
            recorder.added(None, "hello", {"user_id": id_, "infer": False}, {"results": []})
    assert recorder.unnamed == 4
    assert len(caplog.records) == 1
