"""Words of a text as attribution compares them, and how rare they are among an owner's memories."""

from __future__ import annotations

import math
import re
import unicodedata
from array import array
from collections import defaultdict
from collections.abc import Iterable, Sequence
from functools import lru_cache, partial
from typing import TYPE_CHECKING

from hins_memory.data.examples import without_surrogates

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["EXAMPLE_CHARS", "Lexicon", "clean", "normalized", "words", "words_of"]

#: Texts of examples are cut to this many characters; encoders read far less.
EXAMPLE_CHARS = 8_000
_WORD = re.compile(r"[^\W_]+(?:['’][^\W_]+)?", re.UNICODE)
# Scripts written without spaces: each character is its own word, so that overlap means something.
_UNSPACED = re.compile(r"[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff]")
# Function words of English questions and answers; in other languages rarity does the same work.
_STOPWORD_TEXT = """
    a about after all also am an and any are as at be because been before being but by can could did do does doing
    for from had has have having he her hers him his how i if in into is it its just like may me might mine more most
    my no nor not of on once only or other our ours out over own same shall she should so some such than that the
    their theirs them then there these they this those to too under until up very was we were what when where which
    while who whom whose why will with would yes you your yours
"""
_STOPWORDS = frozenset(_STOPWORD_TEXT.split())
_SUFFIXES = ("ational", "ations", "ation", "ingly", "ments", "ment", "ness", "ings", "ing", "ies", "ied", "edly", "ed")
_SHORT_SUFFIXES = ("es", "ly", "s", "e", "y")
# How many stems are counted one by one, among how many memories at most, before all are read for all stems.
_COUNTED = 16
_COUNTED_AMONG = 2_000


def clean(text: str) -> str:
    """Return the text cut to `EXAMPLE_CHARS`, with lone surrogates replaced, which no tokenizer takes."""
    return without_surrogates(text[:EXAMPLE_CHARS])


def normalized(text: str) -> str:
    """Return the text in Unicode form NFKC, lower case, white space collapsed, cut to `EXAMPLE_CHARS`."""
    return " ".join(unicodedata.normalize("NFKC", text[:EXAMPLE_CHARS]).casefold().split())


@lru_cache(maxsize=1 << 16)
def _stem(word: str) -> str:
    """Remove English endings. A simple rule is enough, because both sides of a comparison use it."""
    word = word.split("'")[0].split("’")[0]
    if len(word) <= 3 or not word.isascii() or not word.isalpha():
        return word
    for suffix in _SUFFIXES:
        if word.endswith(suffix) and len(word) - len(suffix) >= 3:
            word = word[: -len(suffix)]
            # "running" -> "runn" -> "run"
            return word[:-1] if len(word) > 3 and word[-1] == word[-2] else word
    for suffix in _SHORT_SUFFIXES:
        if word.endswith(suffix) and len(word) - len(suffix) >= 3:
            return word[: -len(suffix)]
    return word


def words(text: str) -> list[str]:
    """Return the stems of the content words of a text, in order; numbers are words."""
    return words_of(normalized(text))


def words_of(plain: str) -> list[str]:
    """Return the `words` of a text that is `normalized` already."""
    if plain.isascii():
        return [_stem(word) for word in _WORD.findall(plain) if word not in _STOPWORDS]
    found: list[str] = []
    for word in _WORD.findall(plain):
        if not word.isascii() and _UNSPACED.search(word):
            found.extend(word)
        elif word not in _STOPWORDS:
            found.append(_stem(word))
    return found


class Lexicon:
    """Which stems occur in which of an owner's memories, and how rare each stem is among them.

    The weight of a stem is its inverse document frequency log((n + 1) / (df + 0.5)), never below 0.1.

    Args:
        keys: the memories' texts, `normalized`. Their words are looked for when they are needed, because owners without
            answers need those of a few memories at most.
    """

    def __init__(self, keys: Sequence[str]) -> None:
        self._keys = keys
        self._size = len(keys)
        self._counts: dict[str, int] = {}
        self._known: dict[str, frozenset[str]] = {}
        self._rows: dict[str, array[int]] | None = None
        self._only: NDArray[np.int64] | None = None

    def take(self, rows: NDArray[np.int64]) -> Lexicon:
        """Return the lexicon of some of the memories only, `rows` ascending; a stem is as rare as among all."""
        part = Lexicon(self._keys)
        part._rows, part._only = self._index(), rows
        return part

    def _index(self) -> dict[str, array[int]]:
        """Return the memories of each stem."""
        if self._rows is None:
            rows: defaultdict[str, array[int]] = defaultdict(partial(array, "i"))
            for row, key in enumerate(self._keys):
                for stem in set(words_of(key)):
                    rows[stem].append(row)
            self._rows = dict(rows)
            self._counts, self._known = {}, {}
        return self._rows

    def _stems(self, key: str) -> frozenset[str]:
        found = self._known.get(key)
        if found is None:
            found = self._known[key] = frozenset(words_of(key))
        return found

    def _count(self, stem: str) -> int:
        """Return how many memories have a stem: counted for the first few, because an index costs as much as many."""
        if self._rows is None and stem not in self._counts:
            if self._size <= _COUNTED_AMONG and len(self._counts) < _COUNTED:
                # A stem is a part of the word that it is of.
                self._counts[stem] = sum(stem in self._stems(key) for key in self._keys if stem in key)
            else:
                self._index()
        return self._counts[stem] if self._rows is None else len(self._rows.get(stem, ()))

    def rarity(self, stem: str) -> float:
        """Return the weight of one stem; one that no memory has weighs most."""
        return max(0.1, math.log((self._size + 1) / (self._count(stem) + 0.5)))

    def overlap(self, wanted: Iterable[str]) -> NDArray[np.float64]:
        """Return, for each memory, the summed weight of the distinct wanted stems that it has; shape (n,)."""
        import numpy as np

        index, only = self._index(), self._only
        total = np.zeros(self._size if only is None else len(only))
        # sorted: sums of floats depend on their order, and sets have none that survives a restart
        for stem in sorted(set(wanted)):
            if stem not in index:
                continue
            found = np.asarray(index[stem])
            if only is None:
                total[found] += self.rarity(stem)
            else:
                place = np.minimum(np.searchsorted(found, only), len(found) - 1)
                total[found[place] == only] += self.rarity(stem)
        return total

    def coverage(self, wanted: Iterable[str]) -> NDArray[np.float64]:
        """Return, for each memory, the weighted share of the wanted stems that it has, 0 to 1; shape (n,)."""
        wanted = set(wanted)
        total = self.weight(wanted)
        overlap = self.overlap(wanted)
        return overlap / total if total else overlap

    def weight(self, stems: Iterable[str]) -> float:
        """Return the summed weight of distinct stems."""
        return sum(self.rarity(stem) for stem in sorted(set(stems)))
