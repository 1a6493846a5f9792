"""Mining straight into a Parquet file, for logs of any size."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from hins_memory.data.examples import write_examples
from hins_memory.errors import HinsError
from hins_memory.mining.miner import MinedPart, MinerRun
from hins_memory.mining.report import MineReport
from hins_memory.mining.settings import MineSettings
from hins_memory.mining.storage.evidence import OwnerEvidence
from hins_memory.types import ScopeLog

if TYPE_CHECKING:
    from hins_memory.encoders.encoder import Encoder

__all__ = ["mine_to_parquet"]


def mine_to_parquet(
    logs: Iterable[ScopeLog | OwnerEvidence | MinedPart],
    encoder: Encoder,
    path: Path,
    settings: MineSettings | None = None,
    public: Sequence[str] | None = None,
) -> MineReport:
    """Turn captured interactions into tiered training examples, streamed to a Parquet file.

    Memory stays within one owner's log and `MineSettings.memory_budget`. While it runs, the folder ``PATH.work`` keeps
    the examples of finished owners: after a kill, the same call continues, and only owners that were not finished,
    or have changed, are mined. The file appears at its path complete or not at all, and equals that of an undisturbed
    run. The other arguments and the examples are those of `mine`.

    Args:
        logs: what the log holds of each owner, or the evidence that was made of it, or parts that other runs have
            mined; read once, one at a time.
        encoder: the current encoder; its `version` tells whether earlier work can be taken up.
        path: the file; one that is there is replaced at the end.
        settings: what is kept and how it is sampled.
        public: texts that belong to no user.

    Raises:
        EncoderError: the encoder cannot encode.
        HinsError: the disk is full or not writable, or another process mines into the same file.
    """
    path = Path(path)
    work = path.with_name(f"{path.name}.work")
    with _disk_errors(path):
        work.mkdir(parents=True, exist_ok=True)
        with MinerRun(encoder, settings or MineSettings(), public or (), work) as run:
            # The store is locked now: these are not of a process that still runs.
            _remove_leftovers(work)
            for owner in logs:
                run.add(owner)
            temporary = work / "examples.parquet"
            write_examples(temporary, run.examples(), lambda: run.report().to_dict())
            report = run.report()
            os.replace(temporary, path)
        shutil.rmtree(work, ignore_errors=True)
    return report


def _remove_leftovers(work: Path) -> None:
    """Remove the vectors of owners that a killed run was at; the store says what is done."""
    for leftover in work.glob("vectors-*"):
        shutil.rmtree(leftover, ignore_errors=True)


@contextlib.contextmanager
def _disk_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise HinsError(
            f"{path} cannot be written: {error}.",
            "Free some disk space or choose another place, and run again: finished owners are kept.",
        ) from error
