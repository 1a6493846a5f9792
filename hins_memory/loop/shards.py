"""Evidence and examples made by a Ray cluster, a shard of owners a task; the files are those of a run without one.

Each task writes a folder of its own and gives it its name when it is complete. The name is a digest of what the shard
is made of, so that a run that begins again finds what is done, whichever process was killed.
"""

from __future__ import annotations

import contextlib
import hashlib
import shutil
import uuid
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

from hins_memory.cluster import check_database, connect, in_order
from hins_memory.cluster.encoders import ClusterEncoder, NamedEncoder
from hins_memory.config import Settings
from hins_memory.database.engine import open_database
from hins_memory.encoders.starter import default_base
from hins_memory.log.reader import LogReader
from hins_memory.loop.data import LoopData
from hins_memory.loop.settings import LoopSettings
from hins_memory.loop.split import LabelledConversation, Unit, labelled, without
from hins_memory.mining import MineReport, MineSettings, mine_to_parquet
from hins_memory.mining.miner import MinedPart, MinerRun
from hins_memory.mining.owner.vectors import VectorFolder
from hins_memory.mining.storage.evidence import EvidenceStore, OwnerEvidence, content_digest, digest_of
from hins_memory.types import Progress, Scope

if TYPE_CHECKING:
    from hins_memory.encoders.encoder import Encoder

__all__ = [
    "ClusterData",
    "ShardWork",
    "evidence_of_shard",
    "examples_of_shard",
    "loop_data",
    "named_encoder",
    "shards_of",
]

# A shard ends at an owner whose digest is divisible by the first, and has at most the second many: an owner more or
# less changes its own shard, and those before and after stay what they are.
_MEAN_OWNERS, _MOST_OWNERS = 48, 128


@dataclass(frozen=True, slots=True)
class ShardWork:
    """What is the same for all shards of a run.

    Attributes:
        named: the encoder that serves, and the project.
        folder: where the shards' files are; on a file system that all nodes share.
        mine: the miner's settings.
        unit: what is held out as a whole.
        public: texts that belong to no user; only mining uses them.
    """

    named: NamedEncoder
    folder: Path
    mine: MineSettings
    unit: Unit
    public: tuple[str, ...] = ()


def shards_of(owners: Sequence[Scope]) -> Iterator[tuple[Scope, ...]]:
    """Yield the owners in shards, in order."""
    shard: list[Scope] = []
    for owner in owners:
        shard.append(owner)
        digest = hashlib.blake2b(owner.key.encode("utf-8", "surrogatepass"), digest_size=8).digest()
        if int.from_bytes(digest, "big") % _MEAN_OWNERS == 0 or len(shard) == _MOST_OWNERS:
            yield tuple(shard)
            shard.clear()
    if shard:
        yield tuple(shard)


def evidence_of_shard(work: ShardWork, owners: Sequence[Scope]) -> tuple[Path, list[LabelledConversation]]:
    """Make the evidence of some owners, in an `EvidenceStore` of its own; what is there for the same log is kept.

    Returns:
        The store's folder, and the owners' conversations, or queries, that have known positives.
    """
    encoder = work.named.load()
    identity = [repr(work.mine), encoder.version, *(owner.key for owner in owners)]
    folder = work.folder / "evidence" / digest_of(identity)
    reader = LogReader(work.named.engine())
    if folder.is_dir():
        wanted = {log.scope.owner.key: content_digest(log) for log in reader.scope_logs(owners)}
        with EvidenceStore(folder, encoder, work.mine, finished=True) as store:
            same = store.contents() == wanted
        if not same:
            _remove(folder)
    if not folder.is_dir():
        with _published(folder) as attempt, EvidenceStore(attempt, encoder, work.mine) as store:
            for log in reader.scope_logs(owners):
                store.add(log)
    with EvidenceStore(folder, encoder, work.mine, finished=True) as store:
        return folder, labelled(store, work.unit)


def examples_of_shard(
    work: ShardWork, shard: tuple[Path, Mapping[str, Collection[LabelledConversation]]]
) -> tuple[Path, int]:
    """Mine a shard's evidence without what is left out of each owner; what is there for the same evidence is kept.

    Returns:
        The folder, for `MinedPart`, and how many owners it has.
    """
    (evidence, left_out), encoder = shard, work.named.load()
    digests = [f"{key} {one.digest}" for key, found in sorted(left_out.items()) for one in found]
    with EvidenceStore(evidence, encoder, work.mine, finished=True) as store:
        contents = store.contents()
        identity = [repr(work.mine), encoder.version, *work.public, "", *contents, "", *contents.values(), "", *digests]
        folder = work.folder / "examples" / digest_of(identity)
        if not folder.is_dir():
            with _published(folder) as attempt, MinerRun(encoder, work.mine, work.public, attempt) as run:
                for one in store:
                    with VectorFolder(work.mine, attempt).owner() as vectors:
                        run.add(without(one, left_out.get(one.scope.owner.key, ()), vectors, work.unit))
                run.keep()
    return folder, len(contents)


@contextlib.contextmanager
def _published(folder: Path) -> Iterator[Path]:
    """Yield a new folder, which is called `folder` from the end of the block on.

    The same task may run on two nodes, when one seemed to be lost: both make the same content, and the first counts.
    """
    attempt = _hidden(folder)
    attempt.mkdir(mode=0o700, parents=True)
    try:
        yield attempt
        try:
            attempt.rename(folder)
        except OSError:
            if not folder.is_dir():
                raise
    finally:
        shutil.rmtree(attempt, ignore_errors=True)


def _remove(folder: Path) -> None:
    old = _hidden(folder)
    with contextlib.suppress(FileNotFoundError):
        folder.rename(old)
        shutil.rmtree(old, ignore_errors=True)


def _hidden(folder: Path) -> Path:
    return folder.with_name(f".{uuid.uuid4().hex}")


def named_encoder(settings: Settings, loop: LoopSettings, encoder: Encoder) -> NamedEncoder:
    """Connect to the cluster, and return how its nodes load an encoder of a project.

    Raises:
        ConfigError: there is no cluster, or it has hosts that cannot read the project's database.
    """
    named = NamedEncoder(settings, encoder.version, str(loop.base or default_base()))
    check_database(connect(loop.ray), named.engine().dialect.name)
    return named


def spread_encoder(settings: Settings, loop: LoopSettings, encoder: Encoder) -> Encoder:
    """Return an encoder that lets the cluster embed where the settings name one; else the encoder itself."""
    return ClusterEncoder(encoder, named_encoder(settings, loop, encoder)) if loop.ray else encoder


class ClusterData(LoopData):
    """The log of a project, read and mined by the tasks of a Ray cluster.

    Args:
        settings: the project.
        loop: settings of every stage; `LoopSettings.ray` is the cluster's address.
        progress: told after each shard.
        scope: a tenant, user or owner whose log alone is read; None reads everything.
    """

    def __init__(
        self, settings: Settings, loop: LoopSettings, progress: Progress | None = None, scope: Scope | None = None
    ) -> None:
        super().__init__(open_database(settings.database_url), loop, progress, scope)
        self._settings = settings
        # What the tasks found in the evidence that they made, by the store that took it in.
        self._found: WeakKeyDictionary[EvidenceStore, list[LabelledConversation]] = WeakKeyDictionary()

    def _work(self, store: EvidenceStore, public: Sequence[str] = ()) -> ShardWork:
        """Connect to the cluster, and return what the tasks have to know."""
        named = named_encoder(self._settings, self._loop, store.encoder)
        return ShardWork(named, store.folder.absolute(), self._loop.mine, self.unit, tuple(public))

    def _collect(self, store: EvidenceStore, owners: Sequence[Scope]) -> None:
        work, found, done = self._work(store), self._found.setdefault(store, []), 0
        for folder, conversations in in_order(evidence_of_shard, work, shards_of(owners)):
            done += store.adopt(folder)
            found += conversations
            if self._progress:
                self._progress("read", done, len(owners))

    def _labelled(self, store: EvidenceStore) -> list[LabelledConversation]:
        return self._found[store] if store in self._found else super()._labelled(store)

    def _mine_owners(
        self,
        store: EvidenceStore,
        path: Path,
        left_out: Mapping[str, Collection[LabelledConversation]],
        noted: Callable[[OwnerEvidence], OwnerEvidence] | None = None,
    ) -> MineReport:
        public = self.public_texts()

        def parts() -> Iterator[MinedPart]:
            done, owners = 0, len(store)
            shards = (
                (part, {key: left_out[key] for key in keys if key in left_out}) for part, keys in store.parts().items()
            )
            for folder, count in in_order(examples_of_shard, self._work(store, public), shards):
                yield MinedPart(folder)
                done += count
                if self._progress:
                    self._progress("mine", done, owners)

        report = mine_to_parquet(parts(), store.encoder, path, self._loop.mine, public)
        if noted is not None:
            for left in self._left(store, left_out):
                noted(left)
        return report


def loop_data(
    settings: Settings, loop: LoopSettings, progress: Progress | None = None, scope: Scope | None = None
) -> LoopData:
    """Return the log of a project as the stages are to see it, read by a cluster where the settings name one."""
    if loop.ray:
        return ClusterData(settings, loop, progress, scope)
    return LoopData(open_database(settings.database_url), loop, progress, scope)
