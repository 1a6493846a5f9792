"""Items some at a time."""

import pytest

from hins_memory.common.chunks import chunks_of


@pytest.mark.parametrize("items", [range(7), list(range(7)), iter(range(7))])
def test_all_come_in_their_order_at_most_so_many_at_a_time(items):
    assert list(chunks_of(items, 3)) == [[0, 1, 2], [3, 4, 5], [6]]


def test_nothing_gives_nothing():
    assert list(chunks_of([], 3)) == []


def test_less_than_one_at_a_time_is_refused():
    with pytest.raises(ValueError, match="at least 1"):
        next(chunks_of([1], 0))
