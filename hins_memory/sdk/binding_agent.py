"""What serves a store and what is being built, whatever holds its vectors: the common states of swappable agents."""

from __future__ import annotations

import logging
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Generic, TypeVar, cast

from hins_memory.errors import AgentError, LogError
from hins_memory.registry.registry import index_suffix
from hins_memory.sdk.agent_base import AgentBase
from hins_memory.sdk.dual_write import TrackedIndex
from hins_memory.sdk.opening import record_first

if TYPE_CHECKING:
    from hins_memory.encoders.encoder import Encoder
    from hins_memory.registry.loader import EncoderSource, TextEncoder
    from hins_memory.types import Scope

__all__ = ["REFRESH_SECONDS", "Binding", "BindingAgent"]

logger = logging.getLogger(__name__)

#: At the start of an operation, the last look at the registry may be this many seconds old.
REFRESH_SECONDS = 0.4


@dataclass(frozen=True)
class Binding:
    """An encoder with the indexes that hold its vectors: what one operation uses from its start to its end.

    `version` is "" for an encoder of the framework's own. Adapters may derive from it what their framework needs.
    """

    encoder: TextEncoder
    version: str
    suffix: str
    opened: tuple[TrackedIndex, ...] = ()

    @property
    def space(self) -> str:
        """The name of the space of its vectors, which versions may share; "" for the framework's own encoder."""
        return str(getattr(self.encoder, "space", self.version)) if self.version else ""

    @property
    def index(self) -> Any:
        """The only index of a store that has one."""
        (index,) = self.indexes()
        return index

    def indexes(self) -> Sequence[TrackedIndex]:
        """Return the indexes, the same kinds in the same order for every binding of an agent."""
        return self.opened

    def with_queries(self, encoder: Encoder) -> Binding:
        """Return the same indexes with another encoder that makes the same vectors of documents."""
        return replace(self, encoder=encoder, version=encoder.version)


_B = TypeVar("_B", bound=Binding)


class BindingAgent(AgentBase, ABC, Generic[_B]):
    """The binding that serves, the one that is being built, and that of the framework's own encoder.

    Derive from `StoreAgent` where vectors are in indexes that can be opened by name, and from `InPlaceAgent` where the
    framework keeps them in its own files and objects.

    Args:
        store_id: what identifies the store in every process, without secrets, e.g. ``mem0:qdrant:/data/qdrant:mem0``.
        encoders: loads the project's encoders.
        shared: whether several processes can have the store open.
    """

    def __init__(self, store_id: str, encoders: EncoderSource, *, shared: bool = False) -> None:
        #: what identifies the store in every process, without secrets
        self.store_id = store_id
        self.encoders = encoders
        self._shared = shared
        self._lock = threading.RLock()
        self._current: _B | None = None
        self._shadow: _B | None = None
        # When the collections of the two were first recorded, None where that was not looked up yet: those of another
        # time have the same names, and were made by another process after it had dropped these.
        self._current_since: float | None = None
        self._shadow_since: float | None = None
        # The binding with the framework's own encoder, which only a live object can give.
        self._framework: _B | None = None
        # Whether a swap of this process is building the shadow; otherwise one of another process is.
        self._building = False
        self._refreshed_at = float("-inf")

    @abstractmethod
    def bind(self, version: str, suffix: str) -> _B:
        """Open the indexes of a version, creating what is missing.

        Args:
            version: the encoder version; ``self.encoders.by_version`` loads it.
            suffix: what the indexes' names end with.

        Raises:
            AgentError: the version's encoder cannot be loaded.
            EncoderError: it is damaged.
        """

    @abstractmethod
    def serve(self, version: str, suffix: str) -> None:
        """Serve with a version that the registry says is live."""

    @property
    def encoder_version(self) -> str:
        """The encoder version that serves now; "" when the framework embeds with an encoder of its own."""
        return self.current.version

    @property
    def current(self) -> _B:
        """The binding that operations starting now get."""
        if self._current is None:
            raise AgentError(f"{self.store_id} was not opened.")
        return self._current

    @property
    def refresh_due(self) -> bool:
        """Whether the registry is to be looked at again before the next operation."""
        return self._shared and time.monotonic() - self._refreshed_at >= REFRESH_SECONDS

    @property
    def switch_delay_seconds(self) -> float:
        """How long after a flip another process may still use the old index, in seconds; 0 with only one process."""
        return 2 * REFRESH_SECONDS if self._shared else 0.0

    def refresh_if_due(self) -> None:
        """Call `refresh` if it is due; without the log no process can flip, so its errors are only logged."""
        if self.refresh_due:
            try:
                self.refresh()
            except LogError as error:
                logger.warning("Whether %s was swapped is not known now: %s", self.store_id, error)

    def scoped(self, binding: _B, scope: Scope) -> _B:
        """Return a binding with the encoder of a scope's own for its queries, where it has one over these vectors."""
        # The framework's own encoder makes vectors that no encoder here knows.
        encoder = self.encoders.towers.encoder_of(scope, cast("Encoder", binding.encoder)) if binding.version else None
        return binding if encoder is None else cast("_B", binding.with_queries(encoder))

    def serve_live(self) -> bool:
        """Serve what the registry says is live and return True; False for the framework's own encoder, or for nothing.

        Raises:
            AgentError: the recorded encoder cannot be loaded.
        """
        live = self.encoders.registry.live_index(self.store_id)
        if live is None or not live.version:
            return False
        self.serve(live.version, live.suffix)
        self._current_since = live.created
        return True

    def record_first(self, encoder: Encoder, suffix_of: Callable[[Encoder, bool], str] | None = None) -> str:
        """Record the encoder that serves a store from now on, which no version served before; return the suffix.

        Args:
            encoder: the encoder.
            suffix_of: see `StoreAgent.serve_recorded`.

        Raises:
            AgentError: another process opened the store at the same moment with another encoder.
        """
        known = self.encoders.registry.live_index(self.store_id) is not None
        suffix = (suffix_of or _default_suffix)(encoder, known)
        record_first(self.encoders.registry, self.store_id, encoder.version, suffix)
        return suffix

    def start_dual_write(self, version: str, suffix: str) -> None:
        """From now on, give every write to the live vectors and to those of `version` too.

        Raises:
            AgentError: that version serves already, or its encoder cannot be loaded.
        """
        with self._lock:
            if self._is_version(self.current, version, suffix):
                raise AgentError(f"{self.store_id} serves {version!r} already.")
            self._start_shadow(version, suffix)
            self._building = True

    def _start_shadow(self, version: str, suffix: str) -> None:
        self._shadow = self._open_or_reuse(version, suffix)

    def dual_write_lock(self) -> threading.RLock:
        """Return the context manager that excludes concurrent writes to the shadow."""
        return self._lock

    def stop_dual_write(self) -> None:
        """Stop writing to the shadow; what it has stays."""
        with self._lock:
            self._shadow, self._building = None, False

    def _open_or_reuse(self, version: str, suffix: str) -> _B:
        return self._known(version, suffix) or self.bind(version, suffix)

    def _known(self, version: str, suffix: str) -> _B | None:
        known = (self._current, self._shadow, self._framework)
        return next((binding for binding in known if self._is_version(binding, version, suffix)), None)

    @staticmethod
    def _is_version(binding: Binding | None, version: str, suffix: str) -> bool:
        return binding is not None and (binding.version, binding.suffix) == (version, suffix)


def _default_suffix(encoder: Encoder, known: bool) -> str:
    return index_suffix(encoder.version) if known else ""
