"""sentence-transformers' trainer, with full batches in a fixed order and checkpoints of what is trained only."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from sentence_transformers import SentenceTransformerTrainer
from torch.utils.data import BatchSampler, SequentialSampler

from hins_memory.errors import TrainingError
from hins_memory.training.fit.dataset import batch_stream
from hins_memory.training.fit.processes import process_count

__all__ = ["TieredTrainer"]

_WEIGHTS = "trained.safetensors"


class _StreamSampler(BatchSampler):
    """The batches of a whole run, see `batch_stream`; accelerate deals them to the processes in turn."""

    def __init__(self, examples: int, size: int, count: int, seed: int) -> None:
        super().__init__(SequentialSampler(range(examples)), size, drop_last=False)
        self._arguments = (examples, size, count, seed)

    def __iter__(self) -> Any:
        return batch_stream(*self._arguments)

    def __len__(self) -> int:
        return self._arguments[2]


class TieredTrainer(SentenceTransformerTrainer):  # type: ignore[misc]
    """A trainer whose run can be cut anywhere and continued: the same batches, and small checkpoints."""

    def get_batch_sampler(self, dataset: Any, batch_size: int, *args: Any, **kwargs: Any) -> Any:
        """Return the batches of all steps and processes."""
        count = self.args.max_steps * process_count()
        return _StreamSampler(len(dataset), batch_size, count, self.args.seed)

    def _save_checkpoint(self, *args: Any, **kwargs: Any) -> None:
        try:
            super()._save_checkpoint(*args, **kwargs)
        except (OSError, RuntimeError, SafetensorError) as error:
            raise TrainingError(
                f"A checkpoint could not be written to {self.args.output_dir}: {error}",
                "Free disk space; then `hins train --resume` continues from the one before.",
            ) from error

    def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:
        """Write the weights that are trained: the others are those of the base."""
        folder = Path(output_dir or self.args.output_dir)
        folder.mkdir(parents=True, exist_ok=True)
        tensors = {name: one.detach().contiguous() for name, one in self._trained().items()}
        save_file(tensors, folder / _WEIGHTS)

    def _load_from_checkpoint(self, checkpoint_path: str, model: Any = None) -> None:
        tensors = load_file(Path(checkpoint_path) / _WEIGHTS)
        trained = self._trained()
        if tensors.keys() != trained.keys():
            raise TrainingError(f"{checkpoint_path} is of another training.", "Start anew, without --resume.")
        with torch.no_grad():
            for name, weight in trained.items():
                weight.copy_(tensors[name])

    def _trained(self) -> dict[str, torch.nn.Parameter]:
        return {name: one for name, one in self.model.named_parameters() if one.requires_grad}
