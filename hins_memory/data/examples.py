"""Tiered training examples as a Parquet file: what the miner writes is what training reads."""

from __future__ import annotations

import itertools
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
# Columns with few different values; a dictionary of texts that differ would cost time and be given up.
_REPEATED = ["tenant", "user", "agent", "run", "conversation", "source", "negatives.list.element.tier"]


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
        with pq.ParquetWriter(stream, _schema(), compression="zstd", use_dictionary=_REPEATED) as writer:
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

    schema = _schema()
    scopes, positives = [one.scope for one in examples], [one.positive for one in examples]
    negatives = [one for example in examples for one in example.negatives]
    columns: dict[str, Sequence[Any]] = {
        "tenant": [one.tenant for one in scopes],
        "user": [one.user for one in scopes],
        "agent": [one.agent for one in scopes],
        "run": [one.run for one in scopes],
        "conversation": [one.conversation for one in examples],
        "query": [one.query for one in positives],
        "positive": [one.text for one in positives],
        "positive_id": [one.memory_id for one in positives],
        "source": [one.source for one in positives],
        "confidence": [one.confidence for one in positives],
        "retrieval_id": [one.retrieval_id for one in positives],
    }
    arrays = {name: _array(values, schema.field(name).type) for name, values in columns.items()}
    # Column by column: a dictionary for each negative would cost more than all the rest.
    fields = schema.field("negatives").type.value_type
    values: tuple[Sequence[Any], ...] = (
        [one.memory_id for one in negatives],
        [one.text for one in negatives],
        [one.tier for one in negatives],
        [one.score for one in negatives],
    )
    parts = [_array(part, field.type) for part, field in zip(values, fields, strict=True)]
    ends = itertools.accumulate((len(one.negatives) for one in examples), initial=0)
    arrays["negatives"] = pa.ListArray.from_arrays(
        pa.array(ends, pa.int32()), pa.StructArray.from_arrays(parts, fields=list(fields))
    )
    return pa.table(arrays, schema=schema)


def _array(values: Sequence[Any], kind: pa.DataType) -> pa.Array:
    import pyarrow as pa

    try:
        return pa.array(values, kind)
    except UnicodeEncodeError:
        return pa.array([without_surrogates(text) for text in values], kind)


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
    return text if text.isascii() else text.encode("utf-8", "replace").decode("utf-8")
