"""The first opening of a store: which encoder serves it, and how that is recorded."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hins_memory.errors import AgentError, SwapError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from hins_memory.encoders.encoder import Encoder
    from hins_memory.plugins.protocols import Agent, Record
    from hins_memory.registry.loader import EncoderSource
    from hins_memory.registry.registry import Registry

__all__ = ["check_stock", "first_encoder", "made_by", "record_first", "record_framework_encoder", "reembed"]


def first_encoder(encoders: EncoderSource, embedder: str) -> Encoder:
    """Return the encoder of a new store: the plain base for ``stock``, else the project's current or first encoder."""
    return encoders.stock() if embedder == "stock" else encoders.initial()


def record_first(registry: Registry, store_id: str, version: str, suffix: str) -> None:
    """Record the version that serves a store that is not in the registry, or is with the framework's own encoder.

    Raises:
        AgentError: another process opened it at the same moment with another encoder.
    """
    if registry.live_index(store_id) is not None:
        # It was recorded with the framework's own encoder, for a swap that did not come to its end.
        registry.begin_shadow(store_id, version, suffix)
        registry.flip(store_id, suffix)
        return
    try:
        registry.record_live(store_id, version, suffix)
    except SwapError as error:
        raise AgentError(
            f"Another process opened {store_id} at the same moment with another encoder.", "Open it again."
        ) from error


def record_framework_encoder(agent: Agent, registry: Registry) -> None:
    """Record that the framework's own encoder serves a store, where it does, so that it can be swapped."""
    if not agent.encoder_version and registry.live_index(agent.store_id) is None:
        registry.record_live(agent.store_id, "", "")


def check_stock(agent: Agent, encoders: EncoderSource, embedder: str | None) -> None:
    """Check that a store that is asked for with the plain base is served by it.

    Raises:
        AgentError: another version serves it.
    """
    if embedder == "stock" and agent.encoder_version != encoders.stock().version:
        raise AgentError(
            f"{agent.store_id} is embedded by {agent.encoder_version!r}, not by the stock encoder.",
            'Open it with embedder="hins", or return to the stock encoder with `hins rollback`.',
        )


def made_by(encoder: Encoder, records: Sequence[Record], vectors: Mapping[str, NDArray[np.float32]]) -> bool:
    """Return whether an encoder gives the stored vectors for their texts; True for no records.

    Args:
        encoder: the encoder.
        records: some records of a store.
        vectors: their vectors by id, each of shape (encoder.dim,).
    """
    from hins_memory.swapping.sync import compare_vectors

    return not compare_vectors(records, vectors, encoder)[1]


def reembed(agent: Agent, encoder: Encoder, registry: Registry) -> None:
    """Swap a store from the framework's own encoder to another.

    Raises:
        SwapError: it did not finish; the framework's own encoder serves as before.
    """
    from hins_memory.swapping import swap_agent

    record_framework_encoder(agent, registry)
    swap_agent(agent, encoder.version, encoder, registry)
