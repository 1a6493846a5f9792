"""The log split for the stages of the loop: what is trained on, what is held out, and public texts for negatives."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hins_memory.data.stored_vectors import StoredVectors, StoredVectorsWriter
from hins_memory.errors import NotEnoughDataError
from hins_memory.log.capture import flush_all
from hins_memory.log.purge import purge_count
from hins_memory.log.reader import LogReader
from hins_memory.loop.keyword_weight import weighs_keywords
from hins_memory.loop.mix import mix_file
from hins_memory.loop.settings import LoopSettings
from hins_memory.loop.split import (
    HeldOutSets,
    LabelledConversation,
    Unit,
    by_owner,
    labelled,
    latest,
    newest,
    trained_digests,
    without,
)
from hins_memory.mining import MineReport, mine_to_parquet
from hins_memory.mining.negatives.whole_store import store_owner
from hins_memory.mining.storage.evidence import EvidenceStore, OwnerEvidence
from hins_memory.training.auxiliary_data import AuxiliaryData
from hins_memory.training.query_samples import QuerySampler
from hins_memory.types import Progress, Scope

if TYPE_CHECKING:
    from sqlalchemy import Engine

    from hins_memory.evaluation import EvalSet
    from hins_memory.plugins.protocols import Agent

__all__ = ["LoopData", "MinedData", "Progress", "public_texts"]

# What early stopping and the keyword weight are decided by, of the conversations that are left to train on.
_DECIDING_SHARE, _DECIDING_QUERIES = 0.15, 20
# For the keyword weight alone, this many queries are enough, and this share may be taken: without it, a version has the
# weight of its base.
_WEIGHT_QUERIES, _WEIGHT_LIMIT = 200, 0.25


def public_texts() -> list[str]:
    """Return texts that belong to no user, for easy negatives: the packaged conversations as `Speaker: text`."""
    from hins_memory.data.sample_conversations import load_sample

    return [f"{turn.speaker}: {turn.text}" for one in load_sample() for turn in one.turns]


@dataclass(frozen=True, slots=True)
class MinedData:
    """What mining gave beside the examples.

    Attributes:
        report: the miner's.
        mix: the numbers of synthetic and captured examples, for the manifest.
        conversations: digests of the conversations that training uses, so that the gate leaves them out.
        early_stopping_sets: labelled queries that early stopping and the keyword weight are decided by.
        training_queries: a sample of queries with the texts that were searched, of what is trained on.
        heldout_queries: the same of what is held out.
        stored: the stored vectors of what is trained on; None where they were not asked for.
    """

    report: MineReport
    mix: dict[str, Any]
    conversations: tuple[str, ...]
    early_stopping_sets: Sequence[EvalSet]
    training_queries: QuerySampler
    heldout_queries: QuerySampler
    stored: StoredVectors | None = None

    def auxiliary_data(self, trained_on: frozenset[str]) -> AuxiliaryData:
        """Return what training uses beside its examples, whose queries are `trained_on`."""
        return AuxiliaryData(
            self.training_queries.sample(exclude=trained_on),
            self.heldout_queries.sample(),
            list(self.early_stopping_sets),
            stored=self.stored,
        )


class LoopData:
    """The log of a project, as the stages are to see it.

    Args:
        engine: the database of the log.
        loop: settings of every stage.
        progress: told after each owner whose log was read.
        scope: a tenant, user or owner whose log alone is read; None reads everything.
    """

    def __init__(
        self, engine: Engine, loop: LoopSettings, progress: Progress | None = None, scope: Scope | None = None
    ) -> None:
        self._engine = engine
        self._loop = loop
        self._progress = progress
        self._scope = scope
        #: what is held out as a whole
        self.unit: Unit = "conversation" if scope is None else "query"

    def collect(self, store: EvidenceStore, owners: Sequence[Scope] | None = None) -> None:
        """Read the log once, one owner at a time, and keep the evidence of each.

        Args:
            store: where it is kept.
            owners: whose data; None means all owners'.
        """
        flush_all()
        store.purges = purge_count(self._engine)
        wanted = self._owners()
        if owners is not None:
            present = set(wanted)
            wanted = [owner for owner in dict.fromkeys(scope.owner for scope in owners) if owner in present]
        self._collect(store, wanted)

    def _collect(self, store: EvidenceStore, owners: Sequence[Scope]) -> None:
        for done, log in enumerate(LogReader(self._engine).scope_logs(owners), 1):
            store.add(log)
            if self._progress:
                self._progress("read", done, len(owners))

    def _owners(self) -> list[Scope]:
        """Return the owners whose log is read."""
        return [one for one in LogReader(self._engine).owners() if self._scope is None or self._scope in one.levels]

    def mine(
        self, store: EvidenceStore, path: Path, stored: Path | None = None, agent: Agent | None = None
    ) -> MinedData:
        """Mine everything but the conversations held out for the gate, into the file that training reads.

        For early stopping and for a keyword weight, the latest conversations before those are left out as well. They
        count as trained on, because they decide which weights are kept, or how much keywords count.

        Args:
            store: the evidence of all owners.
            path: the Parquet file; the same call continues an interrupted run.
            stored: a folder to make for the stored vectors that a tower is trained against; None makes none.
            agent: the live agent; where its search takes a keyword weight, one is to be fitted. Small projects leave
                nothing out for that.

        Raises:
            NotEnoughDataError: there are too few conversations with a query whose positive is known.
        """
        held, deciding = self._left_out(store, agent)
        seed = self._loop.train.seed
        heldout_queries, training_queries = QuerySampler(seed), QuerySampler(seed)
        for one in HeldOutSets(store, [*held, *deciding], self.unit):
            heldout_queries.add((query.text for query in one.queries), one.documents.values())
        trained_on = [one.digest for one in deciding]
        writer = None if stored is None else StoredVectorsWriter(stored)

        def noted(left: OwnerEvidence) -> OwnerEvidence:
            trained_on.extend(trained_digests(left, self.unit))
            if left.owner is not None:
                training_queries.add((query.query for query in left.queries), left.owner.texts)
            if writer is not None:
                store_owner(writer, left, store.encoder, self._loop.mine)
            return left

        with writer or nullcontext():
            report = self._mine_owners(store, path, by_owner([*held, *deciding]), noted)
        mixed = mix_file(path, seed)
        sets = HeldOutSets(store, deciding, self.unit)
        vectors = None if stored is None else StoredVectors(stored)
        return MinedData(report, mixed, tuple(trained_on), sets, training_queries, heldout_queries, vectors)

    def mine_file(self, store: EvidenceStore, path: Path, agent: Agent | None = None) -> MineReport:
        """Mine into the same file as `mine`, for reading: nothing is made that training needs beside it.

        Raises:
            NotEnoughDataError: as for `mine`.
        """
        held, deciding = self._left_out(store, agent)
        report = self._mine_owners(store, path, by_owner([*held, *deciding]))
        mix_file(path, self._loop.train.seed)
        return report

    def _left_out(
        self, store: EvidenceStore, agent: Agent | None
    ) -> tuple[list[LabelledConversation], list[LabelledConversation]]:
        """Return what is held out for the gate, and what early stopping or the keyword weight is decided by."""
        conversations = self.labelled(store, training=True)
        held = latest(conversations, self._loop.gate.held_out_share, self._loop.gate.min_queries)
        digests = {one.digest for one in held}
        rest = [one for one in conversations if one.digest not in digests]
        if self._loop.train.patience:
            return held, latest(rest, _DECIDING_SHARE, _DECIDING_QUERIES)
        if weighs_keywords(agent):
            return held, newest(rest, _DECIDING_SHARE, (_DECIDING_QUERIES, _WEIGHT_QUERIES), _WEIGHT_LIMIT)
        return held, []

    def _mine_owners(
        self,
        store: EvidenceStore,
        path: Path,
        left_out: Mapping[str, Collection[LabelledConversation]],
        noted: Callable[[OwnerEvidence], OwnerEvidence] | None = None,
    ) -> MineReport:
        """Mine all owners without what is left out of each; `noted` is told of the evidence that each is mined from."""
        left = self._left(store, left_out)
        owners = left if noted is None else map(noted, left)
        return mine_to_parquet(owners, store.encoder, path, self._loop.mine, self.public_texts())

    def _left(
        self, store: EvidenceStore, left_out: Mapping[str, Collection[LabelledConversation]]
    ) -> Iterator[OwnerEvidence]:
        owners = len(store)
        for done, evidence in enumerate(store, 1):
            with store.vector_folder().owner() as folder:
                yield without(evidence, left_out.get(evidence.scope.owner.key, ()), folder, self.unit)
            if self._progress:
                self._progress("mine", done, owners)

    def labelled(self, store: EvidenceStore, *, training: bool = False) -> list[LabelledConversation]:
        """Return the conversations that have queries with a known positive.

        Args:
            store: the evidence of all owners.
            training: whether synthetic conversations are enough.

        Raises:
            NotEnoughDataError: there are fewer than two, so that none can be held out.
        """
        found = self._labelled(store)
        # Synthetic conversations are not held out, and are enough to train on.
        has_synthetic = training and any(owner.synthetic for owner in self._owners())
        if len(found) < 2 and self._scope is not None:
            raise NotEnoughDataError(
                f"{self._scope.key} has {len(found)} queries with a known positive.",
                "Record answers with answered() and opinions with feedback(); the common encoder serves it meanwhile.",
            )
        if len(found) < 2 and not has_synthetic:
            counts = LogReader(self._engine).counts()
            raise NotEnoughDataError(
                f"The log has {counts.retrievals} retrievals, {counts.answers} answers and {counts.feedback} feedbacks "
                f"in {counts.conversations} conversations; queries with a known positive are in {len(found)} of them.",
                "At least 2 such conversations are needed, one to train on and one to hold out: "
                "record answers with answered() and opinions with feedback().",
            )
        return found

    def _labelled(self, store: EvidenceStore) -> list[LabelledConversation]:
        return labelled(store, self.unit)

    def public_texts(self) -> list[str]:
        """Return the public texts that are not stored: a project may have played the packaged conversations."""
        public = public_texts()
        stored = LogReader(self._engine).stored(public)
        return [text for text in public if text not in stored]
