"""A project to serve: the stock encoder with traffic to judge 8 bits by, or towers to flip between."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from hins_memory.config import Settings
from hins_memory.data.sample_conversations import load_sample
from hins_memory.database.engine import open_database
from hins_memory.encoders.encoder import Encoder
from hins_memory.encoders.score_offset import with_shift
from hins_memory.encoders.sides import two_sided
from hins_memory.log.writer import LogWriter
from hins_memory.registry.registry import EncoderVersion, Registry
from hins_memory.types import Feedback, Memory, RankedMemory, Retrieval, Scope

__all__ = ["add_shifted_tower", "shift_of_seed", "write_sample_traffic"]

_TOP = 10


def write_sample_traffic(settings: Settings, encoder: Encoder) -> int:
    """Record the packaged conversations as traffic: each question searched by cosine, what answers it confirmed.

    Returns:
        How many questions found what answers them.
    """
    writer, found = LogWriter(open_database(settings.database_url)), 0
    for one in load_sample():
        scope = Scope(user=one.id)
        memories = [
            Memory(
                f"{one.id}/{turn.id}",
                scope,
                f"s{place}",
                f"{turn.speaker}: {turn.text}",
                turn.speaker,
                time=session.time,
            )
            for place, session in enumerate(one.sessions)
            for turn in session.turns
        ]
        end = max(memory.time for memory in memories)
        vectors = encoder.encode([memory.text for memory in memories])
        queries = encoder.encode([question.question for question in one.questions], role="query")
        events: list[Retrieval | Feedback] = []
        for number, question in enumerate(one.questions):
            cosines = vectors @ queries[number]
            best = np.argsort(-cosines)[:_TOP].tolist()
            results = tuple(RankedMemory(memories[row].id, memories[row].text, float(cosines[row])) for row in best)
            name = f"{one.id}-{number}"
            events.append(Retrieval(scope, question.question, results, time=end + number, id=name))
            right = [row.memory_id for row in results if row.memory_id.partition("/")[2] in question.evidence]
            events += [Feedback(id, "POSITIVE", name, time=end + number + 0.5) for id in right]
            found += bool(right)
        writer.write([*memories, *events])
    return found


def shift_of_seed(dim: int, seed: int, length: float = 0.7) -> np.ndarray[tuple[int], np.dtype[np.float32]]:
    """Return a vector of a random direction."""
    drawn = np.random.default_rng(seed).normal(size=dim)
    return np.asarray(length * drawn / np.linalg.norm(drawn), dtype=np.float32)


def add_shifted_tower(registry: Registry, documents: Encoder, folder: Path, seed: int) -> EncoderVersion:
    """Add a version whose queries are those of the documents' encoder plus a vector, as unit vectors again."""
    import torch

    shift = torch.from_numpy(shift_of_seed(documents.dim, seed))
    two_sided(with_shift(documents.model, shift), documents.model).save(str(folder), safe_serialization=True)
    about = {"mode": "tower", "base": documents.version, "document_space": documents.version, "seed": seed}
    return registry.add(folder, about)
