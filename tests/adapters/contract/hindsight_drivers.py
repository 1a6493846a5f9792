"""How the contract suite uses Hindsight."""

from __future__ import annotations

from typing import Any

from hindsight_world import awaited, close_engine, database, on_the_loop, open_engine, request
from hins_adapter_hindsight import HinsEmbeddings
from hins_adapter_hindsight.plugin import plugin as hindsight_plugin

from hins_memory.sdk import AgentTurn
from hins_memory.testing import AdapterDriver, Found, Place


class HindsightDriver(AdapterDriver):
    """A `MemoryEngine` on PostgreSQL that keeps texts as they are, for want of a language model."""

    plugin = hindsight_plugin
    users = ("ann", "7", "ann/bob", "user=ann&tenant=b", "a%2Fb", "李🍵", "None")

    def make(self, place: Place) -> Any:
        return open_engine(database(str(place.folder)), HinsEmbeddings(place.base))

    def add(self, memory: Any, text: str, user: Any) -> str:
        return str(awaited(self._add(memory, text, user)))

    async def _add(self, memory: Any, text: str, user: Any) -> str:
        (id_,) = await memory.retain_async(user, text, request_context=request())
        return str(id_)

    def search(self, memory: Any, query: str, user: Any, limit: int) -> Found:
        return self._found(awaited(memory.recall_async(user, query, request_context=request())))

    def _found(self, recalled: Any) -> Found:
        # A recall is limited by tokens, not by a number.
        return [(one.id, one.text) for one in recalled.results]

    def update(self, memory: Any, id_: str, text: str, user: Any) -> None:
        awaited(memory.update_memory_unit(user, id_, text=text, request_context=request()))

    def delete(self, memory: Any, id_: str, user: Any) -> None:
        awaited(memory.update_memory_unit(user, id_, state="invalidated", request_context=request()))

    async def make_async(self, place: Place) -> Any:
        return self.make(place)

    async def add_async(self, memory: Any, text: str, user: Any) -> str:
        return str(await on_the_loop(self._add(memory, text, user)))

    async def search_async(self, memory: Any, query: str, user: Any, limit: int) -> Found:
        return self._found(await on_the_loop(memory.recall_async(user, query, request_context=request())))

    def turn(self, memory: Any) -> AgentTurn:
        turn: AgentTurn = memory.hins.turn()
        return turn

    def close(self, memory: Any) -> None:
        self.plugin.hins_detach(memory)
        close_engine(memory)
