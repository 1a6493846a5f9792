"""Mining straight into a Parquet file, for logs of any size; and reading it back."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hins_memory.errors import HinsError, NotEnoughDataError
from hins_memory.mining.miner import MinerRun
from hins_memory.mining.report import MineReport
from hins_memory.mining.settings import MineSettings
from hins_memory.types import Negative, Positive, Scope, ScopeLog, Tier, TieredExample

if TYPE_CHECKING:
    import pyarrow as pa

    from hins_memory.encoders.encoder import Encoder

__all__ = ["mine_to_parquet", "read_examples"]

# A row group; so many examples are held at a time.
_ROWS = 1_000
_REPORT = b"hins_report"


def _schema() -> pa.Schema:
    import pyarrow as pa

    negative = pa.struct(
        [("memory_id", pa.string()), ("text", pa.string()), ("tier", pa.string()), ("score", pa.float64())]
    )
    texts = ("tenant", "user", "agent", "run", "conversation", "query", "positive", "positive_id", "source")
    columns = [(name, pa.string()) for name in texts]
    columns += [("confidence", pa.float64()), ("retrieval_id", pa.string()), ("negatives", pa.list_(negative))]
    return pa.schema(columns)


def mine_to_parquet(
    logs: Iterable[ScopeLog],
    encoder: Encoder,
    path: Path,
    settings: MineSettings | None = None,
    public: Sequence[str] | None = None,
) -> MineReport:
    """Turn captured interactions into tiered training examples, streamed to a Parquet file.

    Memory stays within the owner at hand and `MineSettings.memory_budget`. While it runs, the folder ``PATH.work``
    keeps what finished owners gave: after a kill, the same call takes it up, and only owners that were not finished,
    or have changed, are mined. The file appears at its path complete or not at all, and equals that of an undisturbed
    run. The other arguments and the examples are those of `mine`.

    Args:
        logs: what the log holds of each owner; read once, one owner at a time.
        encoder: the current encoder; its `version` tells whether earlier work can be taken up.
        path: the file; one that is there is replaced at the end.
        settings: what is kept and how it is sampled.
        public: texts that belong to nobody.

    Raises:
        EncoderError: the encoder cannot encode.
        HinsError: the disk is full or not writable, or another process mines into the same file.
    """
    path = Path(path)
    work = path.with_name(f"{path.name}.work")
    with _disk_errors(path):
        work.mkdir(parents=True, exist_ok=True)
        with MinerRun(encoder, settings or MineSettings(), public or (), work) as run:
            # The journal is locked now: these are not of a process that still runs.
            _remove_leftovers(work)
            for log in logs:
                run.add(log)
            temporary = work / "examples.parquet"
            report = _write(run, temporary)
            os.replace(temporary, path)
        shutil.rmtree(work, ignore_errors=True)
    return report


def _remove_leftovers(work: Path) -> None:
    """Remove the vectors of owners that a killed run was at; the journal says what is done."""
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


def _write(run: MinerRun, path: Path) -> MineReport:
    import pyarrow.parquet as pq

    with path.open("wb") as stream:
        with pq.ParquetWriter(stream, _schema(), compression="zstd") as writer:
            batch: list[TieredExample] = []
            for example in run.examples():
                batch.append(example)
                if len(batch) == _ROWS:
                    writer.write_table(_table(batch))
                    batch.clear()
            if batch:
                writer.write_table(_table(batch))
            report = run.report()
            writer.add_key_value_metadata({_REPORT: json.dumps(report.to_dict()).encode()})
        stream.flush()
        os.fsync(stream.fileno())
    return report


def _table(examples: Sequence[TieredExample]) -> pa.Table:
    import pyarrow as pa

    return pa.Table.from_pylist([_row(example) for example in examples], schema=_schema())


def _row(example: TieredExample) -> dict[str, Any]:
    scope, positive = example.scope, example.positive
    return {
        "tenant": _text(scope.tenant),
        "user": _text(scope.user),
        "agent": _text(scope.agent),
        "run": _text(scope.run),
        "conversation": _text(example.conversation),
        "query": _text(positive.query),
        "positive": _text(positive.text),
        "positive_id": _text(positive.memory_id),
        "source": positive.source,
        "confidence": positive.confidence,
        "retrieval_id": _text(positive.retrieval_id),
        "negatives": [
            {"memory_id": _text(one.memory_id), "text": _text(one.text), "tier": one.tier.value, "score": one.score}
            for one in example.negatives
        ],
    }


def _text(text: str) -> str:
    """Return the text without lone surrogates, which UTF-8 has not."""
    return text.encode("utf-8", "replace").decode("utf-8")


def read_examples(path: Path) -> Iterator[TieredExample]:
    """Yield the examples of a file that `mine_to_parquet` wrote, in its order, a batch in memory at a time.

    Raises:
        NotEnoughDataError: there is no such file.
        HinsError: it is not a file of examples.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = Path(path)
    if not path.is_file():
        raise NotEnoughDataError(f"There is no file {path}.", "Write it with mine_to_parquet first.")
    try:
        with pq.ParquetFile(path) as file:
            if file.schema_arrow.names != _schema().names:
                raise HinsError(f"{path} has other columns than a file of examples.", "Use one of mine_to_parquet's.")
            for batch in file.iter_batches(batch_size=_ROWS):
                yield from (_example(row) for row in batch.to_pylist())
    except (pa.ArrowException, OSError, ValueError) as error:
        raise HinsError(f"{path} cannot be read: {error}.", "Write it with mine_to_parquet again.") from error


def _example(row: dict[str, Any]) -> TieredExample:
    negatives = (Negative(one["memory_id"], one["text"], Tier(one["tier"]), one["score"]) for one in row["negatives"])
    positive = Positive(
        row["query"], row["positive_id"], row["positive"], row["source"], row["confidence"], row["retrieval_id"]
    )
    scope = Scope(user=row["user"], agent=row["agent"], run=row["run"], tenant=row["tenant"])
    return TieredExample(scope, row["conversation"], positive, tuple(negatives))
