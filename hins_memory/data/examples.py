"""Tiered training examples as a Parquet file: what the miner writes is what training reads."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hins_memory.errors import HinsError, NotEnoughDataError
from hins_memory.types import Negative, Positive, PositiveSource, Scope, Tier, TieredExample

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["read_examples", "without_surrogates", "write_examples"]

# A row group; at most this many examples are held at a time.
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


def write_examples(
    path: Path, examples: Iterable[TieredExample], report: Callable[[], Mapping[str, Any]] | None = None
) -> None:
    """Write examples to a file, at most 1,000 of them in memory at a time; the file is durable at the end.

    Args:
        path: the file; one that is there is overwritten.
        examples: what is written, in order. Lone surrogates, which UTF-8 cannot encode, become ``?``.
        report: called after the last example; the JSON-able values that it returns are kept in the file's metadata.

    Raises:
        OSError: the file cannot be written.
    """
    import pyarrow.parquet as pq

    with path.open("wb") as stream:
        with pq.ParquetWriter(stream, _schema(), compression="zstd") as writer:
            batch: list[TieredExample] = []
            for example in examples:
                batch.append(example)
                if len(batch) == _ROWS:
                    writer.write_table(_table(batch))
                    batch.clear()
            if batch:
                writer.write_table(_table(batch))
            if report is not None:
                writer.add_key_value_metadata({_REPORT: json.dumps(report()).encode()})
        stream.flush()
        os.fsync(stream.fileno())


def _table(examples: Sequence[TieredExample]) -> pa.Table:
    import pyarrow as pa

    return pa.Table.from_pylist([_row(example) for example in examples], schema=_schema())


def _row(example: TieredExample) -> dict[str, Any]:
    scope, positive = example.scope, example.positive
    return {
        "tenant": without_surrogates(scope.tenant),
        "user": without_surrogates(scope.user),
        "agent": without_surrogates(scope.agent),
        "run": without_surrogates(scope.run),
        "conversation": without_surrogates(example.conversation),
        "query": without_surrogates(positive.query),
        "positive": without_surrogates(positive.text),
        "positive_id": without_surrogates(positive.memory_id),
        "source": positive.source,
        "confidence": positive.confidence,
        "retrieval_id": without_surrogates(positive.retrieval_id),
        "negatives": [
            {
                "memory_id": without_surrogates(negative.memory_id),
                "text": without_surrogates(negative.text),
                "tier": negative.tier.value,
                "score": negative.score,
            }
            for negative in example.negatives
        ],
    }


def read_examples(path: Path) -> Iterator[TieredExample]:
    """Yield the examples of a file that `write_examples` wrote, in its order, a batch in memory at a time.

    Raises:
        NotEnoughDataError: there is no such file.
        HinsError: it is not a file of examples.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = Path(path)
    if not path.is_file():
        raise NotEnoughDataError(
            f"There is no file {path}.", "Write it with `hins mine --output` or mine_to_parquet first."
        )
    try:
        with pq.ParquetFile(path) as file:
            if file.schema_arrow.names != _schema().names:
                raise HinsError(
                    f"{path} has other columns than a file of examples.",
                    "Use one that `hins mine` or mine_to_parquet wrote.",
                )
            for batch in file.iter_batches(batch_size=_ROWS):
                yield from (_example(row) for row in batch.to_pylist())
    except (pa.ArrowException, OSError, ValueError) as error:
        raise HinsError(f"{path} cannot be read: {error}.", "Write it again.") from error


def _example(row: dict[str, Any]) -> TieredExample:
    negatives = (
        Negative(negative["memory_id"], negative["text"], Tier(negative["tier"]), negative["score"])
        for negative in row["negatives"]
    )
    # Version 0.1 wrote "missed" for "unretrieved".
    source: PositiveSource = "unretrieved" if row["source"] == "missed" else row["source"]
    positive = Positive(
        row["query"], row["positive_id"], row["positive"], source, row["confidence"], row["retrieval_id"]
    )
    scope = Scope(user=row["user"], agent=row["agent"], run=row["run"], tenant=row["tenant"])
    return TieredExample(scope, row["conversation"], positive, tuple(negatives))


def without_surrogates(text: str) -> str:
    """Return the text with ``?`` for every surrogate: UTF-8, and with it tables and tokenizers, take none."""
    return text.encode("utf-8", "replace").decode("utf-8")
