"""The vector stores of LlamaIndex as indexes: Chroma's collections; of other stores nothing can be listed."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

from hins_memory.errors import AgentError
from hins_memory.sdk import ChromaRows, IndexBase, address_in, name_in_process, with_retries

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from hins_memory.plugins.protocols import Record

__all__ = ["ChromaIndex", "OtherIndex", "open_index", "store_name"]

_CHROMA = "llama_index.vector_stores.chroma.base.ChromaVectorStore"


class ChromaIndex(ChromaRows, IndexBase):
    """One collection of Chroma: that of a `ChromaVectorStore`, or one beside it.

    Args:
        store: the LlamaIndex store that a block was made with.
        suffix: of a collection beside it; "" for its own.
    """

    texts_are_documents = True

    def __init__(self, store: Any, suffix: str = "") -> None:
        own = store.client
        super().__init__(f"{own.name}_hins{suffix}" if suffix else str(own.name))
        self.guard = nullcontext()
        self._client = _chroma_client(own)
        self.collection = self._beside(own) if suffix else own
        #: the LlamaIndex store over the collection
        self.store = store
        if suffix:
            self.store = store.model_copy()
            self.store._collection = self.collection

    def _beside(self, own: Any) -> Any:
        """Open the collection, as the own one is, but for what may embed its texts: that is never asked."""
        space = ((own.configuration_json or {}).get("hnsw") or {}).get("space")
        options: dict[str, Any] = {"configuration": {"hnsw": {"space": space}}} if space else {}
        options["metadata"] = own.metadata
        return with_retries(
            lambda: self._client.get_or_create_collection(self.name, embedding_function=None, **options)
        )

    def ids(self) -> list[str]:
        """Return the ids of all rows."""
        return list(self.collection.get(include=[])["ids"])

    def drop(self) -> None:
        """Delete the collection with everything in it."""
        self._client.delete_collection(self.name)


class OtherIndex(IndexBase):
    """A store that LlamaIndex can neither list nor open beside another: it can serve, and get another tower.

    Args:
        store: the LlamaIndex store that a block was made with.
        suffix: of a store beside it, which there is none of; "" for itself.
    """

    def __init__(self, store: Any, suffix: str = "") -> None:
        super().__init__(f"{type(store).__name__}{suffix}")
        self.store = store

    def ids(self) -> list[str]:
        """Refuse to list what the store cannot list.

        Raises:
            AgentError: always.
        """
        raise AgentError(
            f"What LlamaIndex stored in a {type(self.store).__name__} cannot be listed, and so not be re-embedded.",
            "Use a ChromaVectorStore; or make the block with HinsEmbedding, and train with --mode tower.",
        )

    def sample(self, count: int) -> list[Record]:
        """Return no record: none can be had."""
        return []

    def get(self, ids: Sequence[str]) -> list[Record]:
        """Return no record: none can be had."""
        return []

    def vectors(self, ids: Sequence[str]) -> dict[str, NDArray[np.float32]]:
        """Return no vector: none can be had."""
        return {}

    def upsert(self, records: Sequence[Record], vectors: NDArray[np.float32]) -> None:
        """Refuse to write.

        Raises:
            AgentError: there are records.
        """
        if records:
            self.ids()

    def delete(self, ids: Iterable[str]) -> None:
        """Do nothing: there is no store beside."""

    def drop(self) -> None:
        """Do nothing: there is no store beside."""


def open_index(store: Any, suffix: str = "") -> Any:
    """Return the index of a store, or of the collection beside it that ends with `suffix`."""
    return (ChromaIndex if _is_chroma(store) else OtherIndex)(store, suffix)


def store_name(store: Any) -> str:
    """Return what identifies a store in every process, without secrets; of one in memory, in this process."""
    if not _is_chroma(store):
        address = address_in(store)
        names = (getattr(store, name, None) for name in ("collection_name", "table_name", "index_name"))
        name = next((str(one) for one in names if one), "") if address != "default" else ""
        return f"llamaindex:{type(store).__name__}:{f'{address}:{name}' if name else name_in_process(store)}"
    system = store.client._client._system
    settings = system.settings
    if settings.chroma_server_host:
        place = f"{settings.chroma_server_host}:{settings.chroma_server_http_port}"
    else:
        place = str(settings.persist_directory) if settings.is_persistent else name_in_process(system)
    where = [_absolute(place) if settings.is_persistent else place, store.client.tenant, store.client.database]
    return ":".join(["llamaindex:chroma", *map(str, where), str(store.client.name)])


def _absolute(path: str) -> str:
    from pathlib import Path

    return str(Path(path).resolve())


def _is_chroma(store: Any) -> bool:
    return any(f"{cls.__module__}.{cls.__name__}" == _CHROMA for cls in type(store).__mro__)


def _chroma_client(collection: Any) -> Any:
    """Return a client of the database that has a collection; the collection itself only knows the server."""
    from chromadb.api.client import Client

    system = collection._client._system
    return Client.from_system(system, tenant=collection.tenant, database=collection.database)
