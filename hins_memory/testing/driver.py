"""How the contract suite uses an agent framework: what the author of an adapter writes for it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hins_memory.sdk.plugin import AdapterPlugin
    from hins_memory.sdk.recorder import AgentTurn

__all__ = ["AdapterDriver", "Found", "Place"]

#: What a search found, best first: ids as the log knows them, and texts.
Found = list[tuple[str, str]]


@dataclass(frozen=True)
class Place:
    """Where an object of the framework is made.

    Args:
        folder: where its store is. Objects of one folder share a store, also those of several processes.
        base: a sentence-transformers folder, of the encoder that the framework begins with.
        user: whose object it is, in a framework that has one for each user.
    """

    folder: Path
    base: Path
    user: Any


class AdapterDriver(ABC):
    """A framework as the suite uses it: derive from it, in a module that other processes can import.

    `add` and the other calls get an attached object, except that `make` returns one of the framework's own, as a
    program without hins-memory would have it. What is optional and not overridden is not tested.
    """

    #: the adapter's plugin; its `capabilities` say which tests run
    plugin: AdapterPlugin
    #: in the ids of the tests; "" for the plugin's name
    name = ""
    #: users that the framework takes; each is another one
    users: Sequence[Any] = ("ann", "7", "ann/bob", "user=ann&tenant=b", "a%2Fb", "李🍵")
    #: what the framework takes in the place of a user, though it names none: nothing of it is recorded
    unnamed: Sequence[Any] = ()
    #: kinds of indexes with what the framework makes of a text, e.g. names of entities, beside the text itself
    derived_kinds: Sequence[str] = ()
    #: whether an object is of one user
    one_user = False
    #: whether several processes can have the store of a folder open at a time
    shared = False
    #: whether the store of a folder is there again when it is opened after it was closed, also in another process
    lasting = True

    @classmethod
    def label(cls) -> str:
        """Return the name in the ids of the tests."""
        return cls.name or cls.plugin.name

    @classmethod
    def has(cls, method: str) -> bool:
        """Return whether an optional method is overridden."""
        return getattr(cls, method) is not getattr(AdapterDriver, method)

    @abstractmethod
    def make(self, place: Place) -> Any:
        """Return an object of the framework's own; the second of a place opens the same store."""

    @abstractmethod
    def add(self, memory: Any, text: str, user: Any) -> str:
        """Store a text for a user as it is, and return the id under which the log knows it."""

    @abstractmethod
    def search(self, memory: Any, query: str, user: Any, limit: int) -> Found:
        """Search what was stored for a user; the texts are as they were stored."""

    def said(self, text: str) -> str:
        """Return what was stored or asked, of what the framework made of it; as it is, where it puts nothing around it.

        Texts that are stored are to be found by themselves: where the framework puts something around these alone,
        `search` puts the same around what it asks.
        """
        return text

    def turn(self, memory: Any) -> AgentTurn:
        """Return the context manager of a turn."""
        turn: AgentTurn = memory.turn()
        return turn

    def close(self, memory: Any) -> None:
        """Close an attached object, and its store, so that it can be opened again."""
        memory.close()

    def update(self, memory: Any, id_: str, text: str, user: Any) -> None:
        """Give what was stored under an id another text; optional."""
        raise NotImplementedError

    def delete(self, memory: Any, id_: str, user: Any) -> None:
        """Delete what was stored under an id; optional."""
        raise NotImplementedError

    async def make_async(self, place: Place) -> Any:
        """Return an object with calls that are awaited; optional, with `add_async` and `search_async`."""
        raise NotImplementedError

    async def add_async(self, memory: Any, text: str, user: Any) -> str:
        """Do the same as `add` with an object of `make_async`."""
        raise NotImplementedError

    async def search_async(self, memory: Any, query: str, user: Any, limit: int) -> Found:
        """Do the same as `search` with an object of `make_async`."""
        raise NotImplementedError
