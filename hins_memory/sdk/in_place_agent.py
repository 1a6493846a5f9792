"""An agent whose framework keeps the vectors in its own files and objects, which are converted at the flip."""

from __future__ import annotations

import logging
import time
import weakref
from collections.abc import Iterable, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from hins_memory.errors import AgentError
from hins_memory.plugins.protocols import Index, Record
from hins_memory.sdk.binding_agent import Binding, BindingAgent
from hins_memory.sdk.opening import check_stock, first_encoder, made_by
from hins_memory.sdk.rw_lock import FlipLock
from hins_memory.sdk.text_index import StoreTexts, TextIndex
from hins_memory.sdk.vector_cache import VectorCaches
from hins_memory.sdk.vector_files import Entry, VectorFiles, Vectors, usable_vectors

if TYPE_CHECKING:
    from hins_memory.encoders.encoder import Encoder
    from hins_memory.registry.loader import EncoderSource, TextEncoder

__all__ = ["InPlaceAgent", "LoadedVectors"]

logger = logging.getLogger(__name__)

# How many stored vectors are compared with re-encoded texts, in all and of one file.
_SAMPLE = 32
_SAMPLE_OF_FILE = 8


class LoadedVectors(Protocol):
    """An object of the framework in this process that holds texts with vectors."""

    #: the file that it is saved to
    path: Path
    #: whose vectors it has
    binding: Binding
    #: shared by each operation on the object
    lock: FlipLock

    def entries(self) -> list[Entry]:
        """Return what has a vector in the object."""


class InPlaceAgent(BindingAgent[Binding]):
    """One store, shared by every object of this process that works on it: the `Agent` protocol over `VectorFiles`.

    What serves are the vectors in the framework's own files and objects. A swap builds those of the new version beside
    them, by text; the flip puts them in place, one object and one file at a time, and keeps the old ones the same
    way. Each file names the space of its vectors, so a flip that was cut off is finished when a file is opened.

    An adapter derives `VectorFiles`; it calls `join` for each object that was loaded, `copy_to_shadow` after each save,
    and does every operation on an object after `refresh_if_due`, inside ``with part.lock.shared()``.

    Args:
        store_id: what identifies the store in every process, without secrets.
        encoders: loads the project's encoders.
        files: the store's files.
        own: the framework's own encoder.
    """

    def __init__(self, store_id: str, encoders: EncoderSource, files: VectorFiles, own: TextEncoder) -> None:
        super().__init__(store_id, encoders, shared=True)
        self.files = files
        self.own = self._framework = self._current = Binding(own, "", "")
        self._texts = StoreTexts(files)
        self._caches = VectorCaches(files.side_folder, files.kinds)
        self._parts: weakref.WeakSet[LoadedVectors] = weakref.WeakSet()

    @property
    def parts(self) -> list[LoadedVectors]:
        """The objects of this process that work on the store."""
        return list(self._parts)

    def join(self, parts: Iterable[LoadedVectors]) -> None:
        """Register objects that were just loaded, and give them the vectors of the encoder that serves."""
        with self._lock:
            for part in parts:
                self._load_vectors(part)
                self._parts.add(part)

    def leave(self, parts: Iterable[LoadedVectors]) -> None:
        """Forget objects."""
        for part in parts:
            self._parts.discard(part)

    def _load_vectors(self, part: LoadedVectors) -> None:
        """Give an object that was just loaded, and its file, the vectors of the encoder that serves."""
        target = self.current
        if not target.version:
            return
        previous = self.encoders.registry.previous_index(self.store_id)
        self.convert_file(part.path, target, self._space(previous.version) if previous and previous.version else None)
        document = self.files.read(part.path) or {}
        marked = self.files.space_of(document) == target.space
        # Content that another program wrote into the file may not fit; it is made again from its text.
        dim = getattr(target.encoder, "dim", None)
        self._convert_part(part, target, usable_vectors(self.files.entries_in(document), dim) if marked else None)

    def bind(self, version: str, suffix: str) -> Binding:
        """Return the binding of a version; no index is opened for it.

        Raises:
            AgentError: its encoder cannot be loaded.
            EncoderError: it is damaged.
        """
        return Binding(self.encoders.by_version(version), version, suffix)

    def serve(self, version: str, suffix: str) -> None:
        """Serve with a version that the registry says is live, which another process may have swapped to.

        Raises:
            AgentError: its encoder cannot be loaded.
        """
        with self._lock:
            if self._parts:
                self.switch_to(version, suffix)
            else:
                # Nothing is open yet: each file is looked at when it is.
                self._current = self._open_or_reuse(version, suffix)

    def choose_encoder(self, embedder: str | None, reembed: bool) -> Encoder | None:
        """Serve with hins if it is asked for, and return the encoder that the store must be re-embedded with first.

        What the framework stored with the stock encoder is served as it is, whatever new stores begin with.

        Args:
            embedder: ``hins``, ``stock``, or None for whatever serves.
            reembed: whether vectors of another encoder may be replaced.

        Raises:
            AgentError: the store holds vectors of another encoder and `reembed` is false.
        """
        if embedder is None:
            return None
        if self.encoder_version:
            check_stock(self, self.encoders, embedder)
            return None
        encoder = first_encoder(self.encoders, embedder)
        for candidate in dict.fromkeys((encoder, self.encoders.stock())):
            if self._made_by(candidate):
                self._accept(Binding(candidate, candidate.version, self.record_first(candidate)))
                return None
        if reembed:
            return encoder
        raise AgentError(
            f"{self.store_id} holds vectors of another encoder; {encoder.version} cannot search them.",
            'Re-embed them with hins_memory.attach(memory, embedder="hins", reembed=True).',
        )

    def _made_by(self, encoder: Encoder) -> bool:
        """Return whether a sample of the stored vectors is what an encoder makes of their texts; True for none."""
        of_files = (
            islice((entry for entry in self.files.entries(path) if entry.vector is not None), _SAMPLE_OF_FILE)
            for path in self.files.paths()
        )
        sample = list(islice((entry for entries in of_files for entry in entries), _SAMPLE))
        vectors = {id_: vector for (_, id_), vector in usable_vectors(sample, encoder.dim).items()}
        records = [Record(entry.id, entry.text, {}) for entry in sample]
        return all(record.id in vectors for record in records) and made_by(encoder, records, vectors)

    def _accept(self, binding: Binding) -> None:
        """Serve with an encoder that the stored vectors are already made by: use it and mark the files."""
        with self._lock:
            self._serve_same_vectors(binding)
            for path in self.files.paths():
                with self.files.lock(path):
                    document = self.files.read(path)
                    if document is not None and self.files.space_of(document) != binding.space:
                        self.files.write(path, document, binding.space)

    def refresh(self) -> None:
        """Serve the version that another process swapped to, and write to the shadow that another one builds.

        Raises:
            AgentError: the encoder that serves by now cannot be loaded here.
            LogError: the registry cannot be read.
        """
        with self._lock:
            self._refreshed_at = time.monotonic()
            states = {record.state: record for record in self.encoders.registry.generations(self.store_id)}
            live, shadow = states.get("live"), states.get("shadow")
            if live is not None and live.version and live.version != self.current.version:
                self.serve(live.version, live.suffix)
            if not self._building:
                # What was saved before, the process that builds finds in the files.
                self._shadow = None if shadow is None else self._open_or_reuse(shadow.version, shadow.suffix)

    def refresh_if_due(self) -> None:
        """Call `refresh` if it is due; to be called between operations, because the flip waits for those that run."""
        # If another thread holds the lock, it is flipping, and waits perhaps for an operation that waits for this one.
        if self.refresh_due and self._lock.acquire(blocking=False):
            try:
                super().refresh_if_due()
            finally:
                self._lock.release()

    def live_indexes(self) -> list[Index]:
        """Return the indexes that serve now."""
        return [TextIndex(self._texts, kind, self._index_name(kind, self.current.suffix)) for kind in self.files.kinds]

    def open_indexes(self, version: str, suffix: str) -> list[Index]:
        """Open (creating what is missing) the indexes of `version` under the suffix `suffix`."""
        if self._is_version(self.current, version, suffix):
            return self.live_indexes()
        cache = self._caches.of(self._space(version))
        return [TextIndex(self._texts, kind, self._index_name(kind, suffix), cache) for kind in self.files.kinds]

    def copy_to_shadow(self, part: LoadedVectors) -> None:
        """Give what an object has saved vectors of the shadow's encoder, while there is one; never raises."""
        try:
            self._fill_shadow(part)
        except Exception:
            logger.exception("What %s saved did not reach the shadow of %s yet", part.path, self.store_id)

    def flush_dual_writes(self) -> None:
        """Give everything that the framework holds now a vector of the shadow's encoder.

        Raises:
            Exception: whatever the encoder or the disk raised.
        """
        for part in self.parts:
            self._fill_shadow(part)

    def _fill_shadow(self, part: LoadedVectors) -> None:
        shadow = self._shadow
        if shadow is not None:
            new = self._caches.missing(part.entries(), shadow.space)
            self._caches.keep(self._caches.vectors(new, shadow), shadow.space)

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
            old, target = self.current, self._open_or_reuse(version, suffix)
            if target is old:
                return 0.0
            if target.space and target.space == old.space:
                self._serve_same_vectors(target)
            else:
                self._convert(old, target)
            return time.perf_counter() - started

    def _serve_same_vectors(self, target: Binding) -> None:
        """Serve with another version that makes the same vectors of documents: no vector changes."""
        self._current, self._shadow, self._building = target, None, False
        for part in self.parts:
            with part.lock.exclusive():
                part.binding = target

    def _convert(self, old: Binding, target: Binding) -> None:
        # What can fail comes first: encoding missing texts, and keeping the old vectors for a rollback.
        entries = [entry for part in self.parts for entry in part.entries()]
        self._caches.keep(self._caches.vectors(entries, target), target.space)
        self._caches.keep(usable_vectors(entries), old.space)
        self._current, self._shadow, self._building = target, None, False
        try:
            for part in self.parts:
                self._convert_part(part, target)
        except BaseException:
            self._current = old
            for part in self.parts:
                if part.binding is target:
                    self._convert_part(part, old)
            raise
        for path in self.files.paths():
            try:
                self.convert_file(path, target, old.space)
            except Exception:
                # The flip is done: its mark tells what to do with the file when it is opened.
                logger.exception("%s keeps its old vectors until it is opened again", path)
        self.converted()

    def converted(self) -> None:
        """Do what the framework needs after a flip, e.g. empty a cache of vectors; the lock is held."""

    def release(self, parts: Sequence[LoadedVectors]) -> None:
        """Give objects and their files the vectors of the framework's own encoder again.

        Raises:
            AgentError: its own encoder cannot be loaded; nothing has changed then.
        """
        converted = [part for part in parts if part.binding.version]
        try:
            entries = [entry for part in converted for entry in part.entries()]
            self._caches.keep(self._caches.vectors(entries, self.own), "")
        except Exception as error:
            raise AgentError(
                f"{self.files.framework}'s own encoder is needed to give the vectors back, and it failed: {error}",
                "Make its model available (it is loaded from the Hugging Face hub) and detach again.",
            ) from error
        for part in converted:
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
        with self.files.lock(path):
            document = self.files.read(path)
            if document is None or self.files.space_of(document) == target.space:
                return
            entries = list(self.files.entries_in(document))
            if self.files.space_of(document) == old_space:
                self._caches.keep(usable_vectors(entries), old_space)
            _set_vectors(entries, self._caches.vectors(entries, target))
            self.files.write(path, document, target.space)

    def _convert_part(self, part: LoadedVectors, target: Binding, known: Vectors | None = None) -> None:
        with part.lock.exclusive():
            entries = part.entries()
            _set_vectors(entries, self._caches.vectors(entries, target, known))
            part.binding = target

    def _space(self, version: str) -> str:
        return self.encoders.registry.document_space(version) if version else ""

    def _index_name(self, kind: str, suffix: str) -> str:
        return f"{self.files.root.name}:{kind}{suffix}"


def _set_vectors(entries: Sequence[Entry], vectors: Vectors) -> None:
    for entry in entries:
        entry.holder[entry.field] = vectors[entry.kind, entry.id].tolist()
