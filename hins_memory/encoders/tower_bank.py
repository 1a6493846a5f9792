"""Many query towers over one loaded encoder: of each tower only its low-rank update is kept.

A tower differs from the encoder of the documents by an update of linear layers, which has a low rank, and by layers
after the transformer. So all towers share one transformer; the one that embeds adds its update to what layers give.
"""

from __future__ import annotations

import contextlib
import copy
import threading
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from itertools import chain
from typing import TYPE_CHECKING, Any

from hins_memory.encoders.encoder import Encoder
from hins_memory.encoders.low_rank import factorize
from hins_memory.encoders.score_offset import with_modules
from hins_memory.encoders.sides import sides_of
from hins_memory.errors import EncoderError
from hins_memory.types import Role

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray
    from sentence_transformers import SentenceTransformer
    from torch import Tensor

__all__ = ["TowerBank"]

# Queries of one tower whose vectors are kept. There may be hundreds of towers.
_CACHED_QUERIES = 64
# What an update may differ by from its factors, of its norm: merging into float32 weights rounds about that much.
_ROUNDING = 1e-3
_FIRST_RANK = 16
_QUERIES, _DOCUMENTS = 0, 1

_Updates = Mapping[str, "tuple[Tensor, Tensor]"]


class TowerBank:
    """Makes encoders that embed queries as towers do, and share the layers of the documents' encoder.

    They take turns: one text or batch of one tower goes through the shared layers at a time.

    Args:
        documents: embeds documents, and is what the towers were trained from; its own queries may be a tower's.
    """

    def __init__(self, documents: Encoder) -> None:
        import torch

        self.documents = documents
        transformer = _modules_of(documents.model, _DOCUMENTS)[0]
        # A copy of the modules, because they get hooks, but not of the weights.
        weights = {id(one): one for one in chain(transformer.parameters(), transformer.buffers())}
        self._transformer = copy.deepcopy(transformer, weights)
        self._linear = {name for name, one in self._transformer.named_modules() if type(one) is torch.nn.Linear}
        for name in self._linear:
            self._transformer.get_submodule(name).register_forward_hook(partial(self._add_update, name))
        # Matrices that are large and short-lived would leave holes between the small ones that are kept.
        largest = max((self._transformer.get_submodule(name).weight.numel() for name in self._linear), default=0)
        self._scratch = [torch.empty(largest, device=documents.model.device) for _ in range(2)]
        self._updates: _Updates = {}
        self._turn = threading.RLock()

    def load(self, folder: Path) -> Encoder:
        """Return what `tower` returns of a version's folder.

        Raises:
            EncoderError: it cannot be loaded, or is not a tower of these documents.
        """
        whole = Encoder.load(folder)
        try:
            return self.tower(whole)
        finally:
            # Its objects refer to one another, so that the garbage collector frees them some time; weights go now.
            for side in (_QUERIES, _DOCUMENTS):
                for weight in _modules_of(whole.model, side)[0].parameters():
                    weight.data = weight.data.new_empty(0)

    def tower(self, whole: Encoder) -> Encoder:
        """Return an encoder with the queries of a tower, which itself need not stay loaded; one thread at a time.

        Args:
            whole: the tower as a version's folder holds it, with weights of its own.

        Raises:
            EncoderError: it differs from the documents' encoder by more than a tower does.
        """
        import torch

        modules = _modules_of(whole.model, _QUERIES)
        weights = dict(self._transformer.named_parameters())
        updates: dict[str, tuple[Tensor, Tensor]] = {}
        tuned = dict(modules[0].named_parameters())
        if tuned.keys() != weights.keys() or any(tuned[name].shape != weights[name].shape for name in tuned):
            raise _no_tower(whole)
        with torch.no_grad():
            for name, weight in tuned.items():
                if torch.equal(weight, weights[name]):
                    continue
                layer = name.removesuffix(".weight")
                if layer not in self._linear:
                    raise _no_tower(whole)
                updates[layer] = self._factors(weight, weights[name])
        model = with_modules(whole.model, [self._transformer, *modules[1:]])
        return _Tower(model, whole, updates, self)

    @contextlib.contextmanager
    def updated(self, updates: _Updates) -> Iterator[None]:
        """Add updates to what the shared layers give, inside the block; other towers wait."""
        with self._turn:
            self._updates = updates
            try:
                yield
            finally:
                self._updates = {}

    def _add_update(self, name: str, layer: Any, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        found = self._updates.get(name)
        return output if found is None else output + (inputs[0] @ found[0].T) @ found[1].T

    def _factors(self, tuned: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
        """Return (down, up) of shapes (rank, columns) and (rows, rank), whose product up @ down is what was tuned.

        The rank is the lowest of 16, 32, 64 and so on that is enough.
        """
        import torch

        update, product = (one[: weight.numel()].view_as(weight) for one in self._scratch)
        torch.sub(tuned, weight, out=update)
        rank = _FIRST_RANK
        while True:
            up, down = factorize(update, rank)
            lost = torch.matmul(up, down, out=product).sub_(update).norm()
            if rank >= min(update.shape) or lost <= _ROUNDING * update.norm():
                return down, up
            rank *= 2


class _Tower(Encoder):
    """One tower of a bank. Its documents are those of the encoder that the bank is of."""

    def __init__(self, model: SentenceTransformer, whole: Encoder, updates: _Updates, bank: TowerBank) -> None:
        super().__init__(
            model,
            whole.version,
            cache_size=_CACHED_QUERIES,
            space=bank.documents.space,
            keyword_weight=whole.keyword_weight,
        )
        self._updates = updates
        self._bank = bank

    def encode(self, texts: Sequence[str], *, role: Role = "document", batch_size: int = 32) -> NDArray[np.float32]:
        """Encode texts of either side, as `Encoder.encode`."""
        if role == "document":
            return self._bank.documents.encode(texts, role=role, batch_size=batch_size)
        with self._bank.updated(self._updates):
            return super().encode(texts, role=role, batch_size=batch_size)

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """Count as `Encoder.count_tokens`; the tokenizer is the documents'."""
        return self._bank.documents.count_tokens(texts)


def _modules_of(model: SentenceTransformer, side: int) -> list[Any]:
    """Return the modules that queries (0) or documents (1) go through, the transformer first."""
    sides = sides_of(model)
    return list(model.children()) if sides is None else sides[side]


def _no_tower(encoder: Encoder) -> EncoderError:
    return EncoderError(
        f"{encoder.version} differs from the encoder of the documents by more than an update of linear layers.",
        "Train it again in the mode 'tower'.",
    )
