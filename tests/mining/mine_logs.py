"""Small logs for the miner's tests, written out by hand."""

import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from hins_memory.types import Answer, Memory, RankedMemory, Retrieval, Scope, ScopeLog

DAY = 86_400.0

SAILING = (
    ("Ilse", "I bought a wooden dinghy in Kiel last week, it is called Möwe."),
    ("Bram", "Lovely! My own boat is an old catamaran that leaks at the stern."),
    ("Ilse", "We sail from the harbour at Laboe every Sunday morning."),
    ("Bram", "I prefer the lake, the waves on the sea make me sick."),
    ("Ilse", "The sail tore in May, so I sewed a new one from orange canvas."),
    ("Bram", "My catamaran still has the white sail that my uncle gave me."),
)
COOKING = (
    ("Ilse", "For supper I baked a plum cake with cinnamon for my sister Greta."),
    ("Bram", "I burnt the lentil soup again and we ordered pizza with anchovies."),
    ("Ilse", "My favourite kitchen knife came from a market in Lyon."),
    ("Bram", "I only own one pan, and it is made of cast iron."),
    ("Ilse", "Greta is allergic to walnuts, so the cake has none."),
    ("Bram", "My doctor told me to eat less salt and more fish."),
)
GARDEN = (
    ("Ilse", "The tomatoes on the balcony are ripe, I picked four kilos."),
    ("Bram", "Slugs ate all the lettuce that I planted behind the shed."),
)


def memories(scope: Scope, conversation: str, turns: Sequence[tuple[str, str]], start: float = 0.0) -> list[Memory]:
    """One memory a turn, written ``Speaker: text``, a minute apart."""
    return [
        Memory(
            id=f"{scope.key}/{conversation}/{place}",
            scope=scope,
            conversation=conversation,
            text=f"{speaker}: {text}",
            speaker=speaker,
            time=start + 60.0 * place,
        )
        for place, (speaker, text) in enumerate(turns)
    ]


def retrieval(scope: Scope, query: str, found: Sequence[Memory], time: float = 10 * DAY, name: str = "") -> Retrieval:
    """A search that returned the given memories in that order."""
    results = tuple(RankedMemory(memory.id, memory.text, 1.0 / rank) for rank, memory in enumerate(found, 1))
    return Retrieval(scope, query, results, time=time, id=name or f"{scope.key}:{query}")


def sailor(user: str = "ilse", conversations: int = 2) -> ScopeLog:
    """An owner of up to three conversations who asked three questions and got answers."""
    scope = Scope(user=user)
    talks = (SAILING + COOKING, GARDEN, COOKING[:2])[:conversations]
    stored = [memory for number, talk in enumerate(talks) for memory in memories(scope, f"c{number}", talk)]
    first = stored[:12]
    asked = (
        ("What is Ilse's dinghy called?", "Möwe", first[:6]),
        ("Which cake did Ilse bake for her sister?", "a plum cake with cinnamon", first[6:] + first[:2]),
        ("What is Bram's pan made of?", "cast iron", first[6:]),
    )
    retrievals = tuple(retrieval(scope, query, found) for query, _, found in asked)
    answers = tuple(Answer(one.id, answer) for one, (_, answer, _) in zip(retrievals, asked, strict=True))
    return ScopeLog(scope, memories=tuple(stored), retrievals=retrievals, answers=answers)


PUBLIC = (
    "The museum opens at nine on weekdays.",
    "A bus leaves for the airport every twenty minutes.",
    "The bridge was painted green by the town council.",
    "Tickets for the concert cost thirty euros at the door.",
)


def mine_slowly(channel: Any, folder: Path, path: Path) -> None:
    """Mine owner after owner into a file, and say which: the work of a process that is killed."""
    from hins_memory.encoders.encoder import Encoder
    from hins_memory.mining import mine_to_parquet
    from hins_memory.mining.storage import mining_store

    mining_store._COMMIT_SECONDS = 0.2

    def logs() -> Iterator[ScopeLog]:
        for number in range(2000):
            channel.send(number)
            yield sailor(f"user{number}")
            time.sleep(0.02)

    mine_to_parquet(logs(), Encoder.load(folder), path)
