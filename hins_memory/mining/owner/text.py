"""Words of a text as attribution compares them, and how rare they are among an owner's memories."""

from __future__ import annotations

import math
import re
import unicodedata
from array import array
from collections import defaultdict
from collections.abc import Iterable
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
        documents: the stems of each memory; read when first needed, because owners without answers do not need them.
    """

    def __init__(self, documents: Iterable[Iterable[str]]) -> None:
        self._documents: Iterable[Iterable[str]] | None = documents
        self._size = 0
        self._rows: dict[str, array[int]] = {}
        self._only: NDArray[np.int64] | None = None

    def take(self, rows: NDArray[np.int64]) -> Lexicon:
        """Return the lexicon of some of the memories only, `rows` ascending; a stem is as rare as among all."""
        self._build()
        part = Lexicon(())
        part._documents, part._size, part._rows, part._only = None, self._size, self._rows, rows
        return part

    def _build(self) -> None:
        if self._documents is None:
            return
        rows: defaultdict[str, array[int]] = defaultdict(partial(array, "i"))
        for row, document in enumerate(self._documents):
            for stem in set(document):
                rows[stem].append(row)
            self._size = row + 1
        self._rows, self._documents = dict(rows), None

    def rarity(self, stem: str) -> float:
        """Return the weight of one stem; one that no memory has weighs most."""
        self._build()
        found = self._rows.get(stem)
        return max(0.1, math.log((self._size + 1) / ((0 if found is None else len(found)) + 0.5)))

    def overlap(self, wanted: Iterable[str]) -> NDArray[np.float64]:
        """Return, for each memory, the summed weight of the distinct wanted stems that it has; shape (n,)."""
        import numpy as np

        self._build()
        only = self._only
        total = np.zeros(self._size if only is None else len(only))
        # sorted: sums of floats depend on their order, and sets have none that survives a restart
        for stem in sorted(set(wanted)):
            if stem not in self._rows:
                continue
            found = np.asarray(self._rows[stem])
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
