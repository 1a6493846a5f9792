"""What each stage of the loop sees of the log: what is learned from, what is held out, and texts that are neither."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from hins_memory.errors import NotEnoughDataError
from hins_memory.evaluation.gate import GateSettings
from hins_memory.log.capture import flush_all
from hins_memory.log.reader import LogReader
from hins_memory.loop.holdout import HoldoutSettings, JudgedConversation, conversation_digest, judged, latest, without
from hins_memory.loop.mix import MixSettings
from hins_memory.mining import MineSettings
from hins_memory.training.postprocess.traffic import Samples, TrafficSampler
from hins_memory.training.settings import TrainSettings
from hins_memory.types import Scope, ScopeLog

if TYPE_CHECKING:
    from sqlalchemy import Engine

    from hins_memory.encoders.encoder import Encoder
    from hins_memory.evaluation.evaluate import EvalSet

__all__ = ["LoopData", "LoopSettings", "Progress", "TrainingData", "public_texts"]

# What early stopping looks at, of the conversations that are left to train on.
_WATCHED = HoldoutSettings(share=0.15, min_queries=20)
#: Called with the stage, how much of it is done, and how much there is.
Progress = Callable[[str, int, int], None]


@dataclass(frozen=True, slots=True)
class LoopSettings:
    """Settings of every stage.

    Args:
        mine: what becomes an example.
        holdout: how much is kept for the gate.
        train: how the encoder is trained.
        gate: what the candidate has to show.
        base: the encoder that training starts from, as for `Encoder.load`; None stands for what the serving encoder
            was trained from, or is itself, and for the packaged starter in a new project.
        mix: how many of the synthetic examples are used beside captured ones.
    """

    mine: MineSettings = field(default_factory=MineSettings)
    holdout: HoldoutSettings = field(default_factory=HoldoutSettings)
    train: TrainSettings = field(default_factory=TrainSettings)
    gate: GateSettings = field(default_factory=GateSettings)
    base: str | None = None
    mix: MixSettings = field(default_factory=MixSettings)


def public_texts() -> list[str]:
    """Return texts that belong to nobody, for easy negatives: the packaged conversations as `Speaker: text`."""
    from hins_memory.data.sample_conversations import load_sample

    return [f"{turn.speaker}: {turn.text}" for one in load_sample() for turn in one.turns]


@dataclass(slots=True)
class TrainingData:
    """What is learned from, and what was seen on the way to it.

    Attributes:
        logs: the logs without what is held out; to be read once, which fills the rest.
        conversations: digests of what decides about the weights, so that the gate never judges by it.
        watched: what early stopping looks at.
        traffic: queries with the texts that were searched, of what is learned from.
        unseen: the same of what is held out.
    """

    logs: Iterator[ScopeLog]
    conversations: list[str]
    watched: list[EvalSet]
    traffic: TrafficSampler
    unseen: TrafficSampler

    def samples(self, learned: frozenset[str]) -> Samples:
        """Return what training looks at beside its examples, whose queries are `learned`."""
        return Samples(self.traffic.traffic(learned), self.unseen.traffic(), self.watched)


class LoopData:
    """The log of a project, as the stages are to see it.

    Args:
        engine: the database of the log.
        loop: settings of every stage.
        progress: told after each owner whose log was read.
    """

    def __init__(self, engine: Engine, loop: LoopSettings, progress: Progress | None = None) -> None:
        self._engine = engine
        self._loop = loop
        self._progress = progress

    def to_train_on(self, encoder: Encoder, owners: Sequence[Scope] | None = None) -> TrainingData:
        """Return everything but the conversations held out for the gate.

        For early stopping, the latest conversations before those are left out as well. They count as used, because
        they decide which weights are kept.

        Args:
            encoder: finds the positives, by which it is decided what can be held out.
            owners: whose data; None means everybody's.

        Raises:
            NotEnoughDataError: there are too few conversations with a query whose positive is known.
        """
        found = self.judged(encoder, owners, training=True)
        held = latest(found, self._loop.holdout)
        seed = self._loop.train.seed
        data = TrainingData(iter(()), [], [], TrafficSampler(seed), TrafficSampler(seed))
        if self._loop.train.patience:
            kept = {one.digest for one in held}
            stopping = latest([one for one in found if one.digest not in kept], _WATCHED)
            data.watched.extend(one.evaluation for one in stopping)
            data.conversations.extend(one.digest for one in stopping)
            held = [*held, *stopping]
        for one in held:
            data.unseen.see((query.text for query in one.evaluation.queries), one.evaluation.documents.values())
        data.logs = self._left(held, owners, data)
        return data

    def _left(
        self, held: Sequence[JudgedConversation], owners: Sequence[Scope] | None, data: TrainingData
    ) -> Iterator[ScopeLog]:
        for log in self._logs(owners, "mine"):
            kept = without(log, held)
            data.conversations.extend(sorted(conversation_digest(kept, name) for name in kept.conversations()))
            data.traffic.see((one.query for one in kept.retrievals), (one.text for one in kept.memories))
            yield kept

    def judged(
        self, encoder: Encoder, owners: Sequence[Scope] | None = None, *, training: bool = False
    ) -> list[JudgedConversation]:
        """Return the conversations that have queries with a known positive.

        Args:
            encoder: finds the positives.
            owners: whose data; None means everybody's.
            training: whether synthetic conversations are enough.

        Raises:
            NotEnoughDataError: there are fewer than two, so that none can be held out.
        """
        found = judged(self._logs(owners, "judge"), encoder, self._loop.mine)
        # Nothing is held out of what was synthesised, and it is enough to train on.
        made_up = training and any(owner.synthetic for owner in LogReader(self._engine).owners())
        if len(found) < 2 and not made_up:
            counts = LogReader(self._engine).counts()
            raise NotEnoughDataError(
                f"The log has {counts.retrievals} retrievals, {counts.answers} answers and {counts.feedback} feedbacks "
                f"in {counts.conversations} conversations; queries with a known positive are in {len(found)} of them.",
                "At least 2 such conversations are needed, one to train on and one to judge on: "
                "record answers with answered() and opinions with feedback().",
            )
        return found

    def public_texts(self) -> list[str]:
        """Return public texts, but none that is stored: who plays the packaged conversations has them as memories."""
        public = public_texts()
        stored = LogReader(self._engine).stored(public)
        return [text for text in public if text not in stored]

    def _logs(self, owners: Sequence[Scope] | None, stage: str) -> Iterator[ScopeLog]:
        flush_all()
        reader = LogReader(self._engine)
        wanted = reader.owners()
        if owners is not None:
            present = set(wanted)
            wanted = [owner for owner in dict.fromkeys(scope.owner for scope in owners) if owner in present]
        # One call for all owners: each looks up which owners there are, which takes as long as there are many.
        for done, log in enumerate(reader.scope_logs(wanted), 1):
            yield log
            if self._progress:
                self._progress(stage, done, len(wanted))
