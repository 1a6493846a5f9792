"""Loading encoders by a version's id, each model once in a process."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from hins_memory.encoders.encoder import DEFAULT_MODEL, Encoder, encoder_version, resolve_model
from hins_memory.encoders.shared_weights import share_weights
from hins_memory.encoders.starter import default_base, is_starter, starters
from hins_memory.errors import AgentError, EncoderError, HinsError
from hins_memory.registry.towers import ScopedTowers
from hins_memory.types import Role

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from hins_memory.registry.registry import Registry

__all__ = ["EncoderSource", "TextEncoder", "shared_encoder"]

_loaded: weakref.WeakValueDictionary[str, Encoder] = weakref.WeakValueDictionary()
_loading = threading.Lock()


def shared_encoder(name_or_dir: str | Path = DEFAULT_MODEL) -> Encoder:
    """Load an encoder, or return the one that this process already holds for the same model or version.

    Weights that another loaded encoder has too, or both sides of a tower, are in memory once: they are not to be
    changed.

    Raises:
        EncoderError: it cannot be found, verified or loaded.
    """
    with _loading:
        if (known := _loaded.get(str(name_or_dir))) is not None:
            return known
        source = str(name_or_dir) if is_starter(name_or_dir) else resolve_model(name_or_dir)
        encoder = _loaded.get(source)
        if encoder is None:
            encoder = Encoder.load(name_or_dir)
            share_weights(encoder.model, [one.model for one in _loaded.values()])
            _loaded[source] = _loaded[encoder.version] = encoder
        return encoder


class TextEncoder(Protocol):
    """What turns texts into unit vectors: an `Encoder`, or an agent's own embedder behind the same method."""

    def encode(self, texts: Sequence[str], *, role: Role = "document") -> NDArray[np.float32]:
        """Return the vectors of texts, of shape (len(texts), dim)."""


class EncoderSource:
    """Loads the encoders of one project.

    Args:
        registry: the project's registry.
        model: a sentence-transformers folder or name to start from instead of the project's current version.
    """

    def __init__(self, registry: Registry, model: str | Path | None = None) -> None:
        self.registry = registry
        self.model = model
        #: the encoders of scopes that have one of their own
        self.towers = ScopedTowers(registry)

    def stock(self) -> Encoder:
        """Return the plain base: the model named by the user, else the stock model."""
        return shared_encoder(self.model or DEFAULT_MODEL)

    def initial(self) -> Encoder:
        """Return what a new store starts with: the user's model, else the current version, the starter, or stock."""
        return shared_encoder(self.initial_name())

    def initial_name(self) -> str | Path:
        """Return the same as `Encoder.load` takes it."""
        if self.model is None and (current := self.registry.current()):
            return current.path
        return self.model or default_base()

    def serving_version(self, live: str = "") -> str:
        """Return what serves the project, "" where it is not known.

        Args:
            live: what a live agent embeds with; it decides. Else the current version does, else that of all indexes.
        """
        if live:
            return live
        if current := self.registry.current():
            return current.id
        serving = {index.version for index in self.registry.indexes() if index.state == "live"}
        return serving.pop() if len(serving) == 1 else ""

    def trained_from(self, version: str) -> str | Path:
        """Return what a version was trained from in the first place, or is itself, as for `Encoder.load`.

        From another base the gate would measure the base's forgetting too, e.g. of the starter against the plain model.
        """
        parents = {one.id: one.manifest.base for one in self.registry.versions()}
        while version in parents:
            version = parents.pop(version)
        return self._named(version) or default_base()

    def source(self, version: str) -> str | Path | None:
        """Return what `Encoder.load` takes for a version of the project or a model that it knows; None for others."""
        try:
            return self.registry.get(version).path
        except EncoderError:
            return self._named(version)

    def _named(self, version: str) -> str | Path | None:
        """Return the name of the model whose version it is, of those that a store may have been opened with."""
        known: list[str | Path] = [*([self.model] if self.model else []), "stock", default_base(), *starters()]
        found = (name for name in dict.fromkeys(known) if encoder_version(name) == version)
        return next(found, None) if version else None

    def by_version(self, version: str) -> Encoder:
        """Return the encoder whose version is `version`.

        Raises:
            AgentError: it is not a version of this project, nor the user's model, the stock model or the starter.
        """
        try:
            return shared_encoder(self.registry.get(version).path)
        except EncoderError as error:
            reason: HinsError = error
        with _loading:
            loaded = _loaded.get(version)
        if loaded is not None:
            return loaded
        if (name := self._named(version)) is not None:
            return shared_encoder(name)
        raise AgentError(
            f"The stored memories were embedded by {version!r}, which cannot be loaded. {reason.problem}",
            "If it is a model of your own, name it with model=...; else restore the version.",
        ) from reason
