"""Which tower embeds the searches of a scope, and the loaded ones: few, however many scopes have one."""

from __future__ import annotations

import logging
import threading
import time
from collections import OrderedDict
from typing import TYPE_CHECKING

from hins_memory.encoders.tower_bank import TowerBank
from hins_memory.errors import LogError
from hins_memory.registry.scoped import nearest_version

if TYPE_CHECKING:
    from hins_memory.encoders.encoder import Encoder
    from hins_memory.registry.registry import Registry
    from hins_memory.types import Scope

__all__ = ["ScopedTowers"]

logger = logging.getLogger(__name__)

# What serves the scopes is read from the database again after this many seconds.
_FRESH_SECONDS = 0.4
# Of an encoder of MiniLM's size a tower takes about 3 MiB here.
_MOST_TOWERS = 128


class ScopedTowers:
    """The towers of a project's scopes. Safe with several threads; other processes' changes are followed.

    A tower serves over the vectors that it was trained against, and over no others: after a swap to an encoder that
    embeds documents in another way, the common encoder serves its scope.

    Args:
        registry: the project's registry.
    """

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._versions: dict[str, str] = {}
        self._read_at = float("-inf")
        self._spaces: dict[str, str] = {}
        self._broken: set[str] = set()
        self._bank: TowerBank | None = None
        self._loaded: OrderedDict[str, Encoder] = OrderedDict()
        self._lock = threading.Lock()
        self._loading = threading.Lock()

    def version_of(self, scope: Scope, space: str) -> str:
        """Return the version that embeds the searches of a scope; "" where it is the common one.

        The nearest scope that has one counts: the owner, else its user, else its tenant.

        Args:
            scope: of the search.
            space: of the stored vectors.
        """
        self._refresh()
        return nearest_version(scope, self._versions, lambda version: self._space(version) == space)

    def encoder_of(self, scope: Scope, common: Encoder) -> Encoder | None:
        """Return the encoder of a scope's searches; None where it is the common one, or its own cannot be loaded.

        Args:
            scope: of the search.
            common: the encoder that serves everyone else, and made the stored vectors.
        """
        version = self.version_of(scope, common.space)
        if not version or version in self._broken:
            return None
        if (known := self._known(version, common)) is not None:
            return known
        with self._loading:
            # Another thread may have loaded it meanwhile.
            return self._known(version, common) or self._load(version, common)

    def _known(self, version: str, common: Encoder) -> Encoder | None:
        with self._lock:
            if self._bank is None or self._bank.documents is not common or version not in self._loaded:
                return None
            self._loaded.move_to_end(version)
            return self._loaded[version]

    def _load(self, version: str, common: Encoder) -> Encoder | None:
        try:
            with self._lock:
                if self._bank is None or self._bank.documents is not common:
                    self._bank, self._loaded = TowerBank(common), OrderedDict()
                bank = self._bank
            tower = bank.load(self._registry.get(version).path)
        except Exception:
            # A search must not fail for what is only an improvement of it.
            logger.exception("%s cannot be loaded here, so the common encoder serves its scope", version)
            self._broken.add(version)
            return None
        with self._lock:
            self._loaded[version] = tower
            while len(self._loaded) > _MOST_TOWERS:
                self._loaded.popitem(last=False)
        return tower

    def _space(self, version: str) -> str:
        if version not in self._spaces:
            self._spaces[version] = self._registry.document_space(version)
        return self._spaces[version]

    def _refresh(self) -> None:
        if time.monotonic() - self._read_at < _FRESH_SECONDS:
            return
        self._read_at = time.monotonic()
        try:
            versions = self._registry.versions_by_scope()
        except LogError as error:
            logger.warning("Whether scopes got other encoders is not known now: %s", error)
            return
        if versions != self._versions:
            self._versions, self._broken = versions, set()
            with self._lock:
                for version in self._loaded.keys() - versions.values():
                    del self._loaded[version]
