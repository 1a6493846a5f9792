"""`Memory` and `AsyncMemory`: Mem0's own classes, embedding with the project's encoder and recording their use."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import mem0
from mem0.configs.base import MemoryConfig

from hins_adapter_mem0.agent import Mem0Agent
from hins_adapter_mem0.attached import Mem0Attachment, attached_memory
from hins_adapter_mem0.config import checked_config, complete_config, with_encoder
from hins_adapter_mem0.embedding import PROVIDER
from hins_adapter_mem0.opening import open_agent, open_recording_agent
from hins_adapter_mem0.recorder import Mem0Recorder
from hins_adapter_mem0.stores import prepare_store
from hins_memory.config import Settings
from hins_memory.errors import ConfigError
from hins_memory.sdk.options import check_embedder, settings_for

__all__ = ["AsyncMemory", "Memory"]

_OPTIONS = frozenset({"model", "project", "home", "capture", "embedding_dims"})
_Self = TypeVar("_Self", bound="_HinsMemory")


class _HinsMemory:
    """How a memory is made: by the arguments of `Memory`, or from a plain dict with ``hins`` among the embedders."""

    def __init__(
        self,
        config: Any = None,
        *,
        embedder: str | None = "hins",
        project: str | None = None,
        settings: Settings | None = None,
        capture: bool = True,
        model: str | Path | None = None,
    ) -> None:
        chosen = settings_for(settings, project)
        check_embedder(embedder)
        agent: Mem0Agent | None
        if embedder is None:
            self._hins_init(config if isinstance(config, MemoryConfig) else checked_config(dict(config or {})))
            agent = open_recording_agent(self, chosen)
        else:
            complete = complete_config(config, chosen)
            agent = open_agent(complete, chosen, embedder, model)
            self._hins_serve(complete, agent)
        recorder = Mem0Recorder().join(chosen, capture=capture)
        Mem0Attachment(settings=chosen, recorder=recorder, agent=agent).install(self)

    def _hins_init(self, config: Any) -> None:
        """Run Mem0's own constructor."""
        base: Any = super()
        base.__init__(config)

    def _hins_serve(self, config: Any, agent: Mem0Agent) -> None:
        """Run Mem0's constructor with our embedder and the collections that serve."""
        binding, client = agent.current, agent.opener.client
        self._hins_init(with_encoder(config, binding.embedding, binding.memories.collection_name, client))
        if agent.opener.provider == "redis":
            # Mem0's constructor has made the index of the collection anew.
            prepare_store(binding.memories.raw, binding.memories.collection_name)
        # What Mem0 goes by from here on, and what the user sees, is the collection without the suffix of a version.
        self.collection_name = config.vector_store.config.collection_name
        self.config = with_encoder(config, binding.embedding, self.collection_name, client)
        self.config.llm = config.llm

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


class Memory(_HinsMemory, attached_memory(mem0.Memory)):  # type: ignore[misc]  # made when this is imported
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


class AsyncMemory(_HinsMemory, attached_memory(mem0.AsyncMemory)):  # type: ignore[misc]  # made on import
    """`mem0.AsyncMemory` that embeds with the project's encoder and records how it is used.

    The arguments and errors are those of `Memory`.
    """
