"""What a server answers is checked before a swap uses it; and every store of Mem0's has its paging or a reason."""

from __future__ import annotations

import numpy as np
import pytest
from hins_adapter_mem0 import servers
from hins_adapter_mem0.index import StoreIndex, missing_feature
from hins_adapter_mem0.indexes import open_index
from hins_adapter_mem0.servers import ServerIndex, checked_pages, checked_vectors
from hins_adapter_mem0.stores import GuardedStore, entity_collection, fitting_name
from mem0.utils.factory import VectorStoreFactory

from hins_memory.errors import AgentError
from hins_memory.plugins.protocols import Record

#: what Mem0 lists as a whole
LISTED = {"azure_mysql", "baidu", "cassandra", "mongodb", "neptune_analytics", "oracledb", "s3_vectors"}
SERVERS = {"elasticsearch", "opensearch", "pinecone", "weaviate"}


def _pages(*pages):
    return [[Record(id_, "text", {}) for id_ in page] for page in pages]


def _listed(*pages, counts):
    remaining = iter(counts)
    return [len(page) for page in checked_pages("notes", lambda: next(remaining), iter(_pages(*pages)))]


def test_a_list_that_is_wrong_is_refused():
    assert _listed("ab", "c", counts=[3, 3]) == [2, 1]
    with pytest.raises(AgentError, match=r"notes lists 'a' twice.*delete one of its two rows"):
        _listed("ab", "ca", counts=[4, 4])
    with pytest.raises(AgentError, match=r"notes lists 2 of its 3 records.*--mode tower"):
        _listed("ab", counts=[3, 3])
    # One was deleted or added meanwhile: the indexes are compared before the flip.
    assert _listed("ab", counts=[3, 2]) == [2]
    assert _listed("ab", counts=[3, 4]) == [2]


@pytest.mark.parametrize(
    ("found", "dim", "message"),
    [
        ({"a": None}, 2, "no vector for 'a'.*Write that memory again"),
        ({"a": []}, None, "no vector for 'a'"),
        ({"a": [1.0, 0.0], "b": [1.0, 0.0, 0.0]}, None, "3 numbers for 'b', not 2"),
        ({"a": [1.0, 0.0]}, 3, "2 numbers for 'a', not 3"),
        ({"a": [1.0, float("nan")]}, 2, "not 2 finite ones"),
    ],
)
def test_vectors_that_are_wrong_are_refused(found, dim, message):
    with pytest.raises(AgentError, match=message):
        checked_vectors("notes", found, dim)


def test_vectors_come_as_rows_of_numbers():
    found = checked_vectors("notes", {"a": [1.0, 0.5]}, 2)
    assert found["a"].dtype == np.float32
    assert found["a"].tolist() == [1.0, 0.5]


class _Rows(ServerIndex):
    """Two rows, of one of which there is no vector."""

    def count(self):
        return 2

    def dimension(self):
        return 2

    def listed(self, size):
        yield from _pages("ab")

    def read_vectors(self, ids):
        return {"a": [1.0, 0.0], "b": None}


def _store(provider):
    named = type("Store", (), {"collection_name": "notes", "__module__": f"mem0.vector_stores.{provider}"})
    return GuardedStore(named(), None)


def test_a_swap_warns_once_and_is_stricter_than_a_tower(caplog, monkeypatch):
    monkeypatch.setattr(servers, "_warned", set())
    index = _Rows(_store("weaviate"), "memories")
    # A tower's swap compares what there is.
    assert index.vectors(["a", "b"]) == {}
    assert "are not compared" in caplog.text
    assert [len(page) for page in index.pages(10)] == [2]
    assert [len(page) for page in index.pages(10)] == [2]
    with pytest.raises(AgentError, match="no vector for 'b'"):
        index.vectors(["a", "b"])
    assert caplog.text.count("weaviate was never run on a server") == 1


def test_every_store_of_mem0_has_its_paging_or_says_what_it_lacks():
    providers = {path.split(".")[2] for path in VectorStoreFactory.provider_to_class.values()}
    assert providers > SERVERS
    for provider in sorted(providers - {"qdrant"}):
        store = _store(provider)
        index = open_index(store, "memories")
        assert isinstance(index, ServerIndex) is (provider in SERVERS), provider
        paged = type(index) is not StoreIndex or provider in LISTED
        assert paged is not bool(missing_feature(store.raw)), provider


@pytest.mark.parametrize(
    ("provider", "name"),
    [
        ("azure_ai_search", "mem0-hins-minilm-l6"),
        ("pinecone", "mem0-hins-minilm-l6"),
        ("s3_vectors", "mem0-hins-minilm-l6"),
        ("elasticsearch", "mem0_hins_minilm_l6"),
        ("opensearch", "mem0_hins_minilm_l6"),
        ("weaviate", "mem0_hins_MiniLM_L6"),
    ],
)
def test_names_are_such_as_the_store_takes(provider, name):
    assert fitting_name(provider, "mem0_hins_MiniLM_L6") == name
    assert fitting_name(provider, name) == name
    entities = entity_collection(provider, name)
    assert fitting_name(provider, entities) == entities
