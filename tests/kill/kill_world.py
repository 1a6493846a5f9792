"""A project with a log of packaged conversations, and a pipeline over it that is quick enough to be killed often."""

from __future__ import annotations

from pathlib import Path

from hins_memory.config import Settings
from hins_memory.data.sample_conversations import load_sample
from hins_memory.database.engine import open_database
from hins_memory.evaluation.gate import GateSettings
from hins_memory.log.writer import LogWriter
from hins_memory.loop.pipeline import LoopSettings, Pipeline
from hins_memory.training import TrainSettings
from hins_memory.types import Answer, Event, Memory, RankedMemory, Retrieval, Scope, Turn


def make_pipeline(home: Path) -> Pipeline:
    """The pipeline of a home with a log: what is learnt is not the point here."""
    loop = LoopSettings(
        train=TrainSettings(epochs=0.1, min_steps=6, batch_size=8, lora_rank=4, max_tokens=32),
        # Named: in a process of its own, all of them would be measured.
        gate=GateSettings(held_out_share=0.2, min_queries=5, skills=("preference",)),
    )
    return Pipeline(Settings(home=home, project="test"), loop=loop)


def write_log(home: Path, conversations: int = 3) -> None:
    """Record conversations with their questions, as an agent that stores every turn would."""
    events: list[Event] = []
    for conversation in load_sample()[:conversations]:
        scope = Scope(user=conversation.id)
        rows = []
        for session in conversation.sessions:
            for turn in session.turns:
                said = Turn(scope, scope.key, turn.speaker, turn.text)
                stored = Memory(f"m-{said.id}", scope, scope.key, turn.text, turn.speaker, (said.id,))
                events += [said, stored]
                rows.append(stored)
        for question in conversation.questions:
            words = set(question.answer.lower().split())
            ranked = sorted(rows, key=lambda row: -len(words & set(row.text.lower().split())))[:10]
            results = tuple(RankedMemory(row.id, row.text, 0.5) for row in ranked)
            asked = Retrieval(scope=scope, query=question.question, results=results, encoder_version="stock")
            events += [asked, Answer(asked.id, question.answer)]
    engine = open_database(Settings(home=home, project="test").database_url)
    LogWriter(engine).write(events)
    engine.dispose()
