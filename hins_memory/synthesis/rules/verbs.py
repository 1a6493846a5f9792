"""English verb forms for question making: base, tense, third person, -ing; simplemma for the regular ones."""

from __future__ import annotations

import re
from functools import lru_cache

from hins_memory.errors import ConfigError
from hins_memory.synthesis.rules.words import PARTICIPLES, PAST_FORMS

__all__ = ["base_form", "ing_form", "is_past", "third_person"]

# They end like past forms.
_PRESENT = frozenset(("need", "feed", "breed", "speed", "succeed", "exceed", "proceed", "bleed", "shed", "embed"))
_IRREGULAR = {"be": "is", "have": "has", "do": "does", "go": "goes"}


def is_past(verb: str) -> bool:
    """Tell whether a finite verb after ``I`` is in the past tense."""
    return verb in PAST_FORMS or (verb.endswith("ed") and verb not in _PRESENT)


@lru_cache(maxsize=4096)
def base_form(verb: str) -> str:
    """Return the base of a verb in any form, e.g. ``hike`` of ``hiking``.

    Raises:
        ConfigError: simplemma is not installed.
    """
    known = PAST_FORMS.get(verb) or PARTICIPLES.get(verb)
    if known:
        return known
    if not verb.endswith(("ed", "ing", "s")) or verb in _PRESENT:
        return verb
    try:
        import simplemma
    except ImportError as error:
        raise ConfigError(
            "Synthesis by rules needs simplemma.", 'Install it: pip install "hins-memory[synthesis]"'
        ) from error
    return str(simplemma.lemmatize(verb, lang="en"))


def third_person(base: str) -> str:
    """Return the third person singular of the present, e.g. ``watches`` of ``watch``."""
    if base in _IRREGULAR:
        return _IRREGULAR[base]
    if base.endswith(("s", "sh", "ch", "x", "z", "o")):
        return base + "es"
    if base.endswith("y") and base[-2:-1] not in "aeiou":
        return base[:-1] + "ies"
    return base + "s"


def ing_form(base: str) -> str:
    """Return the present participle, e.g. ``running`` of ``run``."""
    if base.endswith("ie"):
        return base[:-2] + "ying"
    if base.endswith("e") and not base.endswith(("ee", "ye")) and base != "be":
        return base[:-1] + "ing"
    if re.fullmatch(r"[^aeiou]*[aeiou][bdgmnprt]", base):
        return base + base[-1] + "ing"
    return base + "ing"
