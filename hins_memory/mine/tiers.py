"""The tier of a negative relative to a positive memory, by the rule of HiNS (arXiv 2601.14857)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hins_memory.mine.owner import OwnerMemories
from hins_memory.types import Tier

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["tier_masks"]


def tier_masks(owner: OwnerMemories, positive: int) -> dict[Tier, NDArray[np.bool_]]:
    """Return which of the owner's memories fall into each tier relative to one of them.

    Hard: same conversation, same topic, different speaker. Medium: same conversation, different topic. Easy: another
    conversation. The same conversation, topic and speaker is in no tier, nor is the same topic where one of the two
    speakers is unknown: neither can be told to be another's fact.

    Args:
        owner: the owner's memories.
        positive: the positive's row.

    Returns:
        For each tier a mask of shape (n,).
    """
    same_conversation = owner.conversations == owner.conversations[positive]
    same_topic = same_conversation & (owner.topics == owner.topics[positive])
    speaker = owner.speaker_codes[positive]
    other_speaker = (owner.speaker_codes != speaker) & (owner.speaker_codes >= 0) & (speaker >= 0)
    return {
        Tier.EASY: ~same_conversation,
        Tier.MEDIUM: same_conversation & ~same_topic,
        Tier.HARD: same_topic & other_speaker,
    }
