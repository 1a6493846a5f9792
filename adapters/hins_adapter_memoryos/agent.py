"""A MemoryOS store whose encoder can be swapped while it is used: the `Agent` protocol for MemoryOS."""

from __future__ import annotations

import logging
import threading
import time
import weakref
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from hins_adapter_memoryos.component import Binding, Part
from hins_adapter_memoryos.encoders import FrameworkEncoder
from hins_adapter_memoryos.files import (
    KINDS,
    SPACE_KEY,
    DamagedFileError,
    Entry,
    Kind,
    entries,
    read_json,
    store_files,
    write_json,
    writing,
)
from hins_adapter_memoryos.index import StoreTexts, TextIndex, usable_vectors
from hins_adapter_memoryos.vectors import VectorCache
from hins_memory.errors import AgentError, LogError
from hins_memory.plugins.protocols import Index
from hins_memory.registry.loader import EncoderSource
from hins_memory.sdk.agent_base import AgentBase
from hins_memory.sdk.store_agent import REFRESH_SECONDS

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


__all__ = ["MemoryosAgent"]

logger = logging.getLogger(__name__)

_Vectors: TypeAlias = "dict[tuple[Kind, str], NDArray[np.float32]]"


class MemoryosAgent(AgentBase):
    """One data_storage_path, shared by every attached Memoryos of this process that works on it.

    What serves are the vectors in MemoryOS's own files and objects. A swap builds those of the new version beside
    them, by text; the flip puts them in place, one object and one file at a time, and keeps the old ones the same
    way. Each file names the space of its vectors, so a flip that was cut off is finished when a file is opened.
    """

    name = "memoryos"
    #: MemoryOS's thresholds: results below 0.1 are cut, segments are merged from 0.6.
    score_thresholds = (0.1, 0.6)

    def __init__(self, root: Path, encoders: EncoderSource, own: FrameworkEncoder) -> None:
        self.root = root
        #: what identifies the store in every process, e.g. ``memoryos:/data/memoryos``
        self.store_id = f"memoryos:{root}"
        self.encoders = encoders
        self.own = Binding(own, "", "")
        self.current = self.own
        self.texts = StoreTexts(root)
        self._lock = threading.RLock()
        self._shadow: Binding | None = None
        self._caches: dict[str, VectorCache] = {}
        self._parts: weakref.WeakSet[Part] = weakref.WeakSet()
        self._cache_clearers: list[Callable[[], None]] = []
        self._refreshed_at = float("-inf")

    @property
    def encoder_version(self) -> str:
        """The encoder version that serves now; "" when MemoryOS embeds with an encoder of its own."""
        return self.current.version

    @property
    def parts(self) -> list[Part]:
        """The mid- and long-term memories of this process that work on the store."""
        return [part for part in list(self._parts) if part.kind != "short"]

    def join(self, parts: Iterable[Part], clear_cache: Callable[[], None] | None = None) -> None:
        """Register parts of a Memoryos that were just loaded, and give them the vectors of the encoder that serves.

        Args:
            parts: the parts; known ones are brought up to date.
            clear_cache: empties MemoryOS's own cache of embeddings.
        """
        with self._lock:
            if clear_cache is not None and clear_cache not in self._cache_clearers:
                self._cache_clearers.append(clear_cache)
            for part in parts:
                if part.kind != "short":
                    self._load_vectors(part)
                self._parts.add(part)

    def _load_vectors(self, part: Part) -> None:
        """Give a part that was just loaded, and its file, the vectors of the encoder that serves."""
        target = self.current
        if not target.version:
            return
        previous = self.encoders.registry.previous_index(self.store_id)
        self.convert_file(part.path, target, self._space(previous.version) if previous and previous.version else None)
        document = _readable(part.path) or {}
        marked = document.get(SPACE_KEY) == target.space
        # Content that another program wrote into the file may not fit; it is made again from its text.
        dim = getattr(target.encoder, "dim", None)
        self._convert_part(part, target, usable_vectors(entries(document), dim) if marked else None)

    def leave(self, parts: Iterable[Part]) -> None:
        """Forget parts."""
        for part in parts:
            self._parts.discard(part)

    def bind(self, version: str, suffix: str) -> Binding:
        """Return the binding of a version.

        Raises:
            AgentError: its encoder cannot be loaded.
            EncoderError: it is damaged.
        """
        for known in (self.current, self._shadow, self.own):
            if known is not None and (known.version, known.suffix) == (version, suffix):
                return known
        return Binding(self.encoders.by_version(version), version, suffix)

    def live_indexes(self) -> list[Index]:
        """Return the indexes that serve now."""
        return [TextIndex(self.texts, kind, self._index_name(kind, self.current.suffix)) for kind in KINDS]

    def open_indexes(self, version: str, suffix: str) -> list[Index]:
        """Open (creating what is missing) the indexes of `version` under the suffix `suffix`."""
        if (version, suffix) == (self.current.version, self.current.suffix):
            return self.live_indexes()
        cache = self._cache(self._space(version))
        return [TextIndex(self.texts, kind, self._index_name(kind, suffix), cache) for kind in KINDS]

    def start_dual_write(self, version: str, suffix: str) -> None:
        """From now on, give every text that MemoryOS saves a vector of `version` too.

        Raises:
            AgentError: that version serves already, or its encoder cannot be loaded.
        """
        with self._lock:
            if (version, suffix) == (self.current.version, self.current.suffix):
                raise AgentError(f"{self.store_id} serves {version!r} already.")
            self._shadow = self.bind(version, suffix)

    def dual_write_lock(self) -> threading.RLock:
        """Return the context manager that excludes concurrent writes to the shadow indexes."""
        return self._lock

    def copy_to_shadow(self, part: Part) -> None:
        """Give what a part has saved vectors of the shadow's encoder, while there is one; never raises."""
        try:
            self._fill_shadow(part)
        except Exception:
            logger.exception("What %s saved did not reach the shadow of %s yet", part.path, self.store_id)

    def flush_dual_writes(self) -> None:
        """Give everything that MemoryOS holds now a vector of the shadow's encoder.

        Raises:
            Exception: whatever the encoder or the disk raised.
        """
        for part in self.parts:
            self._fill_shadow(part)

    def _fill_shadow(self, part: Part) -> None:
        shadow = self._shadow
        if shadow is None:
            return
        stored_entries = part.entries()
        for kind in KINDS:
            texts = {entry.id: entry.text for entry in stored_entries if entry.kind == kind}
            missing = texts.keys() - self._cache(shadow.space).known(kind, texts)
            new = [entry for entry in stored_entries if entry.kind == kind and entry.id in missing]
            self._cache_vectors(self._vectors(new, shadow), shadow.space)

    def switch_to(self, version: str, suffix: str) -> float:
        """Serve with the encoder of `version`: in the objects of this process, then in every file.

        An operation that runs on an object ends on the old vectors before the object gets the new ones. A file that
        cannot be written keeps its old vectors and their mark, and gets the new ones when it is opened.

        Returns:
            For how many seconds other operations were kept out.

        Raises:
            AgentError: the encoder of `version` cannot be loaded.
            Exception: whatever the encoder raised for texts without a vector yet; nothing has changed then.
        """
        with self._lock:
            started = time.perf_counter()
            old, target = self.current, self.bind(version, suffix)
            if target is old:
                return 0.0
            if target.space and target.space == old.space:
                self._switch_query_encoder(target)
                return time.perf_counter() - started
            # What can fail comes first: encoding missing texts, and keeping the old vectors for a rollback.
            stored_entries = [entry for part in self.parts for entry in part.entries()]
            self._cache_vectors(self._vectors(stored_entries, target), target.space)
            self._cache_vectors(usable_vectors(stored_entries), old.space)
            self.current, self._shadow = target, None
            try:
                for part in self.parts:
                    self._convert_part(part, target)
            except BaseException:
                self.current = old
                for part in self.parts:
                    if part.binding is target:
                        self._convert_part(part, old)
                raise
            self._convert_files(target, old)
            for clear in self._cache_clearers:
                clear()
            return time.perf_counter() - started

    def _switch_query_encoder(self, target: Binding) -> None:
        """Serve with another version that makes the same vectors of documents: no vector and no file changes."""
        self.current, self._shadow = target, None
        for part in self.parts:
            with part.lock.exclusive():
                part.binding = target

    def _convert_files(self, target: Binding, old: Binding) -> None:
        for path in store_files(self.root):
            try:
                self.convert_file(path, target, old.space)
            except Exception:
                # The flip is done: its mark tells what to do with the file when it is opened.
                logger.exception("%s keeps its old vectors until it is opened again", path)

    def serve_recorded(self, version: str, suffix: str) -> None:
        """Serve with the recorded version, which another process may have changed.

        Raises:
            AgentError: its encoder cannot be loaded.
        """
        with self._lock:
            if self.parts:
                self.switch_to(version, suffix)
            else:
                # Nothing is open yet: each file is looked at when it is.
                self.current = self.bind(version, suffix)

    def refresh_if_due(self) -> None:
        """Serve the version that another process swapped to; asks the registry at most every `REFRESH_SECONDS`.

        To be called between operations: the flip waits for those that run.

        Raises:
            AgentError: the encoder that serves by now cannot be loaded here.
        """
        # If another thread holds the lock, it is flipping, or finishes before the next check.
        if time.monotonic() - self._refreshed_at < REFRESH_SECONDS or not self._lock.acquire(blocking=False):
            return
        try:
            self._refreshed_at = time.monotonic()
            live = self.encoders.registry.live_index(self.store_id)
            if live is not None and live.version and live.version != self.current.version:
                self.serve_recorded(live.version, live.suffix)
        except LogError as error:  # no process can flip either
            logger.warning("Whether %s was swapped is not known now: %s", self.store_id, error)
        finally:
            self._lock.release()

    def stop_dual_write(self) -> None:
        """Stop giving the shadow vectors; what it has stays."""
        with self._lock:
            self._shadow = None

    def accept(self, binding: Binding) -> None:
        """Serve with an encoder that the stored vectors are already made by: mark the files and use it."""
        with self._lock:
            self.current = binding
            for part in self.parts:
                with part.lock.exclusive():
                    part.binding = binding
            for path in store_files(self.root):
                with writing(self.root, path):
                    document = _readable(path)
                    if document is not None and document.get(SPACE_KEY) != binding.space:
                        write_json(path, document | {SPACE_KEY: binding.space}, durable=True)

    def release(self, parts: Sequence[Part]) -> None:
        """Give objects and their files the vectors of MemoryOS's own encoder again.

        Raises:
            AgentError: its own encoder cannot be loaded; nothing has changed then.
        """
        searched = [part for part in parts if part.kind != "short" and part.binding.version]
        try:
            self._cache_vectors(self._vectors([entry for part in searched for entry in part.entries()], self.own), "")
        except Exception as error:
            raise AgentError(
                f"MemoryOS's own encoder is needed to give the vectors back, and it failed: {error}",
                "Make its model available (it is loaded from the Hugging Face hub) and detach again.",
            ) from error
        for part in searched:
            self._convert_part(part, self.own)
            self.convert_file(part.path, self.own, None)

    def convert_file(self, path: Path, target: Binding, old_space: str | None) -> None:
        """Give a file the vectors of `target`, in one step; a file that has them stays as it is.

        Args:
            path: the file; a missing or damaged one is left alone.
            target: whose vectors it gets.
            old_space: the space whose vectors are kept for a rollback if the file has them; None keeps none.

        Raises:
            OSError: it cannot be written.
        """
        with writing(self.root, path):
            document = _readable(path)
            if document is None or document.get(SPACE_KEY, "") == target.space:
                return
            stored_entries = list(entries(document))
            if old_space is not None and document.get(SPACE_KEY, "") == old_space:
                self._cache_vectors(usable_vectors(stored_entries), old_space)
            self._set_vectors(stored_entries, self._vectors(stored_entries, target))
            document.pop(SPACE_KEY, None)
            write_json(path, document | ({SPACE_KEY: target.space} if target.space else {}), durable=True)

    def _convert_part(self, part: Part, target: Binding, known: _Vectors | None = None) -> None:
        with part.lock.exclusive():
            stored_entries = part.entries()
            self._set_vectors(stored_entries, self._vectors(stored_entries, target, known))
            part.binding = target

    def _vectors(self, stored_entries: Sequence[Entry], binding: Binding, known: _Vectors | None = None) -> _Vectors:
        """Return each entry's vector by kind and id: known, or built already, or else encoded now."""
        vectors: _Vectors = {}
        missing: dict[tuple[Kind, str], str] = {}
        for kind in KINDS:
            texts = {entry.id: entry.text for entry in stored_entries if entry.kind == kind}
            built = self._cache(binding.space).get(kind, texts)
            for id_, text in texts.items():
                vector = (known or {}).get((kind, id_), built.get(id_))
                if vector is None:
                    missing[kind, id_] = text
                else:
                    vectors[kind, id_] = vector
        if missing:
            vectors |= zip(missing, binding.encoder.encode(list(missing.values()), role="document"), strict=True)
        return vectors

    def _cache_vectors(self, vectors: _Vectors, space: str) -> None:
        for kind in KINDS:
            self._cache(space).put(kind, {id_: vector for (known, id_), vector in vectors.items() if known == kind})

    @staticmethod
    def _set_vectors(stored_entries: Sequence[Entry], vectors: _Vectors) -> None:
        for entry in stored_entries:
            entry.holder[entry.field] = vectors[entry.kind, entry.id].tolist()

    def _cache(self, space: str) -> VectorCache:
        return self._caches.setdefault(space, VectorCache(self.root, space))

    def _space(self, version: str) -> str:
        return self.encoders.registry.document_space(version) if version else ""

    def _index_name(self, kind: Kind, suffix: str) -> str:
        return f"{self.root.name}:{kind}{suffix}"


def _readable(path: Path) -> dict[str, Any] | None:
    try:
        document: dict[str, Any] | None = read_json(path, dict)
    except DamagedFileError as error:
        logger.warning("%s. It is left as it is.", error)
        return None
    return document
