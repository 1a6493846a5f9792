"""The demo: packaged conversations through a real Mem0, the loop, a live swap, and the same questions again.

Retrieval is scored against the evidence labels of the sample, which training never sees, and only on conversations
that the new encoder was not trained on.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from hins_memory.config import Settings
from hins_memory.data.sample_conversations import SampleConversation, SampleQuestion, load_sample
from hins_memory.errors import AgentError
from hins_memory.evaluation import EvalQuery, EvalSet, RankingScores, paired_bootstrap, score_rankings
from hins_memory.loop.pipeline import LoopSettings, Pipeline, RunReport
from hins_memory.loop.split import conversation_digest
from hins_memory.mining import MineSettings
from hins_memory.training.settings import TrainSettings
from hins_memory.types import Progress, Scope

__all__ = ["DemoExample", "DemoReport", "Progress", "run_demo"]


_TOP_K = 20
_RANK = 10
_EXAMPLES = 3


@dataclass(frozen=True, slots=True)
class DemoExample:
    """A question whose evidence moved up. `rank_before` counts from 1; 0 means not among the results."""

    question: str
    answer: str
    first_before: str
    first_after: str
    rank_before: int


@dataclass(frozen=True, slots=True)
class DemoReport:
    """What the demo did and measured.

    Attributes:
        conversations: how many conversations were played.
        memories: how many memories they became.
        questions: how many questions were asked and answered.
        held_out: the conversations that were not trained on.
        held_out_questions: how many questions they have.
        run: what the loop did.
        before: metric -> mean over the held-out questions, 0 to 1, with the stock encoder.
        after: the same after the swap; None when the gate refused.
        gain_interval: 95% interval of the change of nDCG@10 (paired bootstrap over questions).
        risen: how many held-out questions have evidence in the first place only after the swap.
        fallen: and how many only before it.
        examples: held-out questions whose evidence came first only after the swap.
        seconds: how long everything took.
    """

    conversations: int
    memories: int
    questions: int
    held_out: tuple[str, ...]
    held_out_questions: int
    run: RunReport
    before: dict[str, float]
    after: dict[str, float] | None
    gain_interval: tuple[float, float]
    risen: int
    fallen: int
    examples: tuple[DemoExample, ...]
    seconds: float

    def to_dict(self) -> dict[str, Any]:
        """Return the report as JSON-able values."""
        fields = {name: getattr(self, name) for name in self.__slots__ if name not in ("run", "examples")}
        return fields | {"run": self.run.to_dict(), "examples": [asdict(one) for one in self.examples]}


def run_demo(
    home: Path,
    *,
    seed: int = 0,
    conversations: Sequence[SampleConversation] | None = None,
    training: TrainSettings | None = None,
    progress: Progress | None = None,
) -> DemoReport:
    """Run the demo.

    Args:
        home: where the project ``demo`` is made; it must not exist there yet.
        seed: seed of everything that is sampled.
        conversations: what is played; None means the packaged sample.
        training: how it is trained; None means the defaults, with three passes in the place of two.
        progress: told how far each stage is.

    Raises:
        AgentError: the project exists already, or Mem0 is not installed or cannot be opened.
        NotEnoughDataError: too little came out of the conversations.
    """
    from hins_memory import Memory

    started = time.perf_counter()
    settings = Settings(home=home, project="demo", log_url="", capture=True)
    if settings.root.exists():
        raise AgentError(f"{settings.root} exists already.", "Remove it, or name another folder with --home.")
    played = list(load_sample() if conversations is None else conversations)
    # From the plain model, not the starter: what is shown is what the traffic brings.
    memory = Memory(embedder="hins", model="stock", settings=settings)
    try:
        player = _Player(memory, played, progress)
        player.store()
        before = player.ask("asking the questions", played)
        # These people are invented, so their texts may be each other's easy negatives. The packaged texts, which are
        # used otherwise, hold the held-out conversations too.
        loop = LoopSettings(
            mine=MineSettings(seed=seed, share_scopes=True),
            # So little traffic is worth a pass more: seconds, and the gate is surer of the gain.
            train=training or TrainSettings(seed=seed, epochs=3.0),
            base="stock",
            deep="never",
        )
        pipeline = Pipeline(settings, memory, loop=loop, progress=progress)
        run = pipeline.run()
        trained = set(pipeline.registry.get(run.version).manifest.trained_conversations)
        held_out = [one for one in played if _digest(one) not in trained]
        after = player.ask("asking again, after the swap", held_out, capture=False) if run.swapped else None
    finally:
        memory.close()
    return _report(player, held_out, before, after, run, time.perf_counter() - started)


def _digest(conversation: SampleConversation) -> str:
    """Return what a version's manifest calls a conversation: everything that one user said to Mem0."""
    scope = Scope(user=conversation.id)
    return conversation_digest(scope, scope.key)


@dataclass(frozen=True, slots=True)
class _Asked:
    """A question and what Mem0 found: turn ids and texts, best first."""

    question: SampleQuestion
    turns: tuple[str, ...]
    texts: tuple[str, ...]

    @property
    def rank(self) -> int:
        """The rank of the first evidence, from 1; 0 when none was found."""
        hits = [place for place, turn in enumerate(self.turns, start=1) if turn in self.question.evidence]
        return hits[0] if hits else 0


class _Player:
    """Plays conversations through a live Mem0, one user each, and asks their questions."""

    def __init__(self, memory: Any, played: Sequence[SampleConversation], progress: Progress | None) -> None:
        self.played = played
        self.memories: dict[str, str] = {}
        self._memory = memory
        self._progress = progress or (lambda stage, done, total: None)

    def store(self) -> None:
        """Store every turn as a memory ``Speaker: text``, one call a session."""
        for done, one in enumerate(self.played, start=1):
            # Mem0 embeds one message at a time; embedded in a batch before, they come out of the encoder's cache.
            self._memory.embedding_model.embed_batch([f"{turn.speaker}: {turn.text}" for turn in one.turns], "add")
            for session in one.sessions:
                messages = [
                    {"role": "user", "name": turn.speaker, "content": f"{turn.speaker}: {turn.text}"}
                    for turn in session.turns
                ]
                results = self._memory.add(messages, user_id=one.id, infer=False)["results"]
                if len(results) != len(messages):
                    raise AgentError(f"Mem0 stored {len(results)} of {len(messages)} turns of {one.id}.")
                pairs = zip(results, session.turns, strict=True)
                self.memories |= {str(result["id"]): turn.id for result, turn in pairs}
            self._progress("playing the conversations", done, len(self.played))

    def ask(
        self, stage: str, conversations: Sequence[SampleConversation], *, capture: bool = True
    ) -> dict[str, list[_Asked]]:
        """Ask every question and give its answer; return what was found, by conversation."""
        total = sum(len(one.questions) for one in conversations)
        asked: dict[str, list[_Asked]] = {}
        done = 0
        for one in conversations:
            self._memory.embedding_model.embed_batch([question.question for question in one.questions], "search")
            for question in one.questions:
                found = self._memory.search(
                    question.question, filters={"user_id": one.id}, top_k=_TOP_K, capture=capture
                )
                self._memory.answered(found["retrieval_id"], question.answer)
                ids = tuple(self.memories[str(result["id"])] for result in found["results"])
                texts = tuple(str(result["memory"]) for result in found["results"])
                asked.setdefault(one.id, []).append(_Asked(question, ids, texts))
                done += 1
                self._progress(stage, done, total)
        return asked


def _report(
    player: _Player,
    held_out: Sequence[SampleConversation],
    before: dict[str, list[_Asked]],
    after: dict[str, list[_Asked]] | None,
    run: RunReport,
    seconds: float,
) -> DemoReport:
    old = _scores(held_out, before)
    new = _scores(held_out, after) if after is not None else None
    interval = (0.0, 0.0)
    pairs: list[tuple[_Asked, _Asked]] = []
    if new is not None and after is not None:
        pairs = [pair for one in held_out for pair in zip(before[one.id], after[one.id], strict=True)]
        gain = paired_bootstrap(new.ndcg[_RANK], old.ndcg[_RANK])
        interval = (gain.low, gain.high)
    return DemoReport(
        conversations=len(player.played),
        memories=len(player.memories),
        questions=sum(len(one.questions) for one in player.played),
        held_out=tuple(one.id for one in held_out),
        held_out_questions=len(old),
        run=run,
        before=_means(old),
        after=_means(new) if new is not None else None,
        gain_interval=interval,
        risen=sum(late.rank == 1 and early.rank != 1 for early, late in pairs),
        fallen=sum(late.rank != 1 and early.rank == 1 for early, late in pairs),
        examples=_examples(pairs),
        seconds=seconds,
    )


def _scores(conversations: Sequence[SampleConversation], asked: dict[str, list[_Asked]]) -> RankingScores:
    sets = [
        EvalSet(
            one.id,
            {turn.id: turn.text for turn in one.turns},
            tuple(EvalQuery(item.question, frozenset(item.evidence), item.kind) for item in one.questions),
        )
        for one in conversations
    ]
    return score_rankings(sets, [list(item.turns) for one in conversations for item in asked[one.id]], ks=(_RANK,))


def _means(scores: RankingScores) -> dict[str, float]:
    means = scores.mean()
    return {name: means[name] for name in (f"ndcg@{_RANK}", f"recall@{_RANK}", "mrr")}


def _examples(pairs: Sequence[tuple[_Asked, _Asked]]) -> tuple[DemoExample, ...]:
    """Return questions whose evidence came first only after the swap, those that it was farthest down for first."""
    risen = [(old, new) for old, new in pairs if new.rank == 1 and old.rank != 1 and old.texts]
    risen.sort(key=lambda pair: pair[0].rank or _TOP_K + 1, reverse=True)
    return tuple(
        DemoExample(old.question.question, old.question.answer, old.texts[0], new.texts[0], old.rank)
        for old, new in risen[:_EXAMPLES]
    )
