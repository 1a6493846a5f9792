"""The tests of capture and of serving: what an agent does is recorded, and nothing else about it changes."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from typing import TYPE_CHECKING, Any

import pytest

from hins_memory.encoders.encoder import Encoder
from hins_memory.errors import HinsError
from hins_memory.testing.claims import TEXTS, needs
from hins_memory.testing.world import ANN, ContractWorld

if TYPE_CHECKING:
    from hins_memory.types import ScopeLog

__all__ = ["CaptureContract"]


class CaptureContract:
    """Each test is for the drivers that claim what it is about; see `AdapterContract`."""

    @needs("capture")
    def test_contract_capture_is_complete(self, world: ContractWorld) -> None:
        """Every memory, search and answer is in the log, in order, with the framework's ids and texts."""
        memory = world.open()
        ids = [world.add(text) for text in TEXTS[:5]]
        with world.driver.turn(memory) as turn:
            found = world.search(TEXTS[1])
            turn.answered("The tomatoes.")
        later = world.search(TEXTS[2], limit=2)
        world.close()
        (log,) = world.logs()
        assert [(one.id, one.text) for one in log.memories] == list(zip(ids, TEXTS, strict=False))
        assert [one.query for one in log.retrievals] == [TEXTS[1], TEXTS[2]]
        ranked = [[(one.memory_id, one.text) for one in retrieval.results] for retrieval in log.retrievals]
        assert ranked == [found, later]
        assert found, "a search finds what was stored"
        assert [(one.retrieval_id, one.text) for one in log.answers] == [(log.retrievals[0].id, "The tomatoes.")]

    @needs("capture", methods=["update"])
    def test_contract_updates_are_recorded(self, world: ContractWorld) -> None:
        """A memory that changes is the same one, with its new text."""
        memory = world.open()
        first, second = (world.add(text) for text in TEXTS[:2])
        world.driver.update(memory, first, TEXTS[2], ANN)
        assert {first: TEXTS[2], second: TEXTS[1]} == {one.id: one.text for one in world.logs()[0].memories}

    @needs("capture", methods=["delete"])
    def test_contract_deletions_are_recorded(self, world: ContractWorld) -> None:
        """A memory that is deleted is gone from what is trained on."""
        memory = world.open()
        first, second = (world.add(text) for text in TEXTS[:2])
        world.driver.delete(memory, first, ANN)
        (log,) = world.logs()
        assert ([one.id for one in log.memories], log.deleted) == ([second], 1)

    @needs("capture", lasting=True)
    def test_contract_ids_are_stable(self, world: ContractWorld) -> None:
        """What is found has the id that it was stored under, also when the store is opened again."""
        world.open()
        ids = {world.add(text): text for text in TEXTS[:3]}
        before = world.search(TEXTS[0])
        world.close()
        world.open()
        assert world.search(TEXTS[0]) == before
        assert dict(before).items() <= ids.items()
        world.close()
        assert {one.memory_id for log in world.logs() for item in log.retrievals for one in item.results} <= set(ids)

    @needs("capture")
    def test_contract_scopes_stay_apart(self, world: ContractWorld) -> None:
        """Whatever their ids are, nothing of one user is recorded with another; what names no user is not recorded."""
        users = {f"Number {number} is a person.": user for number, user in enumerate(world.driver.users)}
        world.open(next(iter(world.driver.users)))
        for text, user in users.items():
            world.add(text, user)
        for unnamed in world.driver.unnamed:
            world.add("This is of no user.", unnamed)
        for user in users.values():
            world.search("Who is a person?", user)
        world.close()
        logs = world.logs()
        assert sorted(_texts(log) for log in logs) == sorted([text] for text in users)
        assert len({log.scope.owner for log in logs}) == len(users)
        for log in logs:
            (retrieval,) = log.retrievals
            assert [one.text for one in retrieval.results] == _texts(log)

    @needs("capture")
    def test_contract_nothing_is_raised_into_the_agent(self, world: ContractWorld) -> None:
        """A log that cannot be written stops nothing, and what happened meanwhile is written when it is back."""
        world.open()
        ids = [world.add(TEXTS[0])]
        assert world.logs()
        database = next(world.settings.root.rglob("*.db"))
        with contextlib.closing(sqlite3.connect(database, timeout=10, isolation_level=None)) as broken:
            broken.execute("ALTER TABLE memories RENAME TO away")
            ids.append(world.add(TEXTS[1]))
            assert TEXTS[1] in dict(world.search(TEXTS[1])).values()
            broken.execute("ALTER TABLE away RENAME TO memories")
        (log,) = world.logs()
        assert [one.id for one in log.memories] == ids
        assert len(log.retrievals) == 1

    @needs("capture", "serve")
    def test_contract_an_encoder_that_fails_records_nothing(
        self, world: ContractWorld, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """While the encoder fails nothing is recorded that did not happen, and afterwards everything goes on."""
        world.open()
        world.add(TEXTS[0])

        def failing(*_: object, **__: object) -> None:
            raise RuntimeError("out of memory")

        with monkeypatch.context() as patch:
            patch.setattr(Encoder, "encode", failing)
            for call in (lambda: world.add(TEXTS[1]), lambda: world.search(TEXTS[2])):
                # Whether the framework raises, or finds nothing, is its own.
                with contextlib.suppress(Exception):
                    call()
        world.add(TEXTS[2])
        assert world.search(TEXTS[2])[0][1] == TEXTS[2]
        (log,) = world.logs()
        assert _texts(log) == sorted([TEXTS[0], TEXTS[2]])

    @needs("capture", methods=["make_async", "add_async", "search_async"])
    def test_contract_async_calls_are_recorded(self, world: ContractWorld) -> None:
        """Calls that are awaited are recorded as the others, and turns of tasks that run together stay apart."""
        driver = world.driver

        async def ask(memory: Any, number: int) -> str:
            with driver.turn(memory) as turn:
                await driver.search_async(memory, TEXTS[number], ANN, 2)
                await asyncio.sleep(0)
                turn.answered(f"Answer {number}")
            return f"Answer {number}"

        async def use() -> tuple[list[str], list[str]]:
            memory = world.attach(await driver.make_async(world.place()))
            ids = [await driver.add_async(memory, text, ANN) for text in TEXTS[:3]]
            answers = await asyncio.gather(*(ask(memory, number) for number in range(3)))
            world.close()
            return ids, answers

        ids, answers = asyncio.run(use())
        (log,) = world.logs()
        assert [one.id for one in log.memories] == ids
        queries = {one.id: one.query for one in log.retrievals}
        assert {one.text: queries[one.retrieval_id] for one in log.answers} == dict(zip(answers, TEXTS, strict=False))

    @needs("capture")
    def test_contract_detach_is_exact(self, world: ContractWorld) -> None:
        """Detaching gives the object back as it was, and nothing is recorded any more."""
        memory = world.driver.make(world.place())
        before = _state(memory)
        attached = world.attach(memory)
        id_ = world.add(TEXTS[0])
        assert world.detach(attached) is memory
        assert _state(memory) == before
        with pytest.raises(HinsError):
            world.driver.plugin.hins_detach(memory)
        world.driver.add(memory, TEXTS[1], ANN)
        assert [one.id for log in world.logs() for one in log.memories] == [id_]

    @needs("serve")
    def test_contract_the_projects_encoder_serves(self, world: ContractWorld) -> None:
        """What is stored and asked is embedded by the project's encoder: a text finds itself."""
        world.open()
        for text in TEXTS[:5]:
            world.add(text)
        assert [world.search(text)[0][1] for text in TEXTS[:5]] == list(TEXTS[:5])
        assert {one.encoder_version for one in world.logs()[0].retrievals} == {Encoder.load(world.base).version}


def _texts(log: ScopeLog) -> list[str]:
    return sorted(memory.text for memory in log.memories)


def _state(memory: Any) -> Any:
    """What an object is made of: its class, and its attributes with those of their own."""
    slots = [name for cls in type(memory).__mro__ for name in getattr(cls, "__slots__", ()) if name != "__weakref__"]
    parts = {name: getattr(memory, name) for name in slots if hasattr(memory, name)} | getattr(memory, "__dict__", {})
    return type(memory), {
        name: (id(part), type(part), sorted(getattr(part, "__dict__", ()))) for name, part in parts.items()
    }
