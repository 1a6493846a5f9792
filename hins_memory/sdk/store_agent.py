"""An agent whose store is made of indexes, which can be swapped while it serves. Adapters say how they are opened."""

from __future__ import annotations

import asyncio
import logging
import time
import weakref
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, asynccontextmanager, contextmanager, nullcontext
from contextvars import ContextVar
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar, cast

from hins_memory.common.tracing import span
from hins_memory.errors import AgentError
from hins_memory.plugins.protocols import Index
from hins_memory.registry.registry import index_suffix
from hins_memory.sdk.binding_agent import Binding, BindingAgent
from hins_memory.sdk.context import set_to
from hins_memory.sdk.dual_write import DualWriter, TrackedIndex, WriteTracker
from hins_memory.sdk.opening import check_stock, first_encoder, reembed

if TYPE_CHECKING:
    from hins_memory.encoders.encoder import Encoder
    from hins_memory.registry.registry import IndexRecord, Registry
    from hins_memory.sdk.options import AttachOptions
    from hins_memory.types import Scope

__all__ = ["StoreAgent"]

logger = logging.getLogger(__name__)

# How often a flip waits for writes that are being copied, before it copies them while others wait.
_FLIP_TRIES = 50

_B = TypeVar("_B", bound=Binding)

# The binding of each agent's running operation. A context variable, so that threads and tasks that the framework
# starts for the operation have it too.
_pinned: ContextVar[Mapping[int, Any]] = ContextVar("hins_pinned")


class StoreAgent(BindingAgent[_B]):
    """One store, shared by every object of this process that works on it: the `Agent` protocol over `TrackedIndex`es.

    A flip is one assignment: operations that run already stay with the binding that they are pinned to, those that
    start later get the new one, and neither waits. An adapter implements `bind`, and does every operation of its
    framework inside ``with agent.pin() as binding`` and every write inside ``with index.writes.tracked(ids)``.
    """

    @property
    def records_changes(self) -> bool:
        """Whether every write is noted in the registry; so a rollback is as quick as the flip."""
        return True

    @property
    def encoder_version(self) -> str:
        """The encoder version that serves now; "" when the framework embeds with an encoder of its own."""
        return self.binding.version

    @property
    def binding(self) -> _B:
        """The binding of the running operation, or the current one outside of any."""
        pinned = _pinned.get({}).get(id(self))
        return pinned if pinned is not None else self.current

    def refresh(self) -> None:
        """Apply what other processes recorded about the store: serve the live index, write to one being built.

        Raises:
            AgentError: the live version cannot be opened here.
            LogError: the registry cannot be read.
        """
        if not self._shared:
            return
        self._refreshed_at = time.monotonic()
        if self._up_to_date():
            return
        with self._lock:
            # Read again under the lock: a flip of this process may have ended meanwhile.
            live, shadow = self._recorded()
            if live is not None:
                if not self._is_version(self._current, live.version, live.suffix):
                    logger.info("%s is served by %s by now", self.store_id, live.version)
                    self.switch_to(live.version, live.suffix)
                elif live.version and self._current_since not in (None, live.created):
                    logger.info("The collections of %s were made anew", self.store_id)
                    self.stop_dual_write()
                    self.serve(live.version, live.suffix)
                self._current_since = live.created
            if shadow is None:
                if self._shadow is not None and not self._building:
                    self.stop_dual_write()
            elif not self._building and not self._writes_to(shadow):
                try:
                    self.stop_dual_write()
                    self._start_shadow(shadow.version, shadow.suffix)
                    self._shadow_since = shadow.created
                except Exception:
                    logger.exception("%s cannot be written to from here, so its swap is given up", shadow.version)
                    self._cancel_remote_swap()

    def _up_to_date(self) -> bool:
        live, shadow = self._recorded()
        if live is not None and (
            self._current_since != live.created or not self._is_version(self._current, live.version, live.suffix)
        ):
            return False
        if shadow is None or self._building:
            return self._shadow is None or self._building
        return self._writes_to(shadow)

    def _writes_to(self, shadow: IndexRecord) -> bool:
        return self._shadow_since == shadow.created and self._is_version(self._shadow, shadow.version, shadow.suffix)

    def _made(self, version: str, suffix: str) -> float | None:
        """Return when recorded indexes of a version were made; None where nothing says so."""
        if not self._shared:
            return None
        recorded = (one for one in self._recorded() if one is not None)
        return next((one.created for one in recorded if (one.version, one.suffix) == (version, suffix)), None)

    def _recorded(self) -> tuple[IndexRecord | None, IndexRecord | None]:
        """Return the records of the live index and of the one being built, as of one moment."""
        states = {record.state: record for record in self.encoders.registry.generations(self.store_id)}
        return states.get("live"), states.get("shadow")

    def _cancel_remote_swap(self) -> None:
        """Give up a swap of another process, which would lose this process's writes; it can be run again."""
        if self._shared and not self._building:
            self.encoders.registry.abandon_shadow(self.store_id)

    @contextmanager
    def pin(self, scope: Scope | None = None) -> Iterator[_B]:
        """Use one binding inside the block, even if a flip happens meanwhile.

        Args:
            scope: of a search: its queries are embedded by the scope's own encoder, where it has one (`load_scoped`).
        """
        if id(self) not in _pinned.get({}):
            self.refresh_if_due()
        binding = self.binding if scope is None else self.load_scoped(scope)
        with _traced(self.store_id, scope), set_to(_pinned, {**_pinned.get({}), id(self): binding}):
            yield binding

    @asynccontextmanager
    async def pin_async(self, scope: Scope | None = None) -> AsyncIterator[_B]:
        """Do the same as `pin` in a coroutine; what may take long is done in another thread."""

        def prepared() -> _B:
            if id(self) not in _pinned.get({}):
                self.refresh_if_due()
            return self.binding if scope is None else self.load_scoped(scope)

        binding = await asyncio.to_thread(prepared)
        with _traced(self.store_id, scope), set_to(_pinned, {**_pinned.get({}), id(self): binding}):
            yield binding

    def load_scoped(self, scope: Scope) -> _B:
        """Return the binding of a scope's searches, after loading its own encoder where that was not used yet."""
        return self.scoped(self.binding, scope)

    def serve(self, version: str, suffix: str) -> None:
        """Open the collections of a version, also where they are open already, and serve from them."""
        self._current = self._with_change_records(self._with_refresh(self.bind(version, suffix)))

    def serve_recorded(self, embedder: str = "hins", suffix_of: Callable[[Encoder, bool], str] | None = None) -> None:
        """Serve from what the registry says is live; a store that it does not know begins with new, empty indexes.

        Args:
            embedder: what a new store begins with: ``stock`` is the plain base, ``hins`` what the project begins with.
            suffix_of: returns what the names of a new store's indexes end with, of its encoder and of whether the
                registry knows the store with the framework's own encoder; it raises where the store is not empty.
                The default is "" for a store that is not in the registry, so that its indexes have the plain names.

        Raises:
            AgentError: the recorded encoder cannot be loaded, or `suffix_of` refuses the store.
        """
        if not self.serve_live():
            encoder = first_encoder(self.encoders, embedder)
            self.serve(encoder.version, self.record_first(encoder, suffix_of))

    def serve_as_asked(
        self,
        options: AttachOptions,
        own: Callable[[], tuple[Any, ...]],
        suffix_of: Callable[[Encoder, bool], str] | None = None,
    ) -> None:
        """Serve with what is recorded; else, by the options, with the framework's own encoder or the project's.

        Args:
            options: how the store is attached.
            own: returns the framework's own encoder, and behind it its indexes.
            suffix_of: see `serve_recorded`.

        Raises:
            AgentError: the store has vectors of the framework's own encoder, is to be served by another one, and is
                not to be re-embedded; or the encoder that serves it cannot be loaded.
        """
        if self.serve_live():
            check_stock(self, self.encoders, options.embedder)
            return
        encoder, *indexes = own()
        count = 0 if options.embedder is None else next((held for index in indexes if (held := index.count())), 0)
        if count and not options.reembed:
            raise AgentError(
                f"{self.store_id} holds {count} memories of another encoder.",
                f'Re-embed them with hins_memory.attach(memory, embedder="{options.embedder}", reembed=True).',
            )
        if options.embedder is not None and not count:
            self.serve_recorded(options.embedder, suffix_of)
            return
        self.serve_framework_encoder(cast("_B", Binding(encoder, "", "", tuple(indexes))))
        if options.embedder is not None:
            reembed(self, first_encoder(self.encoders, options.embedder), self.encoders.registry)

    def serve_beside(
        self,
        options: AttachOptions,
        own: Callable[[], tuple[Any, ...]],
        made_with: Encoder | None = None,
    ) -> None:
        """Serve as asked, with the vectors of other encoders beside the framework's own store, whose suffix is "".

        Args:
            options: how the store is attached.
            own: see `serve_as_asked`.
            made_with: the encoder of the framework's own vectors, where it is one of hins-memory; it serves until a
                swap, whatever the options say.

        Raises:
            AgentError: see `serve_as_asked`, or the store holds vectors of another version than `made_with`.
        """
        if made_with is None:
            self.serve_as_asked(options, own, _always_beside)
            return
        if not self.serve_live():
            self.serve(made_with.version, self.record_first(made_with, _never_beside))
        if not self.current.suffix and made_with.space != self.current.space:
            raise AgentError(
                f"{self.store_id} holds vectors of {self.current.version}; it was made with {made_with.version}.",
                "Make it with the version that it holds.",
            )

    def serve_framework_encoder(self, binding: _B) -> None:
        """Serve from the framework's own encoder and store, so that they can be swapped."""
        self._framework = self._current = self._with_refresh(binding)

    def _with_change_records(self, binding: _B) -> _B:
        """Make the stores of a binding record the ids of their writes, as long as there is an index to roll back to."""
        for index in binding.indexes():
            index.writes.record_changes = partial(_note_changes, self.encoders.registry, self.store_id, index)
        return binding

    def _with_refresh(self, binding: _B) -> _B:
        """Make shared stores `refresh` after each write, because another process may have begun a swap.

        A swap that begins later copies the write from the store itself.
        """
        if self._shared:
            # A weak reference, so that its own stores do not keep the agent alive.
            weak_agent = weakref.ref(self)

            def refresh() -> None:
                if (agent := weak_agent()) is not None:
                    agent.refresh()

            for index in binding.indexes():
                index.writes.refresh = refresh
        return binding

    def live_indexes(self) -> list[Index]:
        """Return the indexes that serve now."""
        return list(self.current.indexes())

    def open_indexes(self, version: str, suffix: str) -> list[Index]:
        """Open (creating what is missing) the indexes of `version` under the collection suffix `suffix`."""
        return list(self._open_or_reuse(version, suffix).indexes())

    def _start_shadow(self, version: str, suffix: str) -> None:
        if self._is_version(self._shadow, version, suffix):
            return
        self.stop_dual_write()
        shadow = self._open_or_reuse(version, suffix)
        for source, target in self._pairs(self.current, shadow):
            source.writes.dual = DualWriter(source, target, shadow.encoder, self._lock, self._cancel_remote_swap)
        self._shadow = shadow

    def flush_dual_writes(self) -> None:
        """Copy every write that has not reached the shadow indexes yet.

        Raises:
            Exception: whatever the store raised; the writes are kept for another try.
        """
        with self._lock:
            for writes in self._trackers():
                if writes.dual is not None:
                    writes.dual.flush()

    def switch_to(self, version: str, suffix: str) -> float:
        """Serve from the indexes and encoder of `version`.

        Operations that already run stay with the old ones; what they write is copied to the new ones.

        Returns:
            For how many seconds writes had to wait.

        Raises:
            AgentError: the encoder of `version` cannot be loaded.
            Exception: whatever the store raised, when writes could not be copied; nothing has changed then.
        """
        # Loaded now, so that no call waits for it.
        encoder = self.encoders.by_version(version)
        # Known from the first moment on: another process may drop these indexes and make them anew at once.
        since = self._made(version, suffix)
        with self._lock:
            started = time.perf_counter()
            if self._is_version(self._current, version, suffix):
                return 0.0
            if suffix == self.current.suffix:
                # Both versions make the same vectors of documents: the stores stay, and queries change.
                self._current = cast("_B", self.current.with_queries(encoder))
                self._current_since = since
                return time.perf_counter() - started
            self._start_shadow(version, suffix)
        for tries_left in reversed(range(_FLIP_TRIES)):
            self._copy_pending()
            with self._lock:
                started = time.perf_counter()
                # A write that is not copied yet would be copied under the lock, while all other writes wait.
                if tries_left and not all(writes.up_to_date for writes in self._trackers()):
                    continue
                if self._shadow is None or not self._is_version(self._shadow, version, suffix):
                    raise AgentError(f"The swap of {self.store_id} to {version!r} was given up meanwhile.")
                self._copy_pending()
                for writes in self._trackers():
                    if writes.dual is not None:
                        writes.dual.serving = True
                self._current, self._shadow, self._building = self._with_change_records(self._shadow), None, False
                self._current_since = since
                return time.perf_counter() - started
        raise AssertionError("the last try always ends")

    def _trackers(self) -> list[WriteTracker]:
        return [index.writes for index in self.current.indexes()]

    def _copy_pending(self) -> None:
        for writes in self._trackers():
            writes.flush_uncertain()
        self.flush_dual_writes()

    def stop_dual_write(self) -> None:
        """Stop writing to the shadow indexes; they stay as they are."""
        with self._lock:
            for writes in self._trackers():
                writes.dual = None
            super().stop_dual_write()

    def _open_or_reuse(self, version: str, suffix: str) -> _B:
        return self._known(version, suffix) or self._with_refresh(self.bind(version, suffix))

    @staticmethod
    def _pairs(source: Binding, target: Binding) -> Iterator[tuple[TrackedIndex, TrackedIndex]]:
        return zip(source.indexes(), target.indexes(), strict=True)


def _traced(store_id: str, scope: Scope | None) -> AbstractContextManager[Any]:
    return nullcontext() if scope is None else span("hins.search", store=store_id)


def _always_beside(encoder: Encoder, known: bool) -> str:
    return index_suffix(encoder.version)


def _never_beside(encoder: Encoder, known: bool) -> str:
    return ""


def _note_changes(registry: Registry, key: str, index: TrackedIndex, ids: Sequence[Any]) -> bool:
    return registry.note_changes(key, index.kind, [index.record_id(id_) for id_ in ids])
