"""The deep round as a decision: whether embedding everything again would gain enough, measured before it is done.

Two short trainings on the same sample of the traffic begin as the encoder of the stored vectors: one of the queries
alone, as the round has just made it, and one of the whole encoder. Both are scored on the same questions, of other
conversations of that traffic. What the gate judges on is in neither, so that it still judges a deep version on what did
not choose it.
"""

from __future__ import annotations

import hashlib
import math
import random
import tempfile
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hins_memory.data.stored_vectors import StoredVectors, StoredVectorsWriter
from hins_memory.errors import HinsError, NotEnoughDataError
from hins_memory.evaluation import EvalSet, evaluate_encoder, paired_bootstrap
from hins_memory.evaluation.gate import K
from hins_memory.loop.split import HeldOutSets, LabelledConversation, latest, without
from hins_memory.mining import mine
from hins_memory.mining.negatives.whole_store import store_owner
from hins_memory.swapping import plan_swap
from hins_memory.training.settings import TrainSettings

if TYPE_CHECKING:
    from hins_memory.encoders.encoder import Encoder
    from hins_memory.evaluation import BootstrapResult
    from hins_memory.loop.data import LoopData
    from hins_memory.loop.settings import LoopSettings
    from hins_memory.mining.storage.evidence import EvidenceStore, OwnerEvidence
    from hins_memory.plugins.protocols import Agent
    from hins_memory.registry.loader import EncoderSource
    from hins_memory.registry.registry import EncoderVersion
    from hins_memory.swapping import SwapPlan
    from hins_memory.training.auxiliary_data import AuxiliaryData
    from hins_memory.types import Progress, TieredExample

__all__ = ["DeepAdvice", "DeepTrial", "Trial", "deep_advice", "deep_settings"]

# Bounds of the trial, so that it takes minutes whatever the log holds: labelled queries and texts of the owners that
# are sampled, and examples that both trainings learn from. More questions make the interval narrower.
_QUERIES, _TEXTS, _EXAMPLES = 1024, 4000, 384
# At least this many texts of an owner are searched, where it has them, beside the relevant ones; random ones, which
# favours neither side.
_OWNER_TEXTS = 400
# Of the sampled queries, the share that is asked of both afterwards.
_ASKED = 0.5
_EPOCHS = 2.0


@dataclass(frozen=True, slots=True)
class Trial:
    """What the two short trainings gave.

    Attributes:
        gain: the paired difference of nDCG@10 between the deep one and the other, with its 95% interval.
        examples: how many examples both learned from.
        step_seconds: how long a step of the deep one took, everything around the steps included.
    """

    gain: BootstrapResult
    examples: int
    step_seconds: float


@dataclass(frozen=True, slots=True)
class DeepAdvice:
    """Whether a deep round is worth it, and what it would take.

    Attributes:
        advised: whether it would gain more than the threshold.
        why: the reason in words.
        threshold: what the lower end of the gain's interval has to exceed, 0 to 1.
        gain: how much more nDCG@10 a deep training finds on held-out questions; None where it could not be measured.
        records: how many memories, and other records, would be embedded again.
        embed_seconds: about how long that takes, from the rate measured on some of them.
        train_seconds: about how long the training before it takes; None where it could not be measured.
        disk_bytes: about how much the new indexes take beside the old ones.
        trial_seconds: how long the measurement took.
    """

    advised: bool
    why: str
    threshold: float
    gain: BootstrapResult | None
    records: int
    embed_seconds: float
    train_seconds: float | None
    disk_bytes: int
    trial_seconds: float

    def to_dict(self) -> dict[str, Any]:
        """Return the advice as JSON-able values."""
        return asdict(self)


def deep_settings(train: TrainSettings) -> TrainSettings:
    """Return how a deep round trains where a project's rounds train otherwise: a learning rate is its mode's own."""
    return replace(train, mode="lora", learning_rate=0.0)


def deep_advice(trial: Callable[[], Trial], plan: SwapPlan, loop: LoopSettings, examples: int) -> DeepAdvice:
    """Return the advice, from a trial that is made here.

    Args:
        trial: makes it.
        plan: what embedding everything again would take.
        loop: the settings of the round.
        examples: how many examples a deep round would train on.
    """
    started = time.perf_counter()
    found: Trial | None = None
    try:
        found = trial()
    except HinsError as error:
        # The round itself is done; that there is no advice does not undo it.
        why = f"Whether a deep round would gain anything could not be measured: {error.problem}"
    if found is not None:
        why = _reason(found.gain, loop.deep_gain)
    settings = deep_settings(loop.train)
    steps = settings.steps(round(examples * (1 + settings.replay)))
    return DeepAdvice(
        advised=found is not None and found.gain.low > loop.deep_gain,
        why=why,
        threshold=loop.deep_gain,
        gain=found.gain if found else None,
        records=plan.records,
        embed_seconds=plan.seconds,
        train_seconds=found.step_seconds * steps if found else None,
        disk_bytes=plan.disk_bytes,
        trial_seconds=time.perf_counter() - started,
    )


def _reason(gain: BootstrapResult, threshold: float) -> str:
    pays = gain.low > threshold
    return (
        f"A deep training found {100 * gain.difference:+.1f} points of nDCG@{K} more than one of the queries alone, on "
        f"{gain.queries} held-out questions; the 95% interval, {100 * gain.low:+.1f} to {100 * gain.high:+.1f}, "
        f"{'is' if pays else 'is not'} above the {100 * threshold:g} points that a deep round has to gain."
    )


class DeepTrial:
    """The two short trainings. Texts of the log are under the evidence's folder, and removed with the trial.

    Args:
        evidence: the evidence of the round.
        loop: its settings.
        data: the log as the round saw it.
        source: the project's encoders.
        progress: told how far each training is.
    """

    def __init__(
        self,
        evidence: EvidenceStore,
        loop: LoopSettings,
        data: LoopData,
        source: EncoderSource,
        progress: Progress | None = None,
    ) -> None:
        self._evidence = evidence
        self._loop = loop
        self._data = data
        self._source = source
        self._progress = progress
        self._random = random.Random(loop.train.seed)

    def advice(self, agent: Agent, version: EncoderVersion, encoder: Encoder, examples: int) -> DeepAdvice:
        """Make the trial and return what it says.

        Args:
            agent: the live agent, whose store would be embedded again.
            version: the version that the round has trained.
            encoder: the same, loaded; its documents' side measures the rate.
            examples: how many examples a deep round would train on.

        Raises:
            AgentError: the agent's indexes cannot be read.
        """
        manifest = version.manifest
        # With the thresholds of the agent's framework.
        self._loop = replace(self._loop, train=TrainSettings.from_dict(manifest.settings))
        base = str(self._source.source(manifest.base) or manifest.base)
        parents = (one.manifest for one in self._source.registry.versions() if one.id == manifest.base)
        known = {digest for parent in parents for digest in parent.trained_conversations}
        plan = plan_swap(agent, encoder)
        return deep_advice(lambda: self.run(manifest.trained_conversations, known, base), plan, self._loop, examples)

    def run(self, trained: Collection[str], known: Collection[str], base: str) -> Trial:
        """Train both ways and compare.

        Args:
            trained: digests of those that the round trained on; nothing of the others is used.
            known: digests of those that the base was trained on; no question is taken from them.
            base: the encoder of the stored vectors, as for `Encoder.load`.

        Raises:
            NotEnoughDataError: there are too few questions that neither the gate nor the base has seen, or too few
                examples beside them.
            HinsError: a training failed, or the disk is full.
        """
        least, conversations = self._loop.gate.min_queries, self._data.labelled(self._evidence)
        sample = self._sample([one for one in conversations if one.digest in trained])
        held = latest([one for one in sample if one.digest not in known], _ASKED, least)
        if (asked := sum(one.queries for one in held)) < least:
            raise NotEnoughDataError(
                f"{asked} questions with a known outcome are neither held out for the gate nor were trained on before, "
                f"and {least} are needed.",
                "Let the agent run longer, and record answers (answered) or feedback.",
            )
        left_out = [*held, *(one for one in conversations if one.digest not in trained)]
        with tempfile.TemporaryDirectory(prefix="trial-", dir=self._evidence.folder) as name:
            folder = Path(name)
            examples = self._mine(sample, left_out, folder / "stored")
            sets = self._sets(held)
            auxiliary = self._auxiliary(sets, folder / "stored")
            light, _ = self._train(self._loop.train, (examples, auxiliary, sets), base, folder / "light")
            deep, step_seconds = self._train(
                deep_settings(self._loop.train), (examples, auxiliary, sets), base, folder / "deep"
            )
        return Trial(paired_bootstrap(deep, light), len(examples), step_seconds)

    def _sample(self, conversations: Sequence[LabelledConversation]) -> list[LabelledConversation]:
        """Return all given conversations of some owners, as many as the bounds allow and at least one."""
        by_owner: dict[str, list[LabelledConversation]] = {}
        for one in conversations:
            by_owner.setdefault(one.owner, []).append(one)
        owners = sorted(by_owner)
        self._random.shuffle(owners)
        found: list[LabelledConversation] = []
        texts = 0
        for owner in owners:
            if texts >= _TEXTS or sum(one.queries for one in found) >= _QUERIES:
                break
            found += by_owner[owner]
            texts += min(self._evidence.get(owner).memories, _OWNER_TEXTS)
        return found

    def _mine(
        self, sample: Sequence[LabelledConversation], left_out: Collection[LabelledConversation], stored: Path
    ) -> list[TieredExample]:
        """Return examples of the sampled owners without some conversations, and write their stored vectors."""
        store, settings = self._evidence, self._loop.mine
        digests = {one.digest for one in left_out}
        share = min(1.0, _EXAMPLES / max(1, sum(one.queries for one in sample if one.digest not in digests)))
        with StoredVectorsWriter(stored) as writer:

            def owners() -> Iterator[OwnerEvidence]:
                for owner in sorted({one.owner for one in sample}):
                    with store.vector_folder().owner() as vectors:
                        gone = [one for one in left_out if one.owner == owner]
                        left = without(store.get(owner), gone, vectors)
                        asked = [query for query in left.queries if query.positives]
                        some = self._random.sample(asked, math.ceil(share * len(asked)))
                        left = replace(left, queries=tuple(some))
                        store_owner(writer, left, store.encoder, settings)
                        yield left

            examples = mine(owners(), store.encoder, settings, self._data.public_texts()).examples
        return self._random.sample(examples, min(len(examples), _EXAMPLES))

    def _sets(self, held: Sequence[LabelledConversation]) -> list[EvalSet]:
        """Return the questions of conversations over some of their owners' memories."""
        most = math.ceil(_QUERIES / len(held))
        texts = max(_OWNER_TEXTS, _TEXTS // len({one.owner for one in held}))
        sets = []
        for one in HeldOutSets(self._evidence, held):
            queries = self._random.sample(one.queries, min(len(one.queries), most))
            # The same ones in all sets of an owner, so that they are embedded once.
            names = set(sorted(one.documents, key=_place)[:texts])
            names = names.union(*(query.relevant for query in queries))
            sets.append(EvalSet(one.name, {name: one.documents[name] for name in names}, tuple(queries)))
        return sets

    def _auxiliary(self, sets: Sequence[EvalSet], stored: Path) -> AuxiliaryData:
        from hins_memory.evaluation.general import load_general
        from hins_memory.training.auxiliary_data import AuxiliaryData
        from hins_memory.training.query_samples import QuerySampler

        sampler = QuerySampler(self._loop.train.seed)
        for one in sets:
            sampler.add((query.text for query in one.queries), one.documents.values())
        return AuxiliaryData(
            heldout_queries=sampler.sample(),
            general=load_general("choose"),
            general_loss=self._loop.gate.general_loss_in_training,
            stored=StoredVectors(stored),
        )

    def _train(
        self,
        settings: TrainSettings,
        data: tuple[Sequence[TieredExample], AuxiliaryData, Sequence[EvalSet]],
        base: str,
        folder: Path,
    ) -> tuple[Any, float]:
        """Return the nDCG of every question under an encoder that is trained here, and the seconds a step took."""
        from hins_memory.encoders.encoder import Encoder
        from hins_memory.registry.loader import shared_encoder
        from hins_memory.training import train_encoder

        examples, auxiliary, sets = data
        told = self._progress

        def progress(stage: str, done: int, total: int) -> None:
            if told is not None:
                told(f"{stage} (trial, {settings.mode})", done, total)

        trained = train_encoder(
            examples,
            folder,
            base=shared_encoder(base),
            settings=replace(settings, epochs=min(settings.epochs, _EPOCHS), patience=0),
            auxiliary=auxiliary,
            progress=progress,
        )
        record = trained.manifest
        scores = evaluate_encoder(Encoder.load(trained.folder), sets, ks=(K,))
        return scores.ndcg[K], record.metrics.train_seconds / record.settings["steps"]


def _place(name: str) -> bytes:
    """Return a memory's place in a random order of all."""
    return hashlib.blake2b(name.encode("utf-8", "surrogatepass"), digest_size=8).digest()
