"""A process with a live agent, which does what it is told and says what is there; it is killed at any moment."""

import contextlib
import logging
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Opened:
    """How the agent is opened, also after a kill."""

    store: dict[str, Any]
    settings: Any
    model: str


def serve(channel, opened):
    """Open the agent, then answer (name, arguments) until killed or told to end."""
    logging.disable(logging.WARNING)
    agent = LiveAgent(opened)
    channel.send("open")
    while True:
        name, arguments = channel.recv()
        if name == "end":
            agent.memory.close()
            channel.send("ended")
            return
        try:
            channel.send(("done", getattr(agent, name)(*arguments)))
        except Exception as error:
            channel.send(("failed", f"{type(error).__name__}: {error}"))


class LiveAgent:
    """A real Mem0 memory with the project's encoder, recorded."""

    def __init__(self, opened):
        from hins_adapter_mem0 import Memory
        from hins_adapter_mem0.attaching import agent_of

        from hins_memory.registry.registry import Registry

        self.memory = Memory({"vector_store": opened.store}, settings=opened.settings, model=opened.model)
        self.agent = agent_of(self.memory)
        self.registry = Registry(opened.settings)
        self.settings = opened.settings

    def add(self, user, text):
        (item,) = self.memory.add(text, user_id=user, infer=False)["results"]
        return item["id"]

    def update(self, id_, text):
        self.memory.update(id_, text)

    def delete(self, id_):
        self.memory.delete(id_)

    def delete_all(self, user):
        self.memory.delete_all(user_id=user)

    def flush(self):
        from hins_memory.log.capture import flush_all

        assert flush_all()

    def swap(self, version):
        from hins_memory.encoders.encoder import Encoder
        from hins_memory.swapping import swap_agent

        if version != self.agent.encoder_version:
            encoder = Encoder.load(self.registry.get(version).path)
            swap_agent(self.agent, version, encoder, self.registry, batch_size=4)

    def rollback(self):
        from hins_memory.errors import SwapError
        from hins_memory.swapping import rollback_agent

        # There may be nothing to go back to.
        with contextlib.suppress(SwapError):
            rollback_agent(self.agent, self.registry, self.agent.encoders.by_version)

    def look(self, users):
        """Return everything that can be seen of the agent and of its log."""
        import numpy as np

        from hins_memory.database.engine import open_database
        from hins_memory.log.reader import LogReader

        self.flush()
        stored, found = {}, {}
        for user in users:
            listed = self.memory.get_all(filters={"user_id": user}, top_k=1000)["results"]
            assert all(item["user_id"] == user for item in listed)
            stored[user] = {item["id"]: item["memory"] for item in listed}
            query = "Which instrument?"
            results = self.memory.search(query, filters={"user_id": user}, top_k=50, threshold=0.0)["results"]
            found[user] = {item["id"]: item["memory"] for item in results}
        encoder, wrong = self.agent.current.encoder, []
        for index in self.agent.live_indexes():
            texts = {record.id: record.text for page in index.pages(50) for record in page}
            vectors = index.vectors(list(texts))
            expected = encoder.encode(list(texts.values()), role="document") if texts else []
            wrong += [
                id_
                for id_, vector in zip(texts, expected, strict=True)
                if id_ not in vectors or float(np.dot(vectors[id_], vector)) < 0.999
            ]
        logs = LogReader(open_database(self.settings.database_url)).scope_logs()
        logged = {log.scope.user: {one.id: one.text for one in log.memories} for log in logs}
        return {"stored": stored, "found": found, "wrong": wrong, "logged": logged, "rows": self._rows()}

    def _rows(self):
        (index, _) = self.agent.live_indexes()
        return {record.id: record.payload["user_id"] for page in index.pages(50) for record in page}
