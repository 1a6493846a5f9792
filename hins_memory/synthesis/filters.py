"""Quality controls of synthetic questions: diversity, and no leakage from evaluation sets."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from random import Random

from hins_memory.errors import ConfigError
from hins_memory.synthesis.conversation import Conversation, Query
from hins_memory.synthesis.rules.words import FEMALE, MALE

__all__ = ["Exclusion", "Selection"]

#: This many consecutive words in common with an excluded text count as a quotation.
_QUOTED_WORDS = 8
# The same question, with any names, is available at most this many times. Without the limit, in one seed, the packaged
# conversations lost 1.4 points and preferences 1.1, and LoCoMo's turns gained 1.3 (docs/results/cold-start.md).
_REPEATS = 20
# "Ana: ..." at the beginning of a line or of a quoted string names a speaker.
_SPEAKER = re.compile(r"(?:^|[\"'])([A-Z][a-z]+)(?:[\"']|:)", re.MULTILINE)
_WORD = re.compile(r"[^\W_]+(?:'[^\W_]+)?")


@dataclass(frozen=True, slots=True)
class Exclusion:
    """Names and texts that must not occur in what is synthesised, because an evaluation uses them."""

    names: frozenset[str] = frozenset()
    quotations: frozenset[tuple[str, ...]] = field(default=frozenset(), repr=False)

    @classmethod
    def of(cls, texts: Iterable[str], names: Iterable[str] = ()) -> Exclusion:
        """Make an exclusion of names and of every run of eight words in the texts."""
        quoted = {run for text in texts for run in _runs(text)}
        return cls(frozenset(name.lower() for name in names), frozenset(quoted))

    @classmethod
    def of_file(cls, path: Path) -> Exclusion:
        """Make an exclusion of a text file: of its runs of eight words, and of the first names in it.

        Raises:
            ConfigError: the file cannot be read.
        """
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"{path} cannot be read: {error}.", "Give a text file in UTF-8.") from error
        return cls.of(text.split("\n"), known_names(text))

    def allows(self, text: str) -> bool:
        """Tell whether a text has none of the names and quotes none of the texts."""
        if self.names and self.names.intersection(word.lower() for word in _WORD.findall(text)):
            return False
        return not self.quotations or not any(run in self.quotations for run in _runs(text))


def known_names(text: str) -> set[str]:
    """Return the names in a text: of its speakers, and those that invented speakers may get.

    Other capitalised words are not taken for names.
    """
    words = set(_WORD.findall(text))
    speakers = set(_SPEAKER.findall(text))
    return speakers | words.intersection(FEMALE + MALE)


def _runs(text: str) -> Iterable[tuple[str, ...]]:
    words = [word.lower() for word in _WORD.findall(text)]
    return (tuple(words[i : i + _QUOTED_WORDS]) for i in range(len(words) - _QUOTED_WORDS + 1))


class Selection:
    """Chooses the questions of one conversation after another.

    Args:
        queries: at most this many questions are kept in all, spread evenly over the conversations; 0 keeps all.
        conversations: how many there will be; only `queries` needs it.
        seed: of what is kept where there is more.
        dropped: reason -> count of what was left out, added to.
    """

    def __init__(self, queries: int, conversations: int, seed: int, dropped: Counter[str]) -> None:
        self._queries = queries
        self._left = conversations
        self._kept = 0
        self._dropped = dropped
        self._seen: Counter[str] = Counter()
        self._rng = Random(seed)

    def select(self, conversation: Conversation) -> Conversation:
        """Return the conversation with the questions that pass."""
        queries = list(conversation.queries)
        self._rng.shuffle(queries)
        queries = _diverse(queries, conversation, self._seen, self._dropped)
        share = len(queries)
        if self._queries:
            share = max(0, round((self._queries - self._kept) / max(self._left, 1)))
        queries = queries[:share]
        self._kept += len(queries)
        self._left -= 1
        return replace(conversation, queries=tuple(queries))


def _diverse(
    queries: Sequence[Query],
    conversation: Conversation,
    seen: Counter[str],
    dropped: Counter[str],
) -> list[Query]:
    """Return each question once, and the same question with other names at most `_REPEATS` times."""
    kept: dict[str, Query] = {}
    for query in queries:
        bare = query.text
        for name in conversation.speakers:
            bare = bare.replace(name, "")
        if query.text in kept:
            dropped["asked before in the conversation"] += 1
        elif seen[bare] >= _REPEATS:
            dropped["asked often in other conversations"] += 1
        else:
            seen[bare] += 1
            kept[query.text] = query
    return list(kept.values())
