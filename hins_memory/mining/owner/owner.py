"""One owner's memories as the miner works on them: unique texts, vectors, words, speakers, conversations, topics."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, TypeVar, overload

from hins_memory.mining.owner.text import Lexicon, clean, normalized, words
from hins_memory.mining.owner.topics import assign_topics
from hins_memory.mining.owner.vectors import Neighbours, VectorFolder, rows_of
from hins_memory.types import Memory, ScopeLog

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from hins_memory.encoders.encoder import Encoder

__all__ = ["OwnerMemories", "build_owner", "owner_of", "speaker_of"]


_Item = TypeVar("_Item")


class _Part(Sequence[_Item]):
    """Some items of a sequence, by their places; none is copied, because few of them are looked at."""

    __slots__ = ("_all", "_places")

    def __init__(self, everything: Sequence[_Item], places: list[int]) -> None:
        self._all = everything
        self._places = places

    def __len__(self) -> int:
        return len(self._places)

    def __iter__(self) -> Iterator[_Item]:
        return map(self._all.__getitem__, self._places)

    @overload
    def __getitem__(self, index: int) -> _Item: ...

    @overload
    def __getitem__(self, index: slice) -> Sequence[_Item]: ...

    def __getitem__(self, index: int | slice) -> _Item | Sequence[_Item]:
        if isinstance(index, slice):
            return _Part(self._all, self._places[index])
        return self._all[self._places[index]]


@dataclass(frozen=True, slots=True)
class OwnerMemories:
    """The live memories of one owner, one row for each distinct text of a speaker in a conversation.

    Rows are in order of conversation, then of time. `rows` maps every memory id to its row, duplicates included.
    `neighbours` is None where a query is compared with all rows; else the owner has too many for that, `vectors` is
    a float16 memory map, and queries are compared with the rows around them (neighbourhood.py).
    """

    memories: Sequence[Memory]
    texts: Sequence[str]
    keys: Sequence[str]
    speakers: Sequence[str]
    rows: Mapping[str, int]
    # (n, dim), unit length
    vectors: NDArray[np.float32]
    # the speakers' names, in lower case, with their codes
    names: Mapping[str, int]
    # the stems of their words
    name_stems: frozenset[str]
    # (n,) codes; equal codes mean the same text, speaker (-1: unknown), conversation, topic of a conversation
    key_codes: NDArray[np.int64]
    speaker_codes: NDArray[np.int64]
    conversations: NDArray[np.int64]
    topics: NDArray[np.int64]
    lexicon: Lexicon
    neighbours: Neighbours | None = None

    @property
    def conversation_count(self) -> int:
        """How many conversations the memories come from."""
        return len(set(self.conversations.tolist()))

    def take(self, rows: NDArray[np.int64]) -> OwnerMemories:
        """Return the owner with some of its rows only, given in ascending order; `rows` is empty there."""
        places = rows.tolist()
        return OwnerMemories(
            memories=_Part(self.memories, places),
            texts=_Part(self.texts, places),
            keys=_Part(self.keys, places),
            speakers=_Part(self.speakers, places),
            rows={},
            vectors=rows_of(self.vectors, rows),
            names=self.names,
            name_stems=self.name_stems,
            key_codes=self.key_codes[rows],
            speaker_codes=self.speaker_codes[rows],
            conversations=self.conversations[rows],
            topics=self.topics[rows],
            lexicon=self.lexicon.take(rows),
        )

    def kept(self, rows: NDArray[np.int64], folder: VectorFolder) -> OwnerMemories:
        """Return the owner with some of its rows only, given in ascending order, as if it had no others.

        Args:
            rows: which rows stay.
            folder: where the vectors of very many memories go.

        Raises:
            HinsError: the disk has no room for the vectors.
        """
        places = rows.tolist()
        return owner_of(
            [self.memories[row] for row in places],
            [self.texts[row] for row in places],
            [self.keys[row] for row in places],
            [self.speakers[row] for row in places],
            folder.rows(self.vectors, rows),
            self.topics[rows],
            folder,
        )


def speaker_of(memory: Memory, speakers: Iterable[str], turn_speakers: Mapping[str, str]) -> str:
    """Return whom a memory is by or about: its own speaker, else a name that its text or its turns give, else "".

    Args:
        memory: the memory.
        speakers: the names of the conversation's speakers.
        turn_speakers: the speaker of each turn id.
    """
    if memory.speaker:
        return memory.speaker
    first: tuple[int, str] | None = None
    for name, form in _name_forms(speakers):
        found = re.search(rf"(?<!\w){re.escape(form)}(?!\w)", memory.text, re.IGNORECASE)
        if found and (first is None or found.start() < first[0]):
            first = (found.start(), name)
    if first is not None:
        return first[1]
    sources = {turn_speakers.get(turn, "") for turn in memory.turn_ids}
    return sources.pop() if len(sources) == 1 else ""


def _name_forms(speakers: Iterable[str]) -> list[tuple[str, str]]:
    """Return how each speaker may be called: by the whole name, and by its first word where no other shares it."""
    names = sorted({name for name in speakers if name.strip()})
    firsts = Counter(name.split()[0].casefold() for name in names)
    forms = [(name, name) for name in names]
    forms += [(name, name.split()[0]) for name in names if firsts[name.split()[0].casefold()] == 1]
    return list(dict.fromkeys(forms))


def build_owner(
    log: ScopeLog, encoder: Encoder, skipped: Counter[str], folder: VectorFolder | None = None
) -> OwnerMemories:
    """Prepare one owner's memories.

    Args:
        log: what the log holds of the owner.
        encoder: gives the memories their vectors.
        skipped: what is left out is counted here by reason.
        folder: where the vectors of very many memories go; None keeps them in memory however many they are.

    Raises:
        HinsError: the disk has no room for the vectors.
    """
    speakers_in: dict[str, set[str]] = {}
    turn_speakers = {turn.id: turn.speaker for turn in log.turns}
    for turn in log.turns:
        speakers_in.setdefault(turn.conversation, set()).add(turn.speaker)
    unique: dict[tuple[str, str, str], list[Memory]] = {}
    for memory in sorted(log.memories, key=lambda one: (one.conversation, one.time)):
        if not memory.text.strip():
            skipped["memories without text"] += 1
            continue
        speaker = speaker_of(memory, speakers_in.get(memory.conversation, ()), turn_speakers)
        group = unique.setdefault((memory.conversation, speaker.casefold(), normalized(memory.text)), [])
        skipped["memories that repeat another"] += bool(group)
        group.append(memory)
    firsts = [group[0] for group in unique.values()]
    texts = [clean(memory.text) for memory in firsts]
    vectors = folder.encode(encoder, texts) if folder else encoder.encode(texts, role="document")
    conversations = _codes([memory.conversation for memory in firsts])
    topics = assign_topics(vectors, [memory.topic for memory in firsts], conversations)
    speakers, keys = [speaker for _, speaker, _ in unique], [key for *_, key in unique]
    owner = owner_of(firsts, texts, keys, speakers, vectors, topics, folder)
    rows = {memory.id: row for row, group in enumerate(unique.values()) for memory in group}
    return replace(owner, rows=rows)


def owner_of(
    memories: Sequence[Memory],
    texts: Sequence[str],
    keys: Sequence[str],
    speakers: Sequence[str],
    vectors: NDArray[np.float32],
    topics: NDArray[np.int64],
    folder: VectorFolder | None,
) -> OwnerMemories:
    """Make an `OwnerMemories` from the data of its rows.

    Args:
        memories: one for each distinct text of a speaker in a conversation, in order of conversation, then of time.
        texts: their texts, cleaned.
        keys: their texts, normalized.
        speakers: whom each is by or about; "" when unknown.
        vectors: unit vectors of shape (n, dim).
        topics: codes of shape (n,).
        folder: makes the search among very many vectors; None makes none.
    """
    speaker_codes = _codes(speakers, unknown="")
    names = {name: code for name, code in zip(speakers, speaker_codes.tolist(), strict=True) if code >= 0}
    return OwnerMemories(
        memories=tuple(memories),
        texts=tuple(texts),
        keys=tuple(keys),
        speakers=tuple(speakers),
        rows={memory.id: row for row, memory in enumerate(memories)},
        vectors=vectors,
        names=names,
        name_stems=frozenset(stem for name in names for stem in words(name)),
        key_codes=_codes(keys),
        speaker_codes=speaker_codes,
        conversations=_codes([memory.conversation for memory in memories]),
        topics=topics,
        lexicon=Lexicon(keys),
        neighbours=folder.neighbours(vectors) if folder else None,
    )


def _codes(names: Sequence[str], unknown: str | None = None) -> NDArray[np.int64]:
    """Return equal codes for equal names, shape (n,); -1 for the name that stands for unknown."""
    import numpy as np

    known: dict[str, int] = {} if unknown is None else {unknown: -1}
    first = 0 if unknown is None else -1
    return np.asarray([known.setdefault(name, len(known) + first) for name in names], dtype=np.int64)
