"""The packaged conversations in a LangGraph store, through a graph's nodes."""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypedDict

from hins_adapter_langgraph import HinsEmbeddings, HinsStore
from langgraph.config import get_store
from langgraph.graph import END, START, StateGraph
from langgraph.store.memory import InMemoryStore

from hins_memory.config import Settings
from hins_memory.data.sample_conversations import SampleConversation

__all__ = ["LangGraphPlayer"]


class _State(TypedDict, total=False):
    """What the graph is asked for: to keep a text under an id, or to search."""

    namespace: tuple[str, str]
    id: str
    text: str
    query: str
    found: list[str]


class LangGraphPlayer:
    """A graph with one node that remembers and one that recalls, on an `InMemoryStore` that hins-memory wraps.

    Args:
        settings: the project.
        base: the encoder that the store begins with, as `HinsEmbeddings` takes it.
        limit: how many memories a search returns.
    """

    name = "langgraph"

    def __init__(self, settings: Settings, base: str | Path, limit: int = 20) -> None:
        embeddings = HinsEmbeddings(base)
        inner = InMemoryStore(index={"dims": embeddings.dims, "embed": embeddings, "fields": ["text"]})
        #: what the pipeline swaps
        self.memory = HinsStore(inner, namespace=("memories", "{user}"), settings=settings)
        self._limit = limit
        self._graph = _graph(self.memory, limit)

    def add(self, conversation: SampleConversation) -> None:
        """Store every turn of a conversation."""
        for turn in conversation.turns:
            text = f"{turn.speaker}: {turn.text}"
            config = {"configurable": {"thread_id": conversation.id}}
            self._graph.invoke({"namespace": _namespace(conversation), "id": turn.id, "text": text}, config)

    def search(self, conversation: SampleConversation, query: str) -> list[str]:
        """Return the ids of the turns that a search finds, best first."""
        found: list[str] = self._graph.invoke({"namespace": _namespace(conversation), "query": query})["found"]
        return found

    def ask(self, conversation: SampleConversation) -> None:
        """Ask every question of a conversation, and answer it."""
        for asked in conversation.questions:
            with self.memory.turn() as turn:
                self.search(conversation, asked.question)
                turn.answered(asked.answer)


def _namespace(conversation: SampleConversation) -> tuple[str, str]:
    return ("memories", conversation.id)


def _graph(store: HinsStore, limit: int) -> Any:
    def remember(state: _State) -> _State:
        get_store().put(state["namespace"], state["id"], {"text": state["text"]})
        return {}

    def recall(state: _State) -> _State:
        found = get_store().search(state["namespace"], query=state["query"], limit=limit)
        return {"found": [item.key for item in found]}

    builder = StateGraph(_State)
    builder.add_node("remember", remember)
    builder.add_node("recall", recall)
    builder.add_conditional_edges(START, lambda state: "recall" if "query" in state else "remember")
    builder.add_edge("remember", END)
    builder.add_edge("recall", END)
    return builder.compile(store=store)
