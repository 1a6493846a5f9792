"""Which tests of the suite apply to a driver, and what they store."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from hins_memory.testing.driver import AdapterDriver

__all__ = ["TEXTS", "needs"]

#: what is stored: each text is about another person
TEXTS = tuple(
    f"{who} {what}."
    for who, what in zip(
        ("Ann", "Bob", "安娜", "Dai", "Eva", "Farid", "Gül", "Hal", "Ida", "Jon"),
        (
            *("plays the cello", "grows tomatoes", "学习法语", "repairs bicycles", "lives in Lisbon", "drinks tea 🍵"),
            *("sails at night", "keeps bees", "paints doors", "reads maps"),
        ),
        strict=True,
    )
)

_Test = TypeVar("_Test", bound=Callable[..., Any])


def needs(
    *capabilities: str, methods: Sequence[str] = (), shared: bool = False, lasting: bool = False
) -> Callable[[_Test], _Test]:
    """Say what an adapter has to claim, and its driver to have, for a test."""

    def applies(driver: type[AdapterDriver]) -> bool:
        claimed = driver.plugin.capabilities >= set(capabilities)
        opened = (driver.shared or not shared) and (driver.lasting or not lasting)
        return claimed and opened and all(map(driver.has, methods))

    def decorate(test: _Test) -> _Test:
        test.applies = applies  # type: ignore[attr-defined]  # a function of ours
        return test

    return decorate
