"""The encoders that a server holds in memory: few, each with its thread; the least used one makes room."""

from __future__ import annotations

import logging
import time
from collections import OrderedDict
from collections.abc import Collection
from functools import partial
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING

from hins_memory.errors import EncoderError, HinsError
from hins_memory.registry.onnx_exports import OnnxExports
from hins_memory.server.batching import Batcher, ServedEncoder
from hins_memory.server.catalog import Catalog, Model
from hins_memory.server.metrics import Metrics
from hins_memory.server.settings import ServeSettings

if TYPE_CHECKING:
    from hins_memory.encoders.tower_bank import TowerBank

__all__ = ["EncoderPool"]

logger = logging.getLogger(__name__)

# Towers of single scopes share the layers of the documents' encoder: each takes a few MiB.
_MOST_TOWERS = 64
# A version that could not be loaded is tried again after this time, because reading its files takes long.
_FAILED_SECONDS = 10.0


class EncoderPool:
    """Loads encoders when they are asked for, one at a time, and unloads those that were not for the longest.

    Texts wait for an encoder while it is loaded, and what waits is embedded before it is unloaded: every request is
    answered, however many versions are asked for in turns.

    Args:
        catalog: finds the encoder that a tower's documents are embedded with.
        exports: load the encoders.
        options: the bounds.
        metrics: what is counted.
    """

    def __init__(self, catalog: Catalog, exports: OnnxExports, options: ServeSettings, metrics: Metrics) -> None:
        self._catalog, self._exports, self._options, self._metrics = catalog, exports, options, metrics
        # Loaded or not, the one that was asked for last at the end.
        self._batchers: OrderedDict[str, Batcher] = OrderedDict()
        # Versions that are in memory whole, and towers as updates of one of those: what it is an update of.
        self._whole: set[str] = set()
        self._towers: dict[str, str] = {}
        self._banks: dict[str, TowerBank] = {}
        self._failed: dict[str, tuple[float, HinsError]] = {}
        self._lock = Lock()
        # Held by the thread that makes room and loads.
        self._loading = Lock()
        metrics.waiting.set_function(lambda: float(sum(one.waiting for one in self._all())))
        metrics.loaded.set_function(lambda: float(len(self._whole) + len(self._towers)))

    def get(self, model: Model) -> Batcher:
        """Return what embeds for a model, as soon as it is loaded; its requests fail where it cannot be."""
        with self._lock:
            batcher = self._batchers.get(model.version)
            if batcher is None:
                batcher = self._batchers[model.version] = Batcher(
                    model.version,
                    partial(self._load, model),
                    max_waiting=self._options.max_waiting,
                    max_batch=self._options.max_batch,
                    on_batch=self._metrics.batch_texts.observe,
                )
            self._batchers.move_to_end(model.version)
            if (documents := self._towers.get(model.version)) in self._batchers:
                self._batchers.move_to_end(str(documents))
            return batcher

    def retain(self, versions: Collection[str]) -> None:
        """Unload what is not among these: it was removed or released. Texts that wait are still embedded."""
        gone = (self._whole | self._towers.keys()) - set(versions)
        if gone:
            with self._loading:
                for version in gone:
                    self._unload(version)

    def close(self) -> None:
        """Embed what waits, and unload everything."""
        for batcher in self._all():
            batcher.close()

    def _all(self) -> list[Batcher]:
        with self._lock:
            return list(self._batchers.values())

    def _load(self, model: Model) -> ServedEncoder:
        # In the thread of the model's batcher.
        try:
            failed = self._failed.get(model.version)
            if failed is not None and time.monotonic() - failed[0] < _FAILED_SECONDS:
                raise failed[1]
            return (self._tower(model) if model.scope else None) or self._common(model)
        except HinsError as error:
            if failed is None or failed[1] is not error:
                logger.error("%s cannot be loaded: %s", model.version, error)
                self._failed[model.version] = (time.monotonic(), error)
            raise
        finally:
            with self._lock:
                if model.version not in self._whole and model.version not in self._towers:
                    self._batchers.pop(model.version, None)

    def _common(self, model: Model) -> ServedEncoder:
        with self._loading:
            # Room first: there are never more in memory than may be.
            while len(self._whole) >= self._options.max_loaded:
                self._unload(self._least_used(self._whole))
            started = time.perf_counter()
            encoder = self._exports.load(model.version, model.space, model.source, self._options.engine)
            logger.info("Loaded %s in %.1f seconds", model.version, time.perf_counter() - started)
            with self._lock:
                self._whole.add(model.version)
            return encoder

    def _tower(self, model: Model) -> ServedEncoder | None:
        """Load a tower as an update of its documents' encoder; None where it is not one, and has to be loaded whole."""
        documents = self._catalog.version(model.space)
        if documents is None or documents.version == model.version:
            return None
        from hins_memory.encoders.encoder import Encoder
        from hins_memory.encoders.tower_bank import TowerBank

        encoder = self.get(documents).loaded.result()
        if not isinstance(encoder, Encoder):
            return None
        with self._loading:
            while len(self._towers) >= _MOST_TOWERS:
                self._unload(self._least_used(self._towers))
            bank = self._banks.get(documents.version)
            try:
                if bank is None or bank.documents is not encoder:
                    bank = TowerBank(encoder)
                tower = bank.load(Path(model.source))
            except EncoderError as error:
                logger.info("%s is loaded whole: %s", model.version, error)
                return None
            with self._lock:
                self._banks[documents.version] = bank
                self._towers[model.version] = documents.version
            return tower

    def _least_used(self, versions: Collection[str]) -> str:
        with self._lock:
            return next(one for one in self._batchers if one in versions)

    def _unload(self, version: str) -> None:
        # Under `_loading`, so that no two threads unload.
        with self._lock:
            batcher = self._batchers.pop(version, None)
            self._banks.pop(version, None)
            over = [tower for tower, documents in self._towers.items() if documents == version]
        for tower in over:
            self._unload(tower)
        if batcher is not None:
            batcher.close()
            logger.info("Unloaded %s", version)
        with self._lock:
            self._whole.discard(version)
            self._towers.pop(version, None)
