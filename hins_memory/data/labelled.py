"""The user's own labelled data, without an agent: questions with the texts that answer them, from a file or rows."""

from __future__ import annotations

import csv
import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from hins_memory.errors import ConfigError, NotEnoughDataError
from hins_memory.types import Feedback, Memory, RankedMemory, Retrieval, Scope, ScopeLog, name_of

__all__ = ["COLUMNS", "Rows", "logs_of", "read_rows"]

#: What a row may have. `positive` is needed, and `query` in every row that is a question.
COLUMNS = ("query", "positive", "conversation", "speaker", "topic", "user", "time")
#: A file, or anything that yields mappings: a list of dictionaries, a `datasets.Dataset`, `csv.DictReader`.
Rows = str | Path | Iterable[Mapping[str, Any]]


def read_rows(data: Rows) -> Iterator[dict[str, str]]:
    """Yield rows as texts, with every column of `COLUMNS`; columns that are missing are "".

    Args:
        data: a ``.csv``, ``.jsonl`` or ``.parquet`` file in UTF-8, or rows.

    Raises:
        ConfigError: the file or a row cannot be used; says which row.
        NotEnoughDataError: there is no such file.
    """
    number = 0
    for number, row in enumerate(_raw(data), 1):
        if not isinstance(row, Mapping):
            raise ConfigError(f"Row {number} is not a mapping of columns but {type(row).__name__}.", _HELP)
        values = {name: _text(row.get(name), name, number) for name in COLUMNS}
        if not values["positive"].strip():
            raise ConfigError(f"Row {number} has no text in the column `positive`.", _HELP)
        yield values
    if not number:
        raise NotEnoughDataError("There are no rows.", _HELP)


_HELP = (
    "Each row needs `positive` (a text that can be found), and `query` where it answers a question; "
    "`conversation`, `speaker`, `topic`, `user` and `time` are optional."
)


def _raw(data: Rows) -> Iterator[Any]:
    if not isinstance(data, (str, Path)):
        yield from data
        return
    path = Path(data)
    if not path.is_file():
        raise NotEnoughDataError(f"There is no file {path}.", "Give a .csv, .jsonl or .parquet file.")
    readers = {".csv": _csv, ".jsonl": _jsonl, ".parquet": _parquet}
    if path.suffix.lower() not in readers:
        raise ConfigError(f"{path} is of no kind that can be read.", "Give a .csv, .jsonl or .parquet file.")
    try:
        yield from readers[path.suffix.lower()](path)
    except (OSError, ValueError, csv.Error) as error:
        raise ConfigError(f"{path} cannot be read: {error}", "Write it in UTF-8, one row a record.") from error


def _csv(path: Path) -> Iterator[Any]:
    # The csv module's default limit is 128 KiB for a field; a turn may be longer.
    csv.field_size_limit(1 << 26)
    with path.open(encoding="utf-8-sig", newline="") as stream:
        yield from csv.DictReader(stream)


def _jsonl(path: Path) -> Iterator[Any]:
    with path.open(encoding="utf-8-sig") as stream:
        # Iterating the file breaks at "\n" alone, unlike str.splitlines.
        yield from (json.loads(line) for line in stream if line.strip())


def _parquet(path: Path) -> Iterator[Any]:
    import pyarrow.parquet as pq

    with pq.ParquetFile(path) as file:
        for batch in file.iter_batches(batch_size=1_000):
            yield from batch.to_pylist()


def _text(value: Any, column: str, number: int) -> str:
    if value is None:
        return ""
    if isinstance(value, (list, dict)):
        raise ConfigError(f"Row {number} has no single value in the column `{column}`.", _HELP)
    return str(value)


def logs_of(rows: Iterable[Mapping[str, str]]) -> list[ScopeLog]:
    """Return the rows as logs: each text is a memory, each query a retrieval with positive feedback on its memories.

    Args:
        rows: as `read_rows` yields them. A row without a query is a memory that answers no question.
            Equal texts of a speaker in a conversation are one memory.

    Returns:
        One log a user, in the order in which users come; each text of a user is a memory, in the order of the rows
        where no time is given.

    Raises:
        ConfigError: a user cannot be a name, or a time is not a number.
    """
    memories: dict[Scope, dict[str, Memory]] = {}
    positives: dict[Scope, dict[str, list[str]]] = {}
    for number, row in enumerate(rows, 1):
        scope = Scope(user=_name(row["user"] or "labelled", number))
        memory = _memory(scope, row, number)
        memory = memories.setdefault(scope, {}).setdefault(memory.id, memory)
        if row["query"].strip():
            positives.setdefault(scope, {}).setdefault(row["query"], []).append(memory.id)
    return [_log(scope, of_user, positives.get(scope, {})) for scope, of_user in memories.items()]


def _log(scope: Scope, memories: Mapping[str, Memory], positives: Mapping[str, list[str]]) -> ScopeLog:
    last = max(memory.time for memory in memories.values())
    retrievals, feedback = [], []
    for number, (query, memory_ids) in enumerate(positives.items()):
        results = tuple(RankedMemory(name, memories[name].text, 1.0) for name in dict.fromkeys(memory_ids))
        retrieval = Retrieval(scope, query, results, time=last + 1 + number, id=f"q{number}")
        retrievals.append(retrieval)
        feedback += [Feedback(result.memory_id, "POSITIVE", retrieval.id, retrieval.time) for result in results]
    ordered = sorted(memories.values(), key=lambda memory: memory.time)
    return ScopeLog(scope, memories=tuple(ordered), retrievals=tuple(retrievals), feedback=tuple(feedback))


def _memory(scope: Scope, row: Mapping[str, str], number: int) -> Memory:
    try:
        time = float(row["time"]) if row["time"] else float(number)
    except ValueError as error:
        raise ConfigError(
            f"Row {number} has the time {row['time']!r}.", "Give seconds since 1970 as a number, or leave it out."
        ) from error
    parts = (row["conversation"], row["speaker"], row["positive"])
    name = hashlib.sha256("\x00".join(parts).encode("utf-8", "surrogatepass")).hexdigest()[:32]
    return Memory(name, scope, row["conversation"], row["positive"], row["speaker"], topic=row["topic"], time=time)


def _name(user: str, number: int) -> str:
    name = name_of(user)
    if not name:
        raise ConfigError(f"Row {number} has the user {user!r}, which cannot be a name.", "Give a text.")
    return name
