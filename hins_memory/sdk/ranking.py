"""How a framework ranks what a search finds, for those where more counts than the cosines."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hins_memory.types import Scope

__all__ = ["Found", "ReplayedRanking"]

#: ids and cosines, best first
Found = Sequence[tuple[str, float]]


class ReplayedRanking(ABC):
    """A `Ranking` in which what counts beside the cosines is the same whatever encoder serves.

    A subclass says what else counts (`signals`), how many memories a search looks at (`candidates`), and `order`.
    """

    signals: tuple[str, ...] = ()
    candidates: int
    takes_keyword_weight = False

    @abstractmethod
    def order(self, owner: Scope, query: str, ids: Sequence[str]) -> Callable[[Found], list[str]]:
        """Return the function from what one encoder finds to the ids that the framework would return, best first.

        Args:
            owner: whose memories are searched.
            query: what is asked.
            ids: what any of the encoders finds.
        """

    def rank(
        self, owner: Scope, query: str, found: Sequence[Found], weights: Sequence[float | None] | None = None
    ) -> list[list[str]]:
        """Return the ids that the framework gives for each encoder's ids and cosines, best first."""
        order = self.order(owner, query, list(dict.fromkeys(id_ for one in found for id_, _ in one)))
        return [order(one[: self.candidates]) for one in found]
