"""Answers side by side: the same questions, drawn beforehand, answered from what each of several sources shows.

A source is an encoder, whose memories a real Mem0 finds, or one of two ends: `NOTHING` is shown, or the turns that hold
the evidence (`EVIDENCE`), as if the retrieval were perfect. A question is answered from every source before the next
one is asked. So a run that is stopped at any time compares all sources on the same questions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hins_memory.llm import BudgetError, LlmError
from parts.common.screen import progress
from parts.datasets.locomo import Conversation, documents
from parts.locomo.side_by_side import Asked, shown
from parts.qa.readers import Reader, Reading
from parts.qa.scores import SCORES, score_answer

__all__ = ["ENDS", "EVIDENCE", "NOTHING", "Answers", "Context", "answer_all", "draw", "end_contexts", "found_contexts"]

#: The source that shows no memory at all.
NOTHING = "nothing"
#: The source that shows the turns that hold the evidence, in the order of the conversation.
EVIDENCE = "evidence"
ENDS = (NOTHING, EVIDENCE)


@dataclass(frozen=True, slots=True)
class Context:
    """What a source shows a reader of one question; `recall` is the share of the evidence among it."""

    memories: tuple[str, ...]
    recall: float


@dataclass(frozen=True, slots=True)
class Answers:
    """The answers to those of the questions that every source was asked.

    Attributes:
        questions: how many they are.
        drawn: how many were drawn.
        failed: how many answers the endpoint spoilt, over all sources; each scores 0.
        scores: source -> score -> array of shape (questions,), 0 to 1; ``recall`` is among the scores.
    """

    questions: int
    drawn: int
    failed: int
    scores: Mapping[str, Mapping[str, NDArray[np.float64]]]


def draw(asked: Sequence[Asked], count: int, seed: int) -> list[Asked]:
    """Draw questions of categories 1 to 4 that have an answer and evidence, in a random order.

    The order does not depend on `count`: fewer questions are the first of more.
    """
    usable = [one for one in asked if one.question.category != 5 and one.question.answer and one.question.evidence]
    order = np.random.default_rng(seed).permutation(len(usable))
    return [usable[place] for place in order[:count]]


def end_contexts(drawn: Sequence[Asked], data: Sequence[Conversation]) -> dict[str, list[Context]]:
    """Return what the two ends of `ENDS` show of each question."""
    texts = {one.id: shown(one, documents(one, "turns")) for one in data}
    evidence = []
    for one in drawn:
        turns = texts[one.conversation]
        evidence.append(Context(tuple(turns[name] for name in turns if name in one.question.evidence), 1.0))
    return {NOTHING: [Context((), 0.0) for _ in drawn], EVIDENCE: evidence}


def found_contexts(drawn: Sequence[Asked], asked: Sequence[Asked], limit: int) -> list[Context]:
    """Return what an encoder shows: the first `limit` memories that the agent found with it."""
    by_question = {(one.conversation, one.number): one for one in asked}
    contexts = []
    for question in drawn:
        one = by_question[question.conversation, question.number]
        hits = len(one.relevant.intersection(one.ranking[:limit]))
        contexts.append(Context(one.memories[:limit], hits / max(1, len(one.relevant))))
    return contexts


def answer_all(
    reader: Reader, drawn: Sequence[Asked], contexts: Mapping[str, Sequence[Context]], label: str
) -> Answers:
    """Let a reader answer each question from every source, and score the answers.

    Args:
        reader: answers; one whose budget is spent still gives the answers that are kept.
        drawn: the questions, in the order in which they are asked.
        contexts: source -> what it shows of each question.
        label: what the progress bar says.

    Raises:
        LlmError: the endpoint refuses every request, e.g. for a wrong key.
    """
    rows: dict[str, list[dict[str, float]]] = {name: [] for name in contexts}
    failed = 0

    def one(number: int) -> dict[str, Reading] | None:
        return _answered(
            reader, drawn[number].question.text, {n: all_[number].memories for n, all_ in contexts.items()}
        )

    pool = ThreadPoolExecutor(reader.workers, thread_name_prefix="answers")
    try:
        futures = [pool.submit(one, number) for number in range(len(drawn))]
        for number, future in enumerate(progress(futures, label)):
            for name, reading in (future.result() or {}).items():
                question = drawn[number].question
                failed += bool(reading.failure)
                scores = score_answer(reading.text, question.answer, question.category)
                rows[name].append({**scores, "recall": contexts[name][number].recall})
    finally:
        # After an error, what was not begun is not begun any more.
        pool.shutdown(cancel_futures=True)
    names = (*SCORES, "recall")
    scores_of = {
        source: {name: np.array([row[name] for row in found]) for name in names} for source, found in rows.items()
    }
    count = len(next(iter(rows.values()), []))
    return Answers(count, len(drawn), failed, scores_of)


def _answered(reader: Reader, question: str, memories: Mapping[str, Sequence[str]]) -> dict[str, Reading] | None:
    """Return the answer from every source; None where the budget does not last for all of them."""
    found = {}
    for name, texts in memories.items():
        try:
            found[name] = Reading(reader.read(question, texts))
        except BudgetError:
            # Later questions may have been asked in an earlier run.
            return None
        except LlmError as error:
            if error.refused:
                raise
            found[name] = Reading("", error.problem)
    return found
