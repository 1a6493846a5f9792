"""The judge at work in the miner: candidates that it finds relevant are dismissed; a judge that fails is counted."""

from __future__ import annotations

import logging
from collections import Counter
from typing import TYPE_CHECKING

from hins_memory.errors import HinsError
from hins_memory.mine.judge import Judge
from hins_memory.mine.settings import MineSettings

if TYPE_CHECKING:
    from hins_memory.mine.owner import OwnerMemories
    from hins_memory.types import Tier

__all__ = ["Judging"]

_log = logging.getLogger(__name__)
# After so many queries in a row that could not be judged, none will be.
_FAILURES = 5


class Judging:
    """A judge with its count of failures.

    Args:
        judge: what judges.
    """

    def __init__(self, judge: Judge) -> None:
        self._judge = judge
        self._failures = 0
        #: what happened since the owner began, by reason
        self.skipped: Counter[str] = Counter()

    def dismiss(
        self, owner: OwnerMemories, query: str, candidates: dict[Tier, list[int]], settings: MineSettings
    ) -> None:
        """Remove from the candidates of each tier those that the judge finds relevant.

        Only those that may be sampled are judged, and kept. A query that the judge fails on keeps what it has.

        Raises:
            HinsError: the judge failed on several queries in a row.
        """
        for tier, rows in candidates.items():
            candidates[tier] = rows[: settings.near_pool + settings.negatives]
        asked = list(dict.fromkeys(row for rows in candidates.values() for row in rows))
        if not asked:
            return
        try:
            values = [float(value) for value in self._judge.relevant(query, [owner.texts[row] for row in asked])]
        except HinsError as error:
            self._failures += 1
            self.skipped["queries that the judge failed on"] += 1
            _log.warning("%s", error)
            if self._failures >= _FAILURES:
                raise
            return
        self._failures = 0
        relevant = {row for row, value in zip(asked, values, strict=True) if value >= settings.judge_threshold}
        self.skipped["negatives that the judge finds relevant"] += len(relevant)
        for tier, rows in candidates.items():
            candidates[tier] = [row for row in rows if row not in relevant]
