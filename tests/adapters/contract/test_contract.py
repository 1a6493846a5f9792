"""Every adapter passes the contract suite, on its real framework."""

from __future__ import annotations

import child_process  # noqa: F401  # the processes of the suite import what those of other tests do
import pytest
from drivers import Mem0Driver, MemoryosDriver, NotebookDriver
from graphiti_drivers import GraphitiDriver
from langgraph_drivers import InMemoryDriver, LangGraphDriver
from llamaindex_drivers import LlamaIndexDriver

from hins_memory.testing import AdapterContract

pytest.importorskip("mem0", reason="needs mem0ai")
pytest.importorskip("langgraph.store.sqlite", reason="needs the extra langgraph")
pytest.importorskip("llama_index.vector_stores.chroma", reason="needs the extra llamaindex")
pytest.importorskip("graphiti_core.driver.kuzu_driver", reason="needs the extra graphiti")


class TestContract(AdapterContract):
    """The adapters of this project, and the example of the documentation."""

    drivers = (
        *(Mem0Driver, MemoryosDriver, NotebookDriver, LangGraphDriver, InMemoryDriver, LlamaIndexDriver),
        GraphitiDriver,
    )
