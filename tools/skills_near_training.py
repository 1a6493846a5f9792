"""Check that no text of the packaged skills is near a text that encoders are trained on, or that they are judged by.

    python tools/skills_near_training.py

Two checks against the packaged seed facts, the replayed and the general questions and the sample conversations: no
six words in a row in common, and no cosine of the stock encoder of 0.9 or more. The exit status is 1 where one fails.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from hins_memory.data import packaged
from hins_memory.encoders.encoder import Encoder
from hins_memory.evaluation import skill_sets

__all__ = ["MAX_COSINE", "WORDS_IN_A_ROW", "main", "shared_runs", "skill_texts", "training_texts"]

#: Texts of the skills with this cosine to a training text, or more, are too near.
MAX_COSINE = 0.9
#: As many words in a row of a training text are too many.
WORDS_IN_A_ROW = 6
_FILES = ("seed_facts.jsonl", "changes.jsonl", "replay.jsonl", "general.jsonl")
# What each training text leaves open is the name of its owner.
_OWNER = "{0}"


def training_texts() -> list[str]:
    """Return every text of the packaged training and evaluation data outside of the skills, each once."""
    values: list[Any] = []
    for name in _FILES:
        lines = packaged(name).read_text(encoding="utf-8").strip().split("\n")
        values += [json.loads(line) for line in lines]
    samples = [one for one in packaged("sample").iterdir() if one.name.endswith(".json")]
    values += [json.loads(one.read_text(encoding="utf-8")) for one in samples]
    # ids, kinds and times are single words
    return sorted({text for value in values for text in _texts(value) if " " in text})


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for each in value.values():
            yield from _texts(each)
    elif isinstance(value, list):
        for each in value:
            yield from _texts(each)


def skill_texts() -> list[str]:
    """Return every memory and question of both halves of the skills, each once."""
    sets = [*skill_sets("choose"), *skill_sets("judge")]
    return sorted({text for one in sets for text in (*one.documents.values(), *(query.text for query in one.queries))})


def _runs(text: str) -> set[tuple[str, ...]]:
    words = re.findall(r"[^\W_]+", text.replace(_OWNER, "").lower())
    return set(zip(*(words[start:] for start in range(WORDS_IN_A_ROW)), strict=False))


def shared_runs(texts: Iterable[str], training: Iterable[str]) -> list[tuple[str, str]]:
    """Return the texts that have words in a row in common with a training text, each with one such run."""
    known = {run for text in training for run in _runs(text)}
    return [(text, " ".join(min(found))) for text in texts if (found := _runs(text) & known)]


def main() -> int:
    """Print what is too near and return the exit status."""
    texts, training = skill_texts(), training_texts()
    runs = shared_runs(texts, training)
    for text, run in runs:
        print(f"{run!r} is in a training text too: {text}")
    encoder = Encoder.load("stock")
    # (texts, training texts)
    cosines = encoder.encode(texts) @ encoder.encode(training).T
    nearest = cosines.max(axis=1)
    near = np.flatnonzero(nearest >= MAX_COSINE)
    for row in near:
        print(f"cosine {nearest[row]:.2f}: {texts[row]} | {training[int(cosines[row].argmax())]}")
    print(f"{len(texts)} texts, {len(training)} training texts, nearest cosine {nearest.max():.3f}")
    return 1 if runs or len(near) else 0


if __name__ == "__main__":
    sys.exit(main())
