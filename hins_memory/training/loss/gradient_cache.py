"""Micro-batches of similar length, embedded with all their activations or one micro-batch at a time (GradCache)."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from hins_memory.training.loss.gathering import several_processes

__all__ = ["MicroBatch", "MicroBatches", "cached_loss", "embed", "micro_batches", "text_keys"]

Column = dict[str, Any]

# Odd multipliers of splitmix64, as signed numbers: keys are sums of products modulo 2**64.
_GOLDEN, _MIX = -7046029254386353131, -4658895280553007687
# On a CPU a pass with more padding than this many tokens takes longer than two passes.
_MAX_PADDING = 48


@dataclass(frozen=True, slots=True)
class MicroBatch:
    """Texts of about the same length that go through the model together.

    Attributes:
        rows: the texts' numbers among the distinct ones, of shape (n,).
        features: their tokens, each tensor of shape (n, length), and the model's other inputs.
    """

    rows: Tensor
    features: Column


@dataclass(frozen=True, slots=True)
class MicroBatches:
    """The distinct texts of some columns, split for the model.

    Attributes:
        batches: together their rows are 0 ... number of distinct texts - 1.
        places: which of the distinct texts each text of the columns is, of shape (sum of n_i,).
    """

    batches: list[MicroBatch]
    places: Tensor


def text_keys(column: dict[str, Any]) -> Tensor:
    """Return a hash of each text's tokens, independent of the padding: int64 of shape (n,).

    Two different texts have the same hash with a probability of the order of 2**-46 (multilinear hashing).
    """
    mask = column["attention_mask"].long()
    # (n, length): 1 for the first token of the text, 2 for the second ...
    position = mask.cumsum(dim=1)
    factors = position * _GOLDEN
    factors = (factors ^ (factors >> 29)) * _MIX
    factors = (factors ^ (factors >> 32)) | 1
    keys: Tensor = (mask * (column["input_ids"].long() + 1) * factors).sum(dim=1) + mask.sum(dim=1)
    return keys


def micro_batches(columns: Sequence[Column], size: int) -> MicroBatches:
    """Sort the distinct texts of several columns by length and split them, so that little is padded.

    A text that occurs several times, in one column or in several, goes through the model once. Where several processes
    train together every occurrence does, because all of them have to make equally many passes.

    Args:
        columns: tokenised columns, each with ``input_ids`` and ``attention_mask`` of shape (n_i, length_i), padded on
            either side.
        size: texts per micro-batch.

    Returns:
        The micro-batches, shortest texts first.
    """
    starts = torch.tensor([0, *(len(column["input_ids"]) for column in columns)]).cumsum(0).tolist()
    # Columns that the model treats differently (prompts, routes) do not share a forward pass.
    kinds: dict[tuple[tuple[str, Any], ...], list[int]] = {}
    for i, column in enumerate(columns):
        options = tuple(sorted((name, value) for name, value in column.items() if not isinstance(value, Tensor)))
        kinds.setdefault(options, []).append(i)
    batches: list[MicroBatch] = []
    places = torch.empty(starts[-1], dtype=torch.long, device=columns[0]["input_ids"].device)
    known, together = 0, several_processes()
    for options, indexes in kinds.items():
        rows = torch.cat([torch.arange(starts[i], starts[i + 1], device=places.device) for i in indexes])
        merged = _merged([_padded_right(columns[i]) for i in indexes])
        numbers = torch.arange(len(rows), device=places.device)
        if not together:
            numbers = torch.unique(text_keys(merged), return_inverse=True)[1]
        count = int(numbers.max()) + 1
        places[rows] = known + numbers
        # (count,): where each distinct text occurs, in whichever of its rows
        occurs = torch.empty_like(numbers[:count]).scatter_(0, numbers, torch.arange(len(rows), device=places.device))
        lengths = merged["attention_mask"].sum(dim=1)[occurs]
        order = torch.argsort(lengths, stable=True)
        padding = math.inf if together or order.device.type != "cpu" else _MAX_PADDING
        for chosen in torch.split(order, _pass_sizes(lengths[order].tolist(), size, padding)):
            # A text without tokens still needs one column.
            length = max(1, int(lengths[chosen].max()))
            features = {name: tensor[occurs[chosen], :length] for name, tensor in merged.items()}
            batches.append(MicroBatch(known + chosen, {**features, **dict(options)}))
        known += count
    return MicroBatches(batches, places)


def _pass_sizes(lengths: Sequence[int], most: int, padding: float) -> list[int]:
    """Split texts, shortest first, into passes of at most `most` texts and about `padding` padding tokens."""
    sizes: list[int] = []
    # From the longest text on: what a pass is padded to is known when it begins.
    count = wasted = longest = 0
    for length in reversed(lengths):
        wasted += longest - length
        if not count or count == most or wasted > padding:
            sizes.append(0)
            count, wasted, longest = 0, 0, length
        count += 1
        sizes[-1] = count
    return sizes[::-1]


def _padded_right(column: Column) -> dict[str, Tensor]:
    """Return the (n, length) tensors of a column with the padding moved to the right."""
    tensors = {name: value for name, value in column.items() if isinstance(value, Tensor) and value.dim() == 2}
    mask = tensors["attention_mask"]
    if mask.shape[1] and not bool((mask[:, 0] == 0).any()):
        return tensors
    order = torch.argsort((mask == 0).to(torch.uint8), dim=1, stable=True)
    return {name: tensor.gather(1, order) for name, tensor in tensors.items()}


def _merged(columns: Sequence[dict[str, Tensor]]) -> dict[str, Tensor]:
    longest = max(column["input_ids"].shape[1] for column in columns)
    return {
        name: torch.cat([nn.functional.pad(column[name], (0, longest - column[name].shape[1])) for column in columns])
        for name in columns[0]
    }


def _vectors(model: nn.Module, batch: MicroBatch) -> Tensor:
    # The model adds what it computes to the dictionary that it is given.
    vectors: Tensor = model(dict(batch.features))["sentence_embedding"]
    return nn.functional.normalize(vectors.float(), dim=-1)


def _in_order(vectors: list[Tensor], batches: Sequence[MicroBatch]) -> Tensor:
    order = torch.cat([batch.rows for batch in batches])
    return torch.cat(vectors)[torch.argsort(order)]


def embed(model: nn.Module, texts: MicroBatches) -> Tensor:
    """Return the unit vectors of all texts, of shape (texts, dim) in the order of the columns, float32."""
    return _in_order([_vectors(model, batch) for batch in texts.batches], texts.batches)[texts.places]


def cached_loss(model: nn.Module, texts: MicroBatches, loss_of: Callable[[Tensor], Tensor]) -> Tensor:
    """Return a loss whose gradient is computed one micro-batch at a time (GradCache, arXiv 2101.06983).

    The texts are embedded without a graph; the loss is taken back to the vectors; when `backward` is called, each
    micro-batch is embedded again, with the random numbers of its first pass, and the gradient of its vectors goes
    back to the weights. Loss and gradients equal those of `loss_of(embed(model, texts))`; the activations of one
    micro-batch are held at a time, for about half more time.

    Args:
        model: a sentence-transformers model, possibly wrapped for several processes.
        texts: what `micro_batches` returned.
        loss_of: takes the unit vectors of shape (texts, dim) and returns a scalar.
    """
    states: list[_RandomState] = []
    parts: list[Tensor] = []
    with torch.no_grad():
        for batch in texts.batches:
            states.append(_RandomState(batch.rows.device))
            parts.append(_vectors(model, batch))
    vectors = _in_order(parts, texts.batches).requires_grad_()
    with torch.enable_grad():
        loss = loss_of(vectors[texts.places])
        (gradient,) = torch.autograd.grad(loss, vectors)
    result = loss.detach().requires_grad_()
    result.register_hook(  # type: ignore[no-untyped-call]
        partial(_backward, model=model, batches=texts.batches, states=states, gradient=gradient)
    )
    return result


def _backward(
    outer: Tensor, *, model: nn.Module, batches: Sequence[MicroBatch], states: Sequence[_RandomState], gradient: Tensor
) -> None:
    """Take the gradient of the vectors back to the weights, one micro-batch at a time."""
    last = len(batches) - 1
    for i, (batch, state) in enumerate(zip(batches, states, strict=True)):
        # Gradients of several processes are averaged once, with the last micro-batch.
        sync: contextlib.AbstractContextManager[None] = contextlib.nullcontext()
        if isinstance(model, DistributedDataParallel) and i < last:
            sync = model.no_sync()
        with sync, torch.enable_grad(), state.restored():
            torch.autograd.backward((_vectors(model, batch) * gradient[batch.rows]).sum() * outer)


class _RandomState:
    """The state of the random generators that dropout draws from, as it is now."""

    def __init__(self, device: torch.device) -> None:
        self._devices = [device] if device.type == "cuda" else []
        self._cpu = torch.get_rng_state()
        self._cuda = [torch.cuda.get_rng_state(one) for one in self._devices]

    @contextlib.contextmanager
    def restored(self) -> Iterator[None]:
        """Restore the state within the block; after it, the generators continue as if nothing had been drawn."""
        with torch.random.fork_rng(devices=self._devices):
            torch.set_rng_state(self._cpu)
            for device, state in zip(self._devices, self._cuda, strict=True):
                torch.cuda.set_rng_state(state, device)
            yield
