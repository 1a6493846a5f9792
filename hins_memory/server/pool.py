"""The encoders that a server holds in memory: few, each with its thread; the least used one makes room."""

from __future__ import annotations

import logging
import time
from collections import OrderedDict
from collections.abc import Collection
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING

from hins_memory.errors import EncoderError, HinsError
from hins_memory.registry.loader import shared_encoder
from hins_memory.server.batching import Batcher, ServedEncoder
from hins_memory.server.catalog import Catalog, Model
from hins_memory.server.metrics import Metrics
from hins_memory.server.settings import ServeSettings

if TYPE_CHECKING:
    from hins_memory.encoders.tower_bank import TowerBank

__all__ = ["EncoderPool", "load_encoder"]

logger = logging.getLogger(__name__)

# Towers of single scopes share the layers of the documents' encoder: each takes a few MiB.
_MOST_TOWERS = 64
# A version that could not be loaded is not tried again for so many seconds: reading its files takes long.
_FAILED_SECONDS = 10.0


def load_encoder(model: Model) -> ServedEncoder:
    """Load what serves a model; equal weights of loaded encoders are in memory once.

    Raises:
        EncoderError: it cannot be found, verified or loaded.
    """
    return shared_encoder(model.source)


class EncoderPool:
    """Loads encoders when they are asked for, one at a time, and unloads those that were not for the longest.

    Args:
        catalog: finds the encoder that a tower's documents are embedded with.
        options: the bounds.
        metrics: what is counted.
    """

    def __init__(self, catalog: Catalog, options: ServeSettings, metrics: Metrics) -> None:
        self._catalog, self._options, self._metrics = catalog, options, metrics
        self._loaded: OrderedDict[str, Batcher] = OrderedDict()
        self._towers: OrderedDict[str, Batcher] = OrderedDict()
        # The bank of towers of each encoder of documents.
        self._banks: dict[str, TowerBank] = {}
        self._loading: dict[str, Future[Batcher]] = {}
        self._failed: dict[str, tuple[float, HinsError]] = {}
        self._lock = Lock()
        self._loader = ThreadPoolExecutor(1, "hins-load")
        metrics.waiting.set_function(lambda: float(sum(one.waiting for one in self._all())))
        metrics.loaded.set_function(lambda: float(len(self._all())))

    def get(self, model: Model) -> Batcher | Future[Batcher]:
        """Return what embeds for a model, or what will when it is loaded.

        The future raises what `load_encoder` raises.
        """
        with self._lock:
            for kind in (self._loaded, self._towers):
                if (known := kind.get(model.version)) is not None:
                    kind.move_to_end(model.version)
                    if kind is self._towers and model.space in self._loaded:
                        self._loaded.move_to_end(model.space)
                    return known
            if model.version not in self._loading:
                self._loading[model.version] = self._loader.submit(self._load, model)
            return self._loading[model.version]

    def retain(self, versions: Collection[str]) -> None:
        """Unload what is not among these: it was removed or released. Texts that wait are still embedded."""
        gone = [one for one in (*self._loaded, *self._towers) if one not in versions]
        for version in gone:
            self._loader.submit(self._unload, version)

    def close(self) -> None:
        """Embed what waits, and unload everything."""
        self._loader.shutdown(cancel_futures=True)
        for version in (*self._towers, *self._loaded):
            self._unload(version)

    def _all(self) -> list[Batcher]:
        with self._lock:
            return [*self._loaded.values(), *self._towers.values()]

    def _load(self, model: Model) -> Batcher:
        # In the one thread of the loader.
        try:
            if (failed := self._failed.get(model.version)) and time.monotonic() - failed[0] < _FAILED_SECONDS:
                raise failed[1]
            started = time.perf_counter()
            batcher = self._tower(model) if model.scope else None
            if batcher is None:
                batcher = self._common(model)
            logger.info("Loaded %s in %.1f seconds", model.version, time.perf_counter() - started)
            return batcher
        except HinsError as error:
            self._failed[model.version] = (time.monotonic(), error)
            raise
        finally:
            with self._lock:
                self._loading.pop(model.version, None)

    def _common(self, model: Model) -> Batcher:
        if (known := self._loaded.get(model.version)) is not None:
            return known
        # Room first: there are never more in memory than may be.
        while len(self._loaded) >= self._options.max_loaded:
            self._unload(next(iter(self._loaded)))
        batcher = self._batcher(load_encoder(model))
        with self._lock:
            self._loaded[model.version] = batcher
        return batcher

    def _tower(self, model: Model) -> Batcher | None:
        """Load a tower as an update of its documents' encoder; None where it is not one, and has to be loaded whole."""
        documents = self._catalog.version(model.space)
        if documents is None or documents.version == model.version:
            return None
        from hins_memory.encoders.encoder import Encoder
        from hins_memory.encoders.tower_bank import TowerBank

        encoder = self._common(documents).encoder
        if not isinstance(encoder, Encoder):
            return None
        try:
            if (bank := self._banks.get(documents.version)) is None:
                bank = self._banks[documents.version] = TowerBank(encoder)
            batcher = self._batcher(bank.load(Path(model.source)))
        except EncoderError as error:
            logger.info("%s is loaded whole: %s", model.version, error)
            return None
        while len(self._towers) >= _MOST_TOWERS:
            self._unload(next(iter(self._towers)))
        with self._lock:
            self._towers[model.version] = batcher
        return batcher

    def _batcher(self, encoder: ServedEncoder) -> Batcher:
        return Batcher(
            encoder,
            max_waiting=self._options.max_waiting,
            max_batch=self._options.max_batch,
            on_batch=self._metrics.batch_texts.observe,
        )

    def _unload(self, version: str) -> None:
        with self._lock:
            found = [one for kind in (self._loaded, self._towers) if (one := kind.pop(version, None)) is not None]
            bank = self._banks.pop(version, None)
            over = [one for one, tower in self._towers.items() if bank is not None and tower.encoder.space == version]
        for batcher in found:
            batcher.close()
            logger.info("Unloaded %s", version)
        for tower in over:
            self._unload(tower)
