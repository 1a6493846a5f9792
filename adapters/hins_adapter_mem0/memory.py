"""`Memory` and `AsyncMemory`: Mem0's own classes, embedding with the project's encoder and recording their use."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import mem0

from hins_adapter_mem0.attached import Attachment, attached_class
from hins_adapter_mem0.config import checked_config, complete_config, with_encoder
from hins_adapter_mem0.embedding import PROVIDER
from hins_adapter_mem0.opening import Embedder, open_agent, open_recording_agent
from hins_adapter_mem0.recorder import Mem0Recorder
from hins_memory.config import Settings
from hins_memory.errors import ConfigError
from hins_memory.sdk.captures import join_capture
from hins_memory.sdk.options import check_embedder, settings_for

__all__ = ["AsyncMemory", "Memory", "new_recorder"]

_OPTIONS = frozenset({"model", "project", "home", "capture", "embedding_dims"})
_Self = TypeVar("_Self", bound="_FromConfig")


def new_recorder(memory: Any, settings: Settings, capture: bool) -> Mem0Recorder:
    """Return a recorder into the project's log, or one that records nothing."""
    return Mem0Recorder(join_capture(settings, memory) if capture and settings.capture else None)


def _construct(
    memory: Any,
    base_init: Callable[[Any], None],
    config: Any,
    settings: Settings,
    embedder: Embedder | None,
    model: str | Path | None,
) -> Any:
    """Run Mem0's constructor with a completed configuration and return the agent (None: it only records)."""
    check_embedder(embedder)
    if embedder is None:
        base_init(config if isinstance(config, mem0.configs.base.MemoryConfig) else _plain_config(config))
        return open_recording_agent(memory, settings)
    complete = complete_config(config, settings)
    agent = open_agent(complete, settings, embedder, model)
    binding = agent.current
    base_init(with_encoder(complete, binding.embedding, binding.memories.collection_name, agent.opener.client))
    # What Mem0 goes by from here on, and what the user sees, is the collection without the suffix of a version.
    memory.config = with_encoder(
        complete, binding.embedding, complete.vector_store.config.collection_name, agent.opener.client
    )
    memory.config.llm = complete.llm
    memory.collection_name = complete.vector_store.config.collection_name
    return agent


def _plain_config(config: Mapping[str, Any] | None) -> Any:
    return checked_config(dict(config or {}))


class _FromConfig:
    """The constructor from a plain dict, as Mem0 has it, with ``hins`` among the embedder's providers."""

    def __init__(self, config: Any = None, **options: Any) -> None:
        raise NotImplementedError

    @classmethod
    def from_config(cls: type[_Self], config_dict: Mapping[str, Any]) -> _Self:
        """Make a memory from a dict of anything that Mem0's configuration takes.

        ``{"embedder": {"provider": "hins", "config": {"model": ..., "project": ..., "home": ..., "capture": ...}}}``
        embeds with hins, and so does a dict without an embedder; every setting is optional. Any other provider is
        used as Mem0 would, and only captured.

        Raises:
            ConfigError: a setting of the embedder is not known, or Mem0 does not accept the rest.
        """
        rest = dict(config_dict)
        embedder = rest.get("embedder") or {"provider": PROVIDER}
        if not isinstance(embedder, Mapping) or embedder.get("provider") != PROVIDER:
            return cls(rest, embedder=None)
        rest.pop("embedder", None)
        options = dict(embedder.get("config") or {})
        if unknown := set(options) - _OPTIONS:
            raise ConfigError(
                f"The embedder 'hins' has no setting {', '.join(sorted(unknown))}.",
                f"Its settings are {', '.join(sorted(_OPTIONS - {'embedding_dims'}))}.",
            )
        # The dimension follows the encoder; Mem0's users are used to giving it.
        options.pop("embedding_dims", None)
        home = options.pop("home", None)
        settings = Settings(home=Path(home)) if home else None
        return cls(rest, settings=settings, **options)


class Memory(_FromConfig, attached_class(mem0.Memory)):  # type: ignore[misc]  # made when this is imported
    """`mem0.Memory` that embeds with the project's encoder and records how it is used.

    Args:
        config: a mem0 `MemoryConfig`, a dict of what it takes, or None; without a vector store in it, embedded
            Qdrant under the project's folder is used, and without an LLM, Mem0's default one once it is needed.
            An embedder in it is ignored unless `embedder` is None.
        embedder: ``hins`` serves with the version that the store was last swapped to; a new store starts with
            `model`, else the project's current version, else the starter. ``stock`` is the plain base, and
            None the embedder of `config`, only captured.
        project: the project's name.
        settings: where things live; the environment's settings by default.
        capture: whether calls are recorded; every call can also be left out with ``capture=False``.
        model: a sentence-transformers folder or name to start from.

    Raises:
        AgentError: the store is open in another process, or holds memories that another encoder embedded.
        ConfigError: an argument is not valid.
        EncoderError: the encoder cannot be loaded.

    Example:
        memory = Memory(embedder="hins")
        memory.add("Ann plays the cello.", user_id="ann", infer=False)
        memory.search("Which instrument?", filters={"user_id": "ann"})
    """

    def __init__(
        self,
        config: Any = None,
        *,
        embedder: Embedder | None = "hins",
        project: str | None = None,
        settings: Settings | None = None,
        capture: bool = True,
        model: str | Path | None = None,
    ) -> None:
        chosen = settings_for(settings, project)
        agent = _construct(self, lambda base: mem0.Memory.__init__(self, base), config, chosen, embedder, model)
        Attachment(chosen, new_recorder(self, chosen, capture), agent).install(self)


class AsyncMemory(_FromConfig, attached_class(mem0.AsyncMemory)):  # type: ignore[misc]  # made on import
    """`mem0.AsyncMemory` that embeds with the project's encoder and records how it is used.

    The arguments and errors are those of `Memory`.
    """

    def __init__(
        self,
        config: Any = None,
        *,
        embedder: Embedder | None = "hins",
        project: str | None = None,
        settings: Settings | None = None,
        capture: bool = True,
        model: str | Path | None = None,
    ) -> None:
        chosen = settings_for(settings, project)
        agent = _construct(self, lambda base: mem0.AsyncMemory.__init__(self, base), config, chosen, embedder, model)
        Attachment(chosen, new_recorder(self, chosen, capture), agent).install(self)
