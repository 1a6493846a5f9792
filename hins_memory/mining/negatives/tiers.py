"""The tier of a negative relative to a positive memory, by the rule of HiNS (arXiv 2601.14857)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hins_memory.mining.owner.owner import OwnerMemories
from hins_memory.types import Tier

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["PAPER_TIERS", "tier_masks"]

#: The tiers that the ratio is over, in a fixed order.
PAPER_TIERS = (Tier.EASY, Tier.MEDIUM, Tier.HARD)


def tier_masks(
    owner: OwnerMemories, positive: int | NDArray[np.int64], others: NDArray[np.int64] | None = None
) -> dict[Tier, NDArray[np.bool_]]:
    """Return which of the owner's memories fall into each tier relative to some of them.

    Hard: same conversation, same topic, different speaker. Medium: same conversation, different topic. Easy: another
    conversation. Two memories of one speaker on one topic are in no tier, and neither are those of one topic where one
    of the two speakers is unknown: it cannot be told whose fact it is.

    Args:
        owner: the owner's memories.
        positive: the positive's row, or the rows of several, shape (p,).
        others: the rows whose tiers are wanted, shape (k,), or (p, k) for several positives; None means all.

    Returns:
        For each tier a mask of shape (k,), or (p, k) for several positives.
    """
    import numpy as np

    rows = np.asarray(positive)[..., None]
    places = np.arange(len(owner.topics)) if others is None else others
    same_conversation = owner.conversations[places] == owner.conversations[rows]
    same_topic = same_conversation & (owner.topics[places] == owner.topics[rows])
    speakers, mine = owner.speaker_codes[places], owner.speaker_codes[rows]
    known = (speakers >= 0) & (mine >= 0)
    return {
        Tier.EASY: ~same_conversation,
        Tier.MEDIUM: same_conversation & ~same_topic,
        Tier.HARD: same_topic & known & (speakers != mine),
    }
