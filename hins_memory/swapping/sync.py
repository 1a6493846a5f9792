"""Bringing one index to the content of another under a different encoder, while writes go on, and verifying it."""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from hins_memory.common.chunks import chunks_of
from hins_memory.errors import SwapError
from hins_memory.plugins.protocols import same_record
from hins_memory.types import Progress

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from hins_memory.encoders.encoder import Encoder
    from hins_memory.plugins.protocols import Index, Record

__all__ = ["IndexReport", "IndexSync", "Progress", "compare_vectors"]

logger = logging.getLogger(__name__)


# Re-encoded samples must agree this well with what is stored; batches and threads change the last bits only.
_MIN_COSINE = 0.999
_SAMPLE = 256
# Sample size for an index that is known to be up to date except for some records.
_QUICK_SAMPLE = 16
# A record that changes while it is encoded is tried this many times before it is encoded under the lock.
_TRIES = 3
# How often a record that other processes keep changing is copied under the lock.
_ROUNDS = 3
# A write reaches both indexes within milliseconds; a difference is waited for at most 3 seconds in all.
_WAITS = 60
_WAIT_SECONDS = 0.05


@dataclass(frozen=True, slots=True)
class IndexReport:
    """What was done to one index.

    Attributes:
        kind: what the index holds, e.g. ``memories``.
        name: its name in the agent's store.
        records: how many records it has now.
        written: how many were encoded and written.
        reused: how many were there already, equal in text and payload.
        deleted: how many were deleted, because the source does not have them.
        vectors_checked: how many stored vectors were compared with re-encoded texts; 0 if a store returns none.
    """

    kind: str
    name: str
    records: int
    written: int
    reused: int
    deleted: int
    vectors_checked: int


class IndexSync:
    """Copies `source` into `target`, re-encoded; doing it again does only what is missing.

    Writes that arrive meanwhile must reach `target` too, after they reached `source`: those of this process under
    `lock`, those of other processes by the same steps as here. Texts are encoded outside the lock. Under it a record
    is written only if `source` still holds what was encoded, and is compared again afterwards, so that the last write
    into `target` is of the last state of `source`.

    Args:
        source: the index to copy from; only read.
        target: the index to bring to the same content.
        encoder: the encoder of the target's vectors.
        lock: returns a context manager that excludes other writers of the target.
        batch_size: how many records are encoded and written at a time.
        progress: told after each batch; or None.
    """

    def __init__(
        self,
        source: Index,
        target: Index,
        encoder: Encoder,
        lock: Callable[[], AbstractContextManager[object]],
        *,
        batch_size: int = 256,
        progress: Progress | None = None,
    ) -> None:
        self._source = source
        self._target = target
        self._encoder = encoder
        self._lock = lock
        self._batch_size = batch_size
        self._progress = progress
        self._written = self._reused = self._deleted = 0

    def run(self, only: Sequence[str] | None = None) -> IndexReport:
        """Copy, delete surplus records, and verify counts, ids, payloads and a sample of vectors.

        Args:
            only: the ids of all records that can differ; None means that they are not known. If given, only those and
                a sample are compared, unless something else turns out to differ.

        Raises:
            SwapError: the target's content still differs from the source's.
        """
        if only is not None and (checked_vectors := self._copy_ids(only)) is not None:
            return self._report(checked_vectors)
        self._copy(reuse=True)
        sample = self._compare()
        checked, wrong = self._check_vectors(sample)
        if wrong:
            # Something else wrote into the target, e.g. a damaged earlier attempt: trust none of its vectors.
            logger.warning("%d of %d sampled vectors of %s are stale", wrong, checked, self._target.name)
            self._copy(reuse=False)
            sample = self._compare()
            checked, wrong = self._check_vectors(sample)
        if wrong:
            raise SwapError(
                f"{wrong} of {checked} sampled vectors in {self._target.name} are not what the encoder "
                f"{self._encoder.version} makes of their texts.",
                "The store may alter vectors, or something else writes into that index.",
            )
        return self._report(checked)

    def _report(self, checked: int) -> IndexReport:
        return IndexReport(
            kind=self._target.kind,
            name=self._target.name,
            records=self._equal_count(),
            written=self._written,
            reused=self._reused,
            deleted=self._deleted,
            vectors_checked=checked,
        )

    def _copy_ids(self, ids: Sequence[str]) -> int | None:
        """Copy these records, and compare a sample of all.

        Returns:
            How many vectors were checked; None when more differs than these records.
        """
        self._reconcile(ids)
        for batch in chunks_of(ids, self._batch_size):
            self._await_equal(batch)
        sample = next(self._source.pages(_QUICK_SAMPLE), [])
        differing = self._differing(sample)
        checked, wrong = self._check_vectors([*ids[:_SAMPLE], *(record.id for record in sample)])
        with self._lock():
            records, target_count = self._source.count(), self._target.count()
        if differing or wrong or records != target_count:
            logger.warning("%s differs in more than was noted, and is compared as a whole", self._target.name)
            return None
        self._reused += records - self._written
        return checked

    def _copy(self, *, reuse: bool) -> None:
        changed: list[str] = []
        for page in self._with_progress("build", self._source.pages(self._batch_size)):
            todo = self._differing(page) if reuse else page
            self._reused += len(page) - len(todo)
            changed += self._write(todo)
        self._reconcile(changed)
        self._reconcile(self._extras())

    def _differing(self, page: Sequence[Record]) -> list[Record]:
        """Return the records that the target lacks or holds with another text or payload."""
        stored = {record.id: record for record in self._target.get([record.id for record in page])}
        return [record for record in page if not same_record(stored.get(record.id), record)]

    def _extras(self) -> list[str]:
        """Return the ids that only the target has."""
        extras: list[str] = []
        for page in self._target.pages(self._batch_size):
            ids = [record.id for record in page]
            kept = {record.id for record in self._source.get(ids)}
            extras += [id for id in ids if id not in kept]
        return extras

    def _write(self, records: Sequence[Record]) -> list[str]:
        """Encode and write records; return the ids of those that changed in the source meanwhile."""
        if not records:
            return []
        # (len(records), dim)
        vectors = self._encoder.encode([record.text for record in records], role="document")
        with self._lock():
            rows = self._unchanged(records)
            if rows:
                self._target.upsert([records[row] for row in rows], vectors[rows])
            # Other processes do not use this lock: a record that one changed just now may have been overwritten.
            still = {records[row].id for row in self._unchanged([records[row] for row in rows], rows)}
        self._written += len(rows)
        return [record.id for record in records if record.id not in still]

    def _unchanged(self, records: Sequence[Record], rows: Sequence[int] | None = None) -> list[int]:
        """Return the rows (by default counted from 0) of those records that are unchanged in the source."""
        fresh = {record.id: record for record in self._source.get([record.id for record in records])}
        numbers = range(len(records)) if rows is None else rows
        return [row for row, record in zip(numbers, records, strict=True) if same_record(fresh.get(record.id), record)]

    def _reconcile(self, ids: Sequence[str]) -> None:
        """Copy single records until they agree, even if they change meanwhile."""
        for batch in chunks_of(ids, self._batch_size):
            left = batch
            for _ in range(_TRIES):
                records = self._source.get(left)
                returned = self._delete(set(left).difference(record.id for record in records))
                left = [*self._write(self._differing(records)), *returned]
                if not left:
                    break
            else:
                self._write_under_lock(left)

    def _write_under_lock(self, ids: Sequence[str]) -> None:
        """Copy records that keep changing, while other writers of this process wait."""
        with self._lock():
            for _ in range(_ROUNDS):
                records = self._source.get(ids)
                if records:
                    self._target.upsert(records, self._encoder.encode([record.text for record in records]))
                gone = set(ids).difference(record.id for record in records)
                self._target.delete(gone)
                self._written += len(records)
                if len(self._unchanged(records)) == len(records) and not self._source.get(sorted(gone)):
                    return
            # What still differs is found when the indexes are compared.

    def _delete(self, ids: set[str]) -> list[str]:
        """Delete records that the source does not have; return the ids of those that came back meanwhile."""
        if not ids:
            return []
        with self._lock():
            # Looked up again under the lock: a record may have come back.
            gone = sorted(ids.difference(record.id for record in self._source.get(sorted(ids))))
            present = [record.id for record in self._target.get(gone)]
            if present:
                self._target.delete(present)
            returned = [record.id for record in self._source.get(present)]
        self._deleted += len(present)
        return returned

    def _compare(self) -> list[str]:
        """Compare every id, text and payload, repair what differs, and return a sample of ids."""
        draw = random.Random(0)
        sample: list[str] = []
        differing: list[str] = []
        seen = 0
        for page in self._with_progress("verify", self._source.pages(self._batch_size)):
            differing += [record.id for record in self._differing(page)]
            for record in page:
                # reservoir sampling: every record is as likely, and memory does not grow with their number
                seen += 1
                if len(sample) < _SAMPLE:
                    sample.append(record.id)
                elif (place := draw.randrange(seen)) < _SAMPLE:
                    sample[place] = record.id
        differing += self._extras()
        self._reconcile(differing)
        for batch in chunks_of(differing, self._batch_size):
            self._await_equal(batch)
        self._equal_count()
        return sample

    def _await_equal(self, ids: Sequence[str]) -> None:
        """Wait until both indexes agree on these ids; a write reaches them one after the other."""
        left = set(ids)
        for _ in range(_WAITS):
            with self._lock():
                wanted = {record.id: record for record in self._source.get(sorted(left))}
                stored = {record.id: record for record in self._target.get(sorted(left))}
            left = {id for id in left if not same_record(wanted.get(id), stored.get(id))}
            if not left:
                return
            time.sleep(_WAIT_SECONDS)
        raise SwapError(
            f"{len(left)} records of {self._target.name} differ from those of {self._source.name}, "
            f"e.g. {sorted(left)[0]!r}.",
            "The store may drop or alter what is written.",
        )

    def _equal_count(self) -> int:
        for _ in range(_WAITS):
            with self._lock():
                source_count, target_count = self._source.count(), self._target.count()
            if source_count == target_count:
                return target_count
            time.sleep(_WAIT_SECONDS)
        raise SwapError(
            f"{self._target.name} holds {target_count} records, but {self._source.name} holds {source_count}.",
            "The store may drop or alter what is written.",
        )

    def _check_vectors(self, ids: Sequence[str]) -> tuple[int, int]:
        """Return how many stored vectors were checked, and how many of them are wrong."""
        checked = wrong = 0
        for batch in chunks_of(ids, self._batch_size):
            with self._lock():
                records = self._target.get(batch)
                stored = self._target.vectors([record.id for record in records])
            of_batch = compare_vectors(records, stored, self._encoder)
            checked, wrong = checked + of_batch[0], wrong + of_batch[1]
        return checked, wrong

    def _with_progress(self, what: str, pages: Iterator[list[Record]]) -> Iterator[list[Record]]:
        """Yield the pages and report progress after each."""
        total, done = self._source.count(), 0
        for page in pages:
            yield page
            done += len(page)
            if self._progress is not None:
                self._progress(f"{what} {self._target.kind}", done, max(total, done))


def compare_vectors(
    records: Sequence[Record], stored: Mapping[str, NDArray[np.float32]], encoder: Encoder
) -> tuple[int, int]:
    """Compare stored vectors by id, each of shape (dim,), with what an encoder makes of their records' texts.

    Returns:
        How many records have a stored vector, and how many of those vectors are wrong.
    """
    records = [record for record in records if record.id in stored]
    if not records:
        return 0, 0
    # both (len(records), dim)
    expected = encoder.encode([record.text for record in records], role="document")
    found = np.stack([stored[record.id] for record in records])
    if found.shape != expected.shape:
        return len(records), len(records)
    # "not >=" counts NaN, which a vector of zeros or of NaN gives, as wrong
    return len(records), int((~(_cosines(found, expected) >= _MIN_COSINE)).sum())


def _cosines(stored: NDArray[np.float32], expected: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the cosine of each pair of rows; `expected` has unit rows. Another dimension gives NaN."""
    if stored.shape != expected.shape:
        return np.full(len(expected), np.nan, dtype=np.float32)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray((stored * expected).sum(axis=1) / np.linalg.norm(stored, axis=1))
