"""An adapter in its shortest form: an agent that takes the place of some methods of one object."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from inspect import signature
from typing import TYPE_CHECKING, Any, ClassVar, cast

from hins_memory.encoders.cached import CachedEncoder
from hins_memory.errors import AgentError
from hins_memory.registry.loader import EncoderSource
from hins_memory.registry.registry import Registry
from hins_memory.sdk.attachment import OutcomeMethods
from hins_memory.sdk.binding_agent import Binding
from hins_memory.sdk.opening import record_framework_encoder
from hins_memory.sdk.options import AttachOptions
from hins_memory.sdk.plugin import AdapterPlugin
from hins_memory.sdk.recorder import Recorder
from hins_memory.sdk.store_agent import StoreAgent

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from hins_memory.encoders.encoder import Encoder
    from hins_memory.registry.loader import TextEncoder
    from hins_memory.sdk.dual_write import TrackedIndex
    from hins_memory.types import Role

__all__ = ["BesideAgent", "ObjectAgent", "ObjectPlugin", "OwnEncoder"]

_SLOT = "hins"


class OwnEncoder:
    """A framework's own encoder, as a binding has it.

    Args:
        embed: texts -> unit vectors, of shape (len(texts), dim).
        query: text -> the vector of a query, of shape (dim,), where it is another one than that of a document.
    """

    def __init__(self, embed: Callable[[list[str]], Any], query: Callable[[str], Any] | None = None) -> None:
        self._embed = embed
        self._query = query

    def encode(self, texts: Sequence[str], *, role: Role = "document") -> NDArray[np.float32]:
        """Return the vectors of texts, of shape (len(texts), dim)."""
        import numpy as np

        by_one = self._query if role == "query" else None
        vectors = self._embed(list(texts)) if by_one is None else [by_one(text) for text in texts]
        return np.asarray(vectors, dtype=np.float32)


class ObjectAgent(StoreAgent[Binding], OutcomeMethods):
    """The agent of one object of a framework; its methods that `methods` names are called in the place of the object's.

    An adapter implements `store_of`, `own`, `index` and these methods. They use ``self.memory``, ``self.recorder`` and
    the binding that `pin` gives.

    Args:
        memory: the object.
        options: how it is attached.

    Raises:
        AgentError: the store has vectors of the framework's own encoder, is to be served by another one, and is not
            to be re-embedded; or the encoder that serves it cannot be loaded.
    """

    #: the methods, and other attributes, that take the place of the object's own
    methods: ClassVar[tuple[str, ...]] = ("add", "search")

    def __init__(self, memory: Any, options: AttachOptions) -> None:
        #: attributes of the object itself that others take the place of
        self.replaced: dict[str, Any] = {}
        self.settings = options.resolved_settings
        super().__init__(self.store_of(memory), EncoderSource(Registry(self.settings), options.model), shared=True)
        self.memory = memory
        self.open(options)
        #: records what the object does
        self.recorder = Recorder().join(self.settings, capture=options.capture)

    @abstractmethod
    def store_of(self, memory: Any) -> str:
        """Return what identifies the object's store in every process, without secrets, e.g. ``notebook:/notes.db``."""

    def open(self, options: AttachOptions) -> None:
        """Serve with what is recorded, or as the options say."""
        self.serve_as_asked(options, self.own)

    @abstractmethod
    def own(self) -> tuple[Any, ...]:
        """Return the framework's own encoder (see `OwnEncoder`), and behind it its store as an index, or several."""

    @abstractmethod
    def index(self, suffix: str) -> TrackedIndex:
        """Open the index beside the framework's own whose name ends with `suffix`, creating what is missing."""

    def bind(self, version: str, suffix: str) -> Binding:
        """Open the index of a version, creating what is missing."""
        return Binding(self.encoders.by_version(version), version, suffix, (self.index(suffix),))

    def arguments(self, method: str, args: Sequence[Any], options: Mapping[str, Any]) -> dict[str, Any]:
        """Return the arguments of a call of one of the object's own methods, by their names."""
        return signature(getattr(type(self.memory), method)).bind(None, *args, **options).arguments

    @property
    def _hins_recorder(self) -> Recorder:
        return self.recorder


class BesideAgent(ObjectAgent):
    """An `ObjectAgent` of a store that stays as the framework has it: vectors of other encoders are beside it.

    An adapter implements `own_embedder`, `own_encoder` and `indexes`. The suffix of the framework's own store is "".
    Where the object was made with an encoder of hins-memory, that one serves until a swap, whatever the options say.
    """

    @property
    @abstractmethod
    def own_embedder(self) -> Any:
        """The object's own embedder: the framework's, or an `EncoderEmbedder`."""

    @abstractmethod
    def own_encoder(self) -> TextEncoder:
        """Return the object's own embedder as an encoder; see `OwnEncoder`."""

    @abstractmethod
    def indexes(self, suffix: str, encoder: Encoder | None = None) -> Sequence[TrackedIndex]:
        """Open the framework's own indexes, or those beside them, creating what is missing.

        Args:
            suffix: what the names of those beside end with; "" for the framework's own.
            encoder: embeds what is in those beside.
        """

    def own(self) -> tuple[Any, ...]:
        """Return the object's own embedder as an encoder, and behind it its indexes."""
        return (self.own_encoder(), *self.indexes(""))

    def index(self, suffix: str) -> TrackedIndex:
        """Return the first of the indexes."""
        return self.indexes(suffix)[0]

    def bind(self, version: str, suffix: str) -> Binding:
        """Open the indexes of a version, creating what is missing."""
        encoder = self.encoders.by_version(version)
        return Binding(encoder, version, suffix, tuple(self.indexes(suffix, encoder)))

    def open(self, options: AttachOptions) -> None:
        """Serve with what is recorded, or as the options say; see `StoreAgent.serve_beside`."""
        encoder = getattr(self.own_embedder, "encoder", None)
        made_with = cast("Encoder", encoder) if isinstance(encoder, CachedEncoder) else None
        self.serve_beside(options, self.own, made_with)


class ObjectPlugin(AdapterPlugin):
    """The plugin of an adapter whose agent is an `ObjectAgent`: an attached object has it as ``memory.hins``."""

    #: the framework's class; where importing the plugin must not import it, name it in `memory_class` instead
    memory_type: type = object
    #: the class of the agents, or ``module:Class`` where importing that imports the framework
    agent_type: type[ObjectAgent] | str

    def is_ours(self, memory: Any) -> bool:
        """Return whether an object is one of the framework's."""
        return super().is_ours(memory) if self.memory_class else isinstance(memory, self.memory_type)

    def attach(self, memory: Any, options: AttachOptions) -> Any:
        """Let the agent's methods take the place of the object's; attaching again replaces the options."""
        if self.agent_of(memory) is not None:
            self.detach(memory)
        agent_type: Any = self.agent_type
        if isinstance(agent_type, str):
            module, _, name = agent_type.partition(":")
            agent_type = getattr(import_module(module), name)
        agent = agent_type(memory, options)
        agent.replaced = {name: vars(memory)[name] for name in agent.methods if name in vars(memory)}
        vars(memory).update({name: getattr(agent, name) for name in agent.methods}, **{_SLOT: agent})
        return memory

    def detach(self, memory: Any) -> Any:
        """Restore an object exactly as it was, and return it.

        What was stored while the project's encoder served stays in an index of its own, and is there again when the
        object is attached again.

        Raises:
            AgentError: it is not attached.
        """
        agent: ObjectAgent | None = vars(memory).get(_SLOT)
        if agent is None:
            raise AgentError(f"This {type(memory).__name__} is not attached.", "There is nothing to undo.")
        agent.recorder.leave(agent.settings)
        for name in (*agent.methods, _SLOT):
            del vars(memory)[name]
        vars(memory).update(agent.replaced)
        return memory

    def agent_of(self, memory: Any) -> ObjectAgent | None:
        """Return the agent of an attached object; None where it is not attached."""
        agent: ObjectAgent | None = vars(memory).get(_SLOT)
        if agent is not None:
            record_framework_encoder(agent, agent.encoders.registry)
        return agent
