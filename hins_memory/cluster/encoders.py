"""Encoders on the nodes of a Ray cluster: what a task loads by name, and an encoder that lets tasks embed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from hins_memory.cluster.tasks import in_order
from hins_memory.config import Settings
from hins_memory.database.engine import open_database
from hins_memory.encoders.encoder import Encoder
from hins_memory.errors import EncoderError
from hins_memory.registry.loader import EncoderSource, shared_encoder
from hins_memory.registry.registry import Registry
from hins_memory.types import Role

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from sqlalchemy import Engine

__all__ = ["ClusterEncoder", "NamedEncoder"]

# What one task embeds; so few texts are embedded in this process. A swap embeds 1,024 at a time.
_TEXTS = 64

# A worker's tasks come one after the other; `shared_encoder` itself holds weak references only.
_loaded: dict[str | Path, Encoder] = {}


@dataclass(frozen=True, slots=True)
class NamedEncoder:
    """An encoder by its name, as every node can load it.

    Attributes:
        settings: the project; its database and its folder, or its shared store of versions, are reached by all nodes.
        version: the encoder's version.
        base: what is loaded where the project does not know that version, as for `Encoder.load`.
    """

    settings: Settings
    version: str
    base: str

    def engine(self) -> Engine:
        """Open the project's database."""
        return open_database(self.settings.database_url)

    def load(self) -> Encoder:
        """Load the encoder, or return the one that this process has.

        Raises:
            EncoderError: the node has another one under the name.
        """
        source = EncoderSource(Registry(self.settings, self.engine())).source(self.version) or self.base
        encoder = _loaded[source] = shared_encoder(source)
        if encoder.version != self.version:
            raise EncoderError(
                f"A node of the cluster has {encoder.version} where {self.version} is wanted.",
                "Share the project's folder among the nodes, or set HINS_STORE.",
            )
        return encoder


def _embedded(named: NamedEncoder, part: tuple[list[str], Role, int]) -> NDArray[np.float32]:
    texts, role, batch_size = part
    return named.load().encode(texts, role=role, batch_size=batch_size)


class ClusterEncoder(Encoder):
    """An encoder whose texts are embedded by the tasks of a cluster, 64 a task; few texts are by this process.

    Each worker loads the model once. The process is connected to the cluster (`connect`).

    Args:
        encoder: the same encoder, loaded here.
        named: how the nodes load it.
    """

    def __init__(self, encoder: Encoder, named: NamedEncoder) -> None:
        super().__init__(encoder.model, encoder.version, cache_size=0, space=encoder.space)
        self._encoder = encoder
        self._named = named

    def encode(self, texts: Sequence[str], *, role: Role = "document", batch_size: int = 32) -> NDArray[np.float32]:
        """Return the vectors of texts, as `Encoder.encode`."""
        import numpy as np

        if len(texts) <= _TEXTS:
            return self._encoder.encode(texts, role=role, batch_size=batch_size)
        parts = ((list(texts[at : at + _TEXTS]), role, batch_size) for at in range(0, len(texts), _TEXTS))
        return np.concatenate(list(in_order(_embedded, self._named, parts)))
