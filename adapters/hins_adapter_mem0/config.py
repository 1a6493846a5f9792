"""Completes Mem0's configuration: the folder of the store, its dimension, an LLM that is built on first use."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mem0.configs.base import MemoryConfig
from mem0.embeddings.configs import EmbedderConfig
from mem0.llms.configs import LlmConfig
from mem0.vector_stores.configs import VectorStoreConfig
from pydantic import ValidationError

from hins_adapter_mem0.embedding import PROVIDER, HinsEmbedding, register_embedder
from hins_adapter_mem0.llm import LAZY_PROVIDER, register_lazy_llm
from hins_adapter_mem0.stores import dimension_field
from hins_memory.common.files import keep_private, private_file, private_folder
from hins_memory.common.secrets import masked, secrets_in
from hins_memory.config import Settings
from hins_memory.errors import ConfigError
from hins_memory.sdk.addresses import address_in, without_secrets

__all__ = ["checked_config", "complete_config", "embedded_path", "store_key", "with_encoder"]


def complete_config(config: Any, settings: Settings) -> Any:
    """Return a copy of a Mem0 configuration with the project's own folders where it names none.

    Args:
        config: a MemoryConfig, a dict of anything that it takes, or None.
        settings: the project.

    Raises:
        ConfigError: Mem0 does not accept the configuration.
    """
    folder = settings.agent_folder("mem0")
    if config is None or isinstance(config, Mapping):
        given = {key: value for key, value in dict(config or {}).items() if key != "embedder"}
        has_location = _names_location(given.get("vector_store"))
        complete = checked_config(given)
    elif isinstance(config, MemoryConfig):
        complete = config.model_copy()
        has_location = "vector_store" in config.model_fields_set
    else:
        raise ConfigError(
            f"config is a {type(config).__name__}.", "Give a mem0 MemoryConfig, a dict of what it takes, or nothing."
        )
    complete.vector_store = complete.vector_store.model_copy()
    if not has_location:
        complete.vector_store.config = complete.vector_store.config.model_copy(
            update={"path": str(folder / "qdrant"), "on_disk": True}
        )
    if "history_db_path" not in complete.model_fields_set:
        history = folder / "history.db"
        complete.history_db_path = str(history)
        private_folder(settings.root)
        keep_private(private_folder(folder))
        private_file(history)
        keep_private(history)
    return complete


def checked_config(given: Mapping[str, Any]) -> MemoryConfig:
    """Return Mem0's configuration of a dict.

    Raises:
        ConfigError: Mem0 does not accept it; the message repeats no key or password of it.
    """
    try:
        return MemoryConfig(**given)
    except ValueError as error:
        problem = masked(_problem(error), secrets_in(given))
    # Raised without the cause, which contains the given values.
    raise ConfigError(f"Mem0 does not accept this configuration: {problem}", "See Mem0's documentation.")


def _problem(error: ValueError) -> str:
    if not isinstance(error, ValidationError):
        return str(error)
    details = error.errors(include_input=False, include_url=False)
    return "; ".join(f"{'.'.join(map(str, item['loc']))}: {item['msg']}" for item in details)


def _names_location(store: Any) -> bool:
    """Return whether a vector_store setting says where the vectors are; if not, Mem0 would use a folder under /tmp."""
    if not isinstance(store, Mapping):
        return store is not None
    config = store.get("config") or {}
    if store.get("provider", "qdrant") != "qdrant" or not isinstance(config, Mapping):
        return True
    return any(config.get(name) for name in ("path", "url", "host", "client"))


def with_encoder(config: Any, embedding: HinsEmbedding, collection: str, client: Any) -> Any:
    """Return the configuration for Mem0's constructor: our embedder, its dimension, the serving collection."""
    register_embedder()
    changes: dict[str, Any] = {
        dimension_field(config.vector_store.config): embedding.encoder.dim,
        "collection_name": collection,
    }
    if client is not None:
        changes["client"] = client
    store = config.vector_store.config.model_copy(update=changes)
    # Both configuration classes accept a closed list of providers, so they are built without validation.
    complete = config.model_copy(
        update={
            "vector_store": VectorStoreConfig.model_construct(provider=config.vector_store.provider, config=store),
            "embedder": EmbedderConfig.model_construct(provider=PROVIDER, config={"model": embedding.encoder.version}),
        }
    )
    if "llm" not in config.model_fields_set:
        register_lazy_llm()
        lazy = {"provider": config.llm.provider, "config": dict(config.llm.config or {})}
        complete.llm = LlmConfig.model_construct(provider=LAZY_PROVIDER, config=lazy)
    return complete


def embedded_path(provider: str, store_config: Any) -> str | None:
    """Return the folder of an embedded Qdrant, or None for every other store."""
    if provider != "qdrant":
        return None
    remote = store_config.url or store_config.client or (store_config.host and store_config.port)
    return None if remote else str(store_config.path)


def store_key(provider: str, store_config: Any) -> str:
    """Return what identifies a store in every process, e.g. ``mem0:qdrant:/data/qdrant:mem0``; no secrets in it."""
    name, client = getattr(store_config, "collection_name", ""), getattr(store_config, "client", None)
    return f"mem0:{provider}:{_client_address(client) or address_in(store_config)}:{name}"


def _client_address(client: Any) -> str:
    inner = getattr(client, "_client", None)
    if inner is None:
        return ""
    location = getattr(inner, "location", None)
    if location == ":memory:":
        # Such a store ends with its client, so the client's address identifies it.
        return f":memory:{id(inner):x}"
    if location:
        return str(Path(location).resolve())
    return without_secrets(str(getattr(inner, "rest_uri", "")))
