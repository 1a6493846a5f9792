"""A real Mem0 that has been used: packaged conversations played through it, questions asked and answered."""

from __future__ import annotations

from typing import Any

from hins_memory.data.sample_conversations import SampleConversation, load_sample
from hins_memory.evaluation.gate import GateSettings
from hins_memory.loop.pipeline import LoopSettings
from hins_memory.training import TrainSettings

#: Small enough for a test: what is learnt is not the point here.
QUICK = LoopSettings(
    train=TrainSettings(mode="lora", epochs=1.0, min_steps=1, lora_rank=4, max_tokens=32),
    gate=GateSettings(held_out_share=0.2, min_queries=5),
)


def play(memory: Any, conversation: SampleConversation, questions: int = 1000) -> None:
    """Store one memory a turn, then ask and answer."""
    # Mem0 embeds one text at a time. Together they take a tenth of the time, and the encoder keeps their vectors.
    encoder = memory.embedding_model.encoder
    encoder.encode([f"{turn.speaker}: {turn.text}" for turn in conversation.turns])
    encoder.encode([asked.question for asked in conversation.questions[:questions]], role="query")
    for session in conversation.sessions:
        messages = [
            {"role": "user", "name": turn.speaker, "content": f"{turn.speaker}: {turn.text}"} for turn in session.turns
        ]
        memory.add(messages, user_id=conversation.id, infer=False)
    for question in conversation.questions[:questions]:
        found = memory.search(question.question, filters={"user_id": conversation.id}, top_k=20)
        memory.answered(found["retrieval_id"], question.answer)


def sample(count: int) -> list[SampleConversation]:
    return load_sample()[:count]
