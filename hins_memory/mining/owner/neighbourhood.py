"""Which memories of a very large owner a query is compared with: near in meaning, or near in its conversation.

An owner with few memories is compared in full. With a million, what can be a source or a negative of one query is
still among some hundreds of nearest memories, or was said around the positive in the same conversation.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from hins_memory.mining.owner.owner import OwnerMemories

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = [
    "AROUND",
    "NEAREST",
    "QUERIES",
    "candidate_rows",
    "conversation_window",
    "conversation_windows",
    "positions_in",
]

#: At most this many nearest memories are compared.
NEAREST = 500
#: At most this many before and after the positive in its conversation are compared.
AROUND = 1_000
#: At most this many queries are searched at a time.
QUERIES = 2_048


def conversation_windows(
    owner: OwnerMemories, rows: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.bool_]]:
    """Return where the rows around each of some rows in its conversation begin and end, and whether they are all of it.

    Shape (len(rows),) each; the end is not among them.
    """
    import numpy as np

    # Rows are in order of conversation, and so are the codes.
    codes = owner.conversations[rows]
    starts, ends = (np.searchsorted(owner.conversations, codes + more) for more in (0, 1))
    first, last = np.maximum(starts, rows - AROUND), np.minimum(ends, rows + AROUND + 1)
    return first, last, (first == starts) & (last == ends)


def conversation_window(owner: OwnerMemories, row: int) -> NDArray[np.int64]:
    """Return the rows of the same conversation before and after a row, ascending."""
    import numpy as np

    first, last, _ = conversation_windows(owner, np.asarray([row]))
    return np.arange(first[0], last[0], dtype=np.int64)


def candidate_rows(*parts: NDArray[np.int64] | Iterable[int]) -> NDArray[np.int64]:
    """Return the distinct rows of all parts, ascending, without the -1 that stands for none."""
    import numpy as np

    arrays = [part if isinstance(part, np.ndarray) else np.asarray(list(part), dtype=np.int64) for part in parts]
    rows = np.unique(np.concatenate(arrays))
    return rows[rows >= 0]


def positions_in(rows: NDArray[np.int64], wanted: Iterable[int]) -> list[int]:
    """Return where in `rows`, ascending, the wanted rows are; a row that is not there is left out."""
    import numpy as np

    wanted_rows = np.asarray(list(wanted), dtype=np.int64)
    if not len(wanted_rows):
        return []
    positions = np.searchsorted(rows, wanted_rows)
    present = (
        (positions < len(rows)) & (rows[np.minimum(positions, len(rows) - 1)] == wanted_rows)
        if len(rows)
        else positions < 0
    )
    return [int(position) for position in positions[present]]
