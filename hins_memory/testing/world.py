"""One store of a framework with a project of its own, as a test of the contract suite gets it."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from hins_memory.config import Settings
from hins_memory.database.engine import open_database
from hins_memory.log.capture import flush_all
from hins_memory.log.reader import LogReader
from hins_memory.registry.loader import EncoderSource
from hins_memory.registry.registry import EncoderVersion, Registry
from hins_memory.swapping import SwapReport, rollback_agent, swap_agent
from hins_memory.testing.driver import AdapterDriver, Found, Place

if TYPE_CHECKING:
    from hins_memory.encoders.encoder import Encoder
    from hins_memory.plugins.protocols import Agent
    from hins_memory.types import ScopeLog

__all__ = ["ANN", "ContractWorld", "Stored"]

#: who stores and searches where a test is about one user
ANN = "ann"
#: id -> (text, payload, vector), by the kind of index
Stored = dict[str, dict[str, tuple[str, Mapping[str, Any], list[float]]]]
# Small, so that a dozen records are several batches.
_BATCH = 4


@dataclass
class ContractWorld:
    """A store that a driver uses, and a project of its own; it can be sent to another process.

    Args:
        driver: uses the framework.
        folder: of the test's own.
        base: the encoder that the store begins with, a sentence-transformers folder.
        other: another encoder, of another length, to swap to.
        tower: an encoder that differs from `base` in queries only.
    """

    driver: AdapterDriver
    folder: Path
    base: Path
    other: Path
    tower: Path
    _opened: list[Any] = field(default_factory=list)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_opened": []}

    @property
    def settings(self) -> Settings:
        """The project."""
        return Settings(home=self.folder / "home", project="contract", log_url="")

    @property
    def registry(self) -> Registry:
        """The project's registry."""
        return Registry(self.settings)

    @property
    def options(self) -> dict[str, Any]:
        """The options of `hins_memory.attach`."""
        serving = {"embedder": "hins", "model": self.base} if "serve" in self.driver.plugin.capabilities else {}
        return {"settings": self.settings, **serving}

    def place(self, user: Any = ANN) -> Place:
        """Return where objects are made."""
        return Place(self.folder / "store", self.base, user)

    def attach(self, memory: Any) -> Any:
        """Attach to an object of the framework, as `hins_memory.attach` does."""
        attached = self.driver.plugin.hins_attach(memory, self.options)
        assert attached is not None, f"{type(memory).__name__} is not an object of {self.driver.plugin.name}"
        self._opened.append(attached)
        return attached

    def detach(self, memory: Any) -> Any:
        """Detach from an object, as `hins_memory.detach` does."""
        self._opened.remove(memory)
        return self.driver.plugin.hins_detach(memory)

    def open(self, user: Any = ANN) -> Any:
        """Return an attached object; of one that every user shares, the one that is open."""
        if self._opened and not self.driver.one_user:
            return self._opened[0]
        return self.attach(self.driver.make(self.place(user)))

    def close(self) -> None:
        """Close everything that is open."""
        while self._opened:
            self.driver.close(self._opened.pop())

    def add(self, text: str, user: Any = ANN) -> str:
        """Store a text for a user and return its id."""
        return self.driver.add(self._of(user), text, user)

    def search(self, query: str, user: Any = ANN, limit: int = 5) -> Found:
        """Search what was stored for a user."""
        return self.driver.search(self._of(user), query, user, limit)

    def _of(self, user: Any) -> Any:
        """Return the open object of a user."""
        return self.open(user) if self.driver.one_user and user != ANN else self._opened[0]

    def agent(self) -> Agent:
        """Return the agent of the open object."""
        agent: Agent | None = self.driver.plugin.hins_agent(self._opened[0])
        assert agent is not None, "an adapter that swaps has an agent for each attached object"
        return agent

    def logs(self) -> list[ScopeLog]:
        """Return what the log holds, an owner at a time, after writing what waits; texts are as they were stored."""
        assert flush_all(), "events were not written in time"
        return [self._said(log) for log in LogReader(open_database(self.settings.database_url)).scope_logs()]

    def _said(self, log: ScopeLog) -> ScopeLog:
        def said(one: Any) -> Any:
            return replace(one, text=self.driver.said(one.text))

        retrievals = tuple(
            replace(one, query=self.driver.said(one.query), results=tuple(map(said, one.results)))
            for one in log.retrievals
        )
        return replace(log, memories=tuple(map(said, log.memories)), retrievals=retrievals)

    def load(self, version: str) -> Encoder:
        """Return the encoder of a version."""
        return EncoderSource(self.registry, self.base).by_version(version)

    def add_version(self, folder: Path, **about: Any) -> EncoderVersion:
        """Make an encoder's folder a version of the project."""
        copy = self.folder / f"version-{folder.name}"
        shutil.copytree(folder, copy)
        return self.registry.add(copy, {"base": "random", **about})

    def swap(self, version: str) -> SwapReport:
        """Swap the open store to a version."""
        return swap_agent(self.agent(), version, self.load(version), self.registry, batch_size=_BATCH)

    def roll_back(self) -> SwapReport:
        """Return to what served before the last swap."""
        return rollback_agent(self.agent(), self.registry, self.load, batch_size=_BATCH)

    def stored(self) -> Stored:
        """Return everything that the live indexes hold."""
        found: Stored = {}
        for index in self.agent().live_indexes():
            records = [record for page in index.pages(_BATCH) for record in page]
            vectors = index.vectors([record.id for record in records])
            assert vectors.keys() == {record.id for record in records}, f"{index.name} lacks vectors"
            assert len(vectors) == len(records), f"{index.name} yields a record twice"
            found[index.kind] = {
                one.id: (one.text, dict(one.payload), np.asarray(vectors[one.id]).tolist()) for one in records
            }
        return found

    def texts(self) -> dict[str, str]:
        """Return the texts of the live indexes as they were stored, by their ids there."""
        stored = {kind: rows for kind, rows in self.stored().items() if kind not in self.driver.derived_kinds}
        rows = [row for records in stored.values() for row in records.items()]
        return {id_: self.driver.said(text) for id_, (text, _, _) in rows}

    def assert_in_one_space(self) -> None:
        """Check that every stored vector is what the serving encoder makes of its text."""
        encoder = self.load(self.agent().encoder_version)
        for records in self.stored().values():
            if records:
                expected = encoder.encode([text for text, _, _ in records.values()], role="document")
                for (text, _, vector), right in zip(records.values(), expected, strict=True):
                    assert len(vector) == len(right), text
                    assert float(np.dot(vector, right)) > 0.999, text
