"""LoCoMo side by side: several encoders through the same agent, the same questions, the same reader.

What an agent retrieves is kept by conversation and encoder, what a reader answers by what it was asked, so that a run
that was interrupted goes on where it was and a second one costs nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hins_memory.encoders.encoder import Encoder
from hins_memory.evaluation import ndcg, recall
from hins_memory.llm import ReplyCache, Usage
from parts.agents.alone import BM25, TOP_K, AlonePlayer, bm25_version
from parts.agents.hybrid import is_fused
from parts.agents.mem0 import Mem0Player
from parts.agents.mem0_extraction import InferPlayer
from parts.agents.memoryos import MemoryosPlayer
from parts.common.results import code_versions
from parts.common.screen import progress, stage
from parts.datasets.locomo import Conversation, Document, Question, conversation_digest, documents, relevant_among
from parts.locomo.deployment import Plan, player_of, settings_of, split_folds, trained_encoders
from parts.qa.judge import AnswerJudge
from parts.qa.readers import Reader, Reading, read_all
from parts.qa.scores import SCORES, abstained, score_answer

__all__ = ["Asked", "EncoderRun", "Retriever", "answer", "score_run"]

KS = tuple(range(1, TOP_K + 1))
_FIELDS = {"ranking", "memories", "relevant", "scored"}


@dataclass(frozen=True, slots=True)
class Asked:
    """A question and what the agent found for it.

    Attributes:
        conversation: its conversation's id.
        number: its place among the conversation's questions, from 0.
        question: the question.
        ranking: the ids of what was found, best first.
        memories: their texts with the time they are of, as a reader is shown them.
        relevant: the ids of everything stored that meets the question's evidence.
        alone: the ids of what the encoder alone ranks first, best first; None where the agent is not asked for it.
        details: what the agent says of the best result's score; empty where it says nothing.
        fused: whether more than the cosine went into the score of some result.
        scored: whether the retrieval is scored. A question whose evidence the agent did not store at all is scored, as
            0, where the agent chose what to store; it is not where the file says what there is to be stored.
    """

    conversation: str
    number: int
    question: Question
    ranking: tuple[str, ...]
    memories: tuple[str, ...]
    relevant: frozenset[str]
    scored: bool
    alone: tuple[str, ...] | None = None
    details: Mapping[str, float] = field(default_factory=dict)
    fused: bool = False


@dataclass(frozen=True, slots=True)
class EncoderRun:
    """One encoder's results over all questions.

    Attributes:
        name: the encoder, as it was asked for.
        asked: the questions with what was found; the same questions in the same order for every encoder.
        readings: the answers; empty without a reader.
        scores: name -> array of shape (n,), 0 to 1; NaN where a score does not apply to a question.
        recall: array of shape (n, 20): the share of the relevant memories among the first k.
        usage: what the reader and the judge used, by model.
        lost: how many calls of the agent's extraction failed.
    """

    name: str
    asked: tuple[Asked, ...]
    readings: tuple[Reading, ...]
    scores: Mapping[str, NDArray[np.float64]]
    recall: NDArray[np.float64]
    usage: Mapping[str, Usage]
    lost: int = 0


class Retriever:
    """Plays conversations through the agent with an encoder, unless what it retrieved is kept already.

    Args:
        plan: the agent and what it stores.
        keep: the folder of what is kept.
        fresh: play again whatever is kept; replies of language models are used all the same.
    """

    def __init__(self, plan: Plan, keep: Path, *, fresh: bool = False) -> None:
        self._plan = plan
        self._folder = keep
        self._cache = ReplyCache(keep)
        self._fresh = fresh
        #: how many calls of the agent's extraction failed, by encoder
        self.lost: dict[str, int] = {}

    def models(self, name: str, data: Sequence[Conversation], folds: int) -> dict[str, str]:
        """Return, for each conversation, the model that a named encoder is: ``hins`` is trained on the others' traffic.

        Raises:
            ConfigError: there is too little data for folds.
            EncoderError: there is no such encoder.
        """
        if name == "hins":
            # In a folder of its own when fresh, so that nothing that is kept is overwritten half-way.
            keep = self._plan.work / "encoders" if self._fresh else self._folder / "encoders"
            plan = replace(self._plan, alone=False)  # what trains is an agent's traffic
            return trained_encoders(data, split_folds(data, folds, plan.seed), plan, keep)
        return {one.id: name for one in data}

    def retrieve(self, name: str, data: Sequence[Conversation], models: Mapping[str, str]) -> list[Asked]:
        """Return every question with what the agent found, embedding with the conversation's model."""
        found: list[Asked] = []
        by_model: dict[str, list[Conversation]] = {}
        for one in data:
            by_model.setdefault(models[one.id], []).append(one)
        self.lost[name] = 0
        for number, (model, conversations) in enumerate(by_model.items()):
            version = bm25_version() if model == BM25 else Encoder.load(model).version
            keys = {one.id: self._key(one, version) for one in conversations}
            kept = {one.id: self._kept(keys[one.id], one) for one in conversations}
            missing = [one for one in conversations if kept[one.id] is None]
            for one, player in self._players(name, number, model, missing):
                rankings = player.play(one)
                extracted = player.stored if isinstance(player, InferPlayer) else None
                rows = self._rows(one, rankings, extracted)
                if isinstance(player, Mem0Player):
                    _add_signals(rows, player)
                lost = player.lost if isinstance(player, InferPlayer) else 0
                self.lost[name] += lost
                if not lost:  # else a later run tries again
                    self._cache.put(keys[one.id], {"questions": rows})
                kept[one.id] = rows
            for one in conversations:
                found += _asked(one, kept[one.id] or [])
        order = {one.id: place for place, one in enumerate(data)}
        return sorted(found, key=lambda asked: (order[asked.conversation], asked.number))

    def _players(
        self, name: str, number: int, model: str, conversations: Sequence[Conversation]
    ) -> Iterator[tuple[Conversation, Mem0Player | MemoryosPlayer | AlonePlayer]]:
        """Yield each conversation with the agent to play it through, opened only where there is one to play.

        BM25 weighs words by how rare they are in the whole store. With hybrid search every conversation has a store of
        its own, so that what is found does not depend on what was played before.
        """
        plan = self._plan
        if not conversations:
            return
        shown = progress(conversations, f"{plan.agent} with {name}")
        if plan.alone:
            alone = AlonePlayer(None if model == BM25 else Encoder.load(model), plan.memories)
            yield from ((one, alone) for one in shown)
            return
        groups: Iterable[Iterable[Conversation]] = ([one] for one in shown) if plan.hybrid else [shown]
        for part, group in enumerate(groups):
            with player_of(model, plan, settings_of(plan, f"{_plain(name)}-{number}-{part}")) as player:
                for one in group:
                    yield one, player

    def _key(self, conversation: Conversation, version: str) -> dict[str, Any]:
        plan = self._plan
        extraction = plan.extraction
        hybrid = {"hybrid": plan.hybrid} if plan.hybrid else {}
        return {
            "retrieval": conversation_digest(conversation),
            "encoder": version,
            "agent": plan.agent,
            "memories": plan.memories,
            "llm": extraction.proxy.client.settings.name if extraction else plan.llm and plan.llm.model,
            "turns": extraction.turns if extraction else 0,
            "top_k": TOP_K,
            "versions": code_versions(),
            **hybrid,
        }

    def _kept(self, key: Mapping[str, Any], conversation: Conversation) -> list[dict[str, Any]] | None:
        kept = None if self._fresh else self._cache.get(key)
        rows = kept.get("questions") if kept else None
        if not isinstance(rows, list) or len(rows) != len(conversation.questions):
            return None
        return rows if all(isinstance(row, dict) and row.keys() >= _FIELDS for row in rows) else None

    def _rows(
        self, conversation: Conversation, rankings: Sequence[Sequence[str]], extracted: Sequence[Document] | None
    ) -> list[dict[str, Any]]:
        stored = documents(conversation, self._plan.memories) if extracted is None else extracted
        texts = shown(conversation, stored)
        return [
            {
                "ranking": list(ranking),
                "memories": [texts[name] for name in ranking],
                "relevant": sorted(gold),
                "scored": bool(gold or (extracted is not None and question.evidence)),
            }
            for question, ranking, gold in zip(
                conversation.questions, rankings, relevant_among(conversation, stored), strict=True
            )
        ]


def shown(conversation: Conversation, stored: Sequence[Document]) -> dict[str, str]:
    """Return each document as a reader is shown it: the time of its session, and its text.

    A page of MemoryOS, which calls its two sides User and Assistant, is shown with the speakers' names.
    """
    times = {turn.session: turn.time for turn in conversation.turns}
    lines = {turn.id: f"{turn.speaker}: {turn.text}" for turn in conversation.turns}
    found = {}
    for one in stored:
        is_page = one.id.startswith("P") and one.text.startswith("User: ")
        text = " ".join(lines[name] for name in one.evidence) if is_page else one.text
        found[one.id] = f"[{_clock(times.get(one.session))}] {text}"
    return found


def _clock(time: datetime | None) -> str:
    return f"{time.day} {time:%B %Y, %H:%M}" if time else "time unknown"


def _plain(name: str) -> str:
    return "".join(letter if letter.isalnum() else "-" for letter in name)[-40:].strip("-") or "encoder"


def _add_signals(rows: Sequence[dict[str, Any]], player: Mem0Player) -> None:
    """Add to each question what the encoder alone finds, and what went into the scores of the search."""
    for row, alone, details in zip(rows, player.alone, player.details, strict=True):
        row |= {"alone": alone, "details": dict(details[0]) if details else {}, "fused": is_fused(details)}


def _asked(conversation: Conversation, rows: Sequence[Mapping[str, Any]]) -> list[Asked]:
    return [
        Asked(
            conversation=conversation.id,
            number=number,
            question=question,
            ranking=tuple(row["ranking"]),
            memories=tuple(row["memories"]),
            relevant=frozenset(row["relevant"]),
            scored=bool(row["scored"]),
            alone=tuple(row["alone"]) if "alone" in row else None,
            details=row.get("details", {}),
            fused=bool(row.get("fused")),
        )
        for number, (question, row) in enumerate(zip(conversation.questions, rows, strict=True))
    ]


def answer(reader: Reader, asked: Sequence[Asked], name: str) -> tuple[Reading, ...]:
    """Return the reader's answers."""
    stage(f"{reader.name} answers {len(asked)} questions from what {name} found")
    return tuple(read_all(reader, [(one.question.text, one.memories) for one in asked], f"{name}: reading"))


def score_run(
    asked: Sequence[Asked], readings: Sequence[Reading], judge: AnswerJudge | None
) -> tuple[dict[str, NDArray[np.float64]], NDArray[np.float64]]:
    """Return the scores by name, and the recall by k; see `EncoderRun`. A question that failed scores 0."""
    ndcg10, recalls = _retrieval_scores(asked, [one.ranking for one in asked])
    scores = {"ndcg10": ndcg10}
    if all(one.alone is not None for one in asked):
        scores["alone_ndcg10"], alone = _retrieval_scores(asked, [one.alone or () for one in asked])
        scores["alone_recall10"] = alone[:, 9]
    if readings:
        scores |= _answer_scores(asked, readings)
        if judge is not None:
            scores["judge"] = judge.score_all([one.question for one in asked], readings)
    return scores, recalls


def _retrieval_scores(
    asked: Sequence[Asked], rankings: Sequence[Sequence[str]]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return nDCG@10 of shape (n,) and the recall by k of shape (n, 20); NaN where a question is not scored."""
    gains = np.zeros((len(asked), len(KS)))
    for row, (one, ranking) in enumerate(zip(asked, rankings, strict=True)):
        hits = [name in one.relevant for name in dict.fromkeys(ranking)][: len(KS)]
        gains[row, : len(hits)] = hits
    totals = np.array([len(one.relevant) for one in asked], dtype=np.int64)
    scored = np.array([one.scored for one in asked], dtype=bool)
    safe = np.maximum(totals, 1)
    ideal = (np.arange(len(KS))[None, :] < safe[:, None]).astype(np.float64)
    recalls = np.stack([np.where(scored, recall(gains, safe, k), np.nan) for k in KS], axis=1)
    return np.where(scored, ndcg(gains, ideal, 10), np.nan), recalls


def _answer_scores(asked: Sequence[Asked], readings: Sequence[Reading]) -> dict[str, NDArray[np.float64]]:
    scores = {name: np.full(len(asked), np.nan) for name in (*SCORES, "abstained")}
    for row, (one, reading) in enumerate(zip(asked, readings, strict=True)):
        if one.question.category == 5:
            scores["abstained"][row] = float(not reading.failure and abstained(reading.text))
        elif one.question.answer:
            for name, value in score_answer(reading.text, one.question.answer, one.question.category).items():
                scores[name][row] = value
    return scores
