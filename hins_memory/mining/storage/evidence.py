"""The evidence of each owner, made once: its memories as the miner sees them, and what the log says of each query.

Mining, held-out sets and the gate all read it, so that a round reads the log, embeds and attributes once. An
`EvidenceStore` keeps it in a folder; memory holds one owner at a time.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hins_memory.common.chunks import chunks_of
from hins_memory.mining.owner.owner import OwnerMemories, build_owner, owner_of
from hins_memory.mining.owner.stored import StoredFirst, StoredMemories
from hins_memory.mining.owner.text import clean, normalized
from hins_memory.mining.owner.vectors import VectorFolder, few_threads
from hins_memory.mining.positives.evidence import QueryEvidence
from hins_memory.mining.positives.find import find_positives
from hins_memory.mining.settings import MineSettings
from hins_memory.mining.storage.work_file import (
    ascii_json,
    open_finished_file,
    open_work_file,
    take_up,
    work_file_errors,
)
from hins_memory.types import Memory, Positive, Scope, ScopeLog

if TYPE_CHECKING:
    from hins_memory.encoders.encoder import Encoder

__all__ = ["EvidenceStore", "OwnerEvidence", "collect", "content_digest", "digest_of"]

# Part of the store's identity: evidence that an older version made is not reused.
_VERSION = 2
# Strings that a digest takes at a time.
_DIGESTED = 1_000
_SCHEMA = """
CREATE TABLE IF NOT EXISTS identity (value TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS owners (
    id INTEGER PRIMARY KEY, key TEXT NOT NULL UNIQUE, content TEXT NOT NULL, body TEXT NOT NULL, vectors BLOB,
    position INTEGER);
"""


@dataclass(frozen=True, slots=True)
class OwnerEvidence:
    """What the log says of one owner.

    Attributes:
        scope: the owner.
        conversations: the time of the last turn or memory of each, in seconds since the Unix epoch (UTC).
        memories: how many memories the log holds.
        deleted: how many memories were deleted.
        owner: the memories with their vectors; None for an owner without retrievals, whose texts are not encoded.
        queries: the evidence of each distinct query, its rows those of `owner`.
        skipped: what was left out, by reason.
        content: a digest of what all this was made of.
    """

    scope: Scope
    conversations: Mapping[str, float]
    memories: int
    deleted: int = 0
    owner: OwnerMemories | None = None
    queries: tuple[QueryEvidence, ...] = ()
    skipped: Counter[str] = field(default_factory=Counter)
    content: str = ""

    def without(
        self, conversations: Collection[str], retrievals: Collection[str], folder: VectorFolder
    ) -> OwnerEvidence:
        """Return the evidence without some conversations, and without positives of some retrievals.

        Args:
            conversations: names of conversations; their memories go.
            retrievals: ids of retrievals; queries that have a positive from one of them go.
            folder: where the vectors of very many memories go.

        Raises:
            HinsError: the disk has no room for the vectors.
        """
        import numpy as np

        gone = set(conversations) & self.conversations.keys()
        if not gone:
            return self
        parts = [self.content, *sorted(gone), "", *sorted(retrievals)]
        left = {name: time for name, time in self.conversations.items() if name not in gone}
        kept = replace(self, conversations=left, content=digest_of(parts))
        if self.owner is None:
            return kept
        inside = np.asarray([memory.conversation not in gone for memory in self.owner.memories], dtype=bool)
        rows = np.flatnonzero(inside)
        new_rows = {row: new for new, row in enumerate(rows.tolist())}
        queries = tuple(
            _renumbered(query, new_rows)
            for query in self.queries
            if not any(positive.retrieval_id in retrievals for positive in query.positives.values())
        )
        return replace(kept, memories=len(rows), owner=self.owner.kept(rows, folder), queries=queries)


def _renumbered(query: QueryEvidence, rows: Mapping[int, int]) -> QueryEvidence:
    """Return the evidence with other row numbers; rows without a new number are dropped."""
    return QueryEvidence(
        query.query,
        {rows[row]: positive for row, positive in query.positives.items() if row in rows},
        {rows[row] for row in query.rejected if row in rows},
        {rows[row] for row in query.plausible if row in rows},
        query.answered,
    )


def collect(log: ScopeLog, encoder: Encoder, settings: MineSettings, folder: VectorFolder | None) -> OwnerEvidence:
    """Make the evidence of one owner.

    Args:
        log: what the log holds of the owner.
        encoder: gives the memories their vectors, and compares answers with them.
        settings: the miner's; they decide what counts as a positive.
        folder: where the vectors of very many memories go; None keeps them in memory however many they are.

    Raises:
        EncoderError: the encoder cannot encode.
        HinsError: the disk has no room for the vectors.
    """
    evidence = OwnerEvidence(log.scope, log.conversations(), len(log.memories), log.deleted)
    if not log.retrievals and not settings.share_scopes:
        # Encoding is slow, and an owner without retrievals gives no examples.
        return replace(evidence, skipped=Counter({"owners without retrievals": 1}))
    skipped: Counter[str] = Counter()
    with few_threads(len(log.memories)):
        owner = build_owner(log, encoder, skipped, folder)
        queries = tuple(find_positives(log, owner, encoder, settings, skipped))
    return replace(evidence, owner=owner, queries=queries, skipped=skipped)


class EvidenceStore:
    """The evidence of many owners in one SQLite file of a folder; very large owners' vectors are files beside it.

    A store that is opened again with the same encoder and settings keeps what it has: an owner whose log is the same
    is not worked on again. It holds texts of the log, so that only its owner may read the folder.

    Args:
        folder: the folder, made if it is not there.
        encoder: the encoder that serves.
        settings: the miner's.
        stored: reads memories with their vectors from where the agent keeps them; None embeds all.
        finished: whether nothing writes to the folder any more. It is read as it is, by any number of processes.

    Attributes:
        purges: how many purges of the log there had been when it was read, as its reader says.

    Raises:
        HinsError: the folder cannot be used, or another process uses it.
    """

    def __init__(
        self,
        folder: Path,
        encoder: Encoder,
        settings: MineSettings,
        stored: StoredMemories | None = None,
        *,
        finished: bool = False,
    ) -> None:
        self.purges = 0
        # The part that was read last; owners are mostly read in order.
        self._part: EvidenceStore | None = None
        self._stored = stored
        self.encoder = encoder
        self.settings = settings
        self.folder = folder
        self._position = 0
        self._path = folder / "evidence.db"
        identity = digest_of([repr(settings), str(encoder.version), str(_VERSION)])
        with self._errors():
            if finished:
                self._db = open_finished_file(self._path)
                return
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._db = open_work_file(self._path)
            # Evidence that is lost in a crash of the machine is made again.
            self._db.execute("PRAGMA synchronous = OFF")
            take_up(self._db, _SCHEMA, identity, ("owners",))

    def close(self) -> None:
        """Close the file; it stays where it is."""
        if self._part is not None:
            self._part.close()
        self._db.close()

    def __enter__(self) -> EvidenceStore:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _errors(self) -> AbstractContextManager[None]:
        return work_file_errors(
            self._path,
            f"The evidence in {self._path} cannot be kept",
            "Free disk space or fix the folder's permissions and run again. If it is damaged, delete it.",
        )

    def add(self, log: ScopeLog) -> None:
        """Make and keep the evidence of one owner, unless it is there already for the same log."""
        key, content = ascii_json(log.scope.owner.key), content_digest(log)
        with self._errors():
            row = self._db.execute("SELECT id, content FROM owners WHERE key = ?", (key,)).fetchone()
            if row is None or row[1] != content:
                if row is not None:
                    self._forget(row[0])
                with self.vector_folder().owner() as vectors:
                    read = self._stored
                    encoder = self.encoder if read is None else StoredFirst(self.encoder, log.memories, read)
                    evidence = collect(log, encoder, self.settings, vectors)
                    self._keep(key, replace(evidence, content=content))
            self._db.execute("UPDATE owners SET position = ? WHERE key = ?", (self._position, key))
        self._position += 1

    def adopt(self, folder: Path) -> int:
        """Take in the owners of a finished store of the same encoder and settings, after those that are here.

        Returns how many they are.

        Args:
            folder: the store's; their evidence stays there.
        """
        with EvidenceStore(folder, self.encoder, self.settings, finished=True) as part:
            contents = part.contents()
        with self._errors():
            self._db.execute("BEGIN")
            for key, content in contents.items():
                name, body = ascii_json(key), ascii_json({"part": str(folder), "key": key})
                self._db.execute("DELETE FROM owners WHERE key = ?", (name,))
                values = (name, content, body, self._position)
                self._db.execute("INSERT INTO owners VALUES (NULL, ?, ?, ?, NULL, ?)", values)
                self._position += 1
            self._db.execute("COMMIT")
        return len(contents)

    def parts(self) -> dict[Path, list[str]]:
        """Return the folders of the stores that were taken in, in order, each with its owners' keys."""
        found: dict[Path, list[str]] = {}
        with self._errors():
            rows = self._db.execute("SELECT body FROM owners WHERE position IS NOT NULL ORDER BY position")
            for (body,) in rows:
                values = json.loads(body)
                found.setdefault(Path(values["part"]), []).append(values["key"])
        return found

    def contents(self) -> dict[str, str]:
        """Return the digest of what each owner's evidence was made of, by the owner's key, in order."""
        with self._errors():
            rows = self._db.execute("SELECT key, content FROM owners WHERE position IS NOT NULL ORDER BY position")
            return {json.loads(key): content for key, content in rows}

    def _keep(self, key: str, evidence: OwnerEvidence) -> None:
        import numpy as np

        owner = evidence.owner
        mapped = owner is not None and isinstance(owner.vectors, np.memmap)
        blob = None if owner is None or mapped else owner.vectors.astype(np.float32).tobytes()
        values = (key, evidence.content, _body(evidence), blob)
        number = self._db.execute("INSERT INTO owners VALUES (NULL, ?, ?, ?, ?, NULL)", values).lastrowid
        if owner is not None and isinstance(owner.vectors, np.memmap):
            owner.vectors.flush()
            os.replace(str(owner.vectors.filename), self._file(number or 0))

    def _file(self, number: int) -> Path:
        return self.folder / f"owner-{number}.f16"

    def _forget(self, number: int) -> None:
        self._db.execute("DELETE FROM owners WHERE id = ?", (number,))
        self._file(number).unlink(missing_ok=True)

    def keys(self) -> list[str]:
        """Return the keys of the owners that were added, in that order."""
        with self._errors():
            rows = self._db.execute("SELECT key FROM owners WHERE position IS NOT NULL ORDER BY position")
            return [json.loads(key) for (key,) in rows]

    def vector_folder(self) -> VectorFolder:
        """Return where vectors of very many memories that are made from this evidence may go."""
        return VectorFolder(self.settings, self.folder)

    def get(self, key: str) -> OwnerEvidence:
        """Return the evidence of one owner by its key (`Scope.key`).

        Raises:
            KeyError: it was not added.
        """
        with self._errors():
            statement = "SELECT id, body, vectors FROM owners WHERE key = ? AND position IS NOT NULL"
            row = self._db.execute(statement, (ascii_json(key),)).fetchone()
        if row is None:
            raise KeyError(key)
        return self._read(*row)

    def __len__(self) -> int:
        with self._errors():
            statement = "SELECT COUNT(*) FROM owners WHERE position IS NOT NULL"
            return int(self._db.execute(statement).fetchone()[0])

    def __iter__(self) -> Iterator[OwnerEvidence]:
        for key in self.keys():
            yield self.get(key)

    def _read(self, number: int, body: str, blob: bytes | None) -> OwnerEvidence:
        import numpy as np

        values = json.loads(body)
        if "part" in values:
            return self._of_part(Path(values["part"])).get(values["key"])
        user, agent, session, tenant = values["scope"]
        scope = Scope(user=user, agent=agent, run=session, tenant=tenant)
        evidence = OwnerEvidence(
            scope, values["conversations"], values["memories"], values["deleted"], skipped=Counter(values["skipped"])
        )
        if values["rows"] is None:
            return replace(evidence, content=values["content"])
        rows = [_memory(scope, row) for row in values["rows"]]
        stored: Any = np.frombuffer(blob, dtype=np.float32) if blob is not None else None
        if blob is None:
            stored = np.memmap(self._file(number), dtype=np.float16, mode="r")
        owner = owner_of(
            rows,
            [clean(row.text) for row in rows],
            [normalized(row.text) for row in rows],
            values["speakers"],
            stored.reshape(len(rows), -1),
            np.asarray(values["topics"], dtype=np.int64),
            self.vector_folder(),
        )
        queries = tuple(_query(one, owner) for one in values["queries"])
        return replace(evidence, owner=owner, queries=queries, content=values["content"])

    def _of_part(self, folder: Path) -> EvidenceStore:
        if self._part is None or self._part.folder != folder:
            if self._part is not None:
                self._part.close()
            self._part = EvidenceStore(folder, self.encoder, self.settings, finished=True)
        return self._part


def _body(evidence: OwnerEvidence) -> str:
    """Return everything but the vectors, as JSON; what follows from the memories' texts is made again."""
    owner, scope = evidence.owner, evidence.scope.owner
    return ascii_json(
        {
            "scope": [scope.user, scope.agent, scope.run, scope.tenant],
            "conversations": evidence.conversations,
            "memories": evidence.memories,
            "deleted": evidence.deleted,
            "skipped": evidence.skipped,
            "content": evidence.content,
            "rows": owner
            and [[m.id, m.conversation, m.text, m.speaker, m.turn_ids, m.topic, m.time] for m in owner.memories],
            "speakers": owner and owner.speakers,
            "topics": owner and owner.topics.tolist(),
            "queries": [
                [
                    query.query,
                    [[row, one.source, one.confidence, one.retrieval_id] for row, one in query.positives.items()],
                    sorted(query.rejected),
                    sorted(query.plausible),
                    query.answered,
                ]
                for query in evidence.queries
            ],
        }
    )


def _memory(scope: Scope, values: Any) -> Memory:
    name, conversation, text, speaker, turns, topic, time = values
    return Memory(name, scope, conversation, text, speaker, tuple(turns), topic, time)


def _query(values: Any, owner: OwnerMemories) -> QueryEvidence:
    query, positives, rejected, plausible, answered = values
    found = {
        row: Positive(query, owner.memories[row].id, owner.texts[row], source, confidence, retrieval)
        for row, source, confidence, retrieval in positives
    }
    return QueryEvidence(query, found, set(rejected), set(plausible), answered)


def digest_of(parts: Iterable[str]) -> str:
    """Return a digest of a sequence of strings, 32 hexadecimal digits."""
    digest = hashlib.blake2b(digest_size=16)
    for some in chunks_of(parts, _DIGESTED):
        digest.update("\0".join([*some, ""]).encode("utf-8", "surrogatepass"))
    return digest.hexdigest()


def content_digest(log: ScopeLog) -> str:
    """Return a digest of an owner's log, to detect changes."""

    # A memory and a retrieval are one string each, of several parts: a string more costs as much as its digest.
    def parts() -> Iterator[str]:
        for memory in log.memories:
            about = (
                f"m {memory.id} {memory.conversation} {memory.speaker} {memory.topic} {memory.time} {memory.turn_ids}"
            )
            yield f"{about}\0{memory.text}"
        for turn in log.turns:
            yield f"t {turn.id} {turn.conversation} {turn.speaker} {turn.time} {turn.text}"
        for one in log.retrievals:
            names = " ".join([result.memory_id for result in one.results])
            texts = " ".join([result.text for result in one.results])
            yield f"r {one.id} {one.scope.run} {one.time} {one.query} \0{names}\0{texts}"
        for answer in log.answers:
            yield f"a {answer.retrieval_id} {answer.text}"
        for feedback in log.feedback:
            yield f"f {feedback.memory_id} {feedback.polarity} {feedback.retrieval_id} {feedback.time}"

    return digest_of(parts())
