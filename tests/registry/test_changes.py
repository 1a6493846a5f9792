"""What was written since a swap is noted while there is an index to roll back to, and only then."""

from __future__ import annotations

from pathlib import Path

import pytest

from hins_memory.config import Settings
from hins_memory.registry.registry import Registry

KEY = "small:store"


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    return Registry(Settings(home=tmp_path, project="test"))


def _swapped(registry: Registry) -> None:
    registry.record_live(KEY, "first", "")
    registry.begin_shadow(KEY, "second", "_second")
    registry.flip(KEY, "_second")


def test_nothing_is_noted_without_a_way_back(registry: Registry) -> None:
    assert not registry.note_changes(KEY, "memories", ["a"])
    registry.record_live(KEY, "", "")
    registry.begin_shadow(KEY, "second", "_second")
    registry.flip(KEY, "_second")
    # The agent's own encoder cannot be returned to.
    assert not registry.note_changes(KEY, "memories", ["a"])
    assert registry.changes(KEY) == {}


def test_ids_are_noted_once_and_forgotten_with_the_next_flip(registry: Registry) -> None:
    _swapped(registry)
    ids = [f"m{number}" for number in range(1200)]
    assert registry.note_changes(KEY, "memories", ids)
    assert registry.note_changes(KEY, "memories", ["m3", "m3", "other"])
    assert registry.note_changes(KEY, "entities", ["m3"])
    assert registry.note_changes("another", "memories", ["x"]) is False
    found = registry.changes(KEY)
    assert found is not None
    assert (sorted(found["memories"]), found["entities"]) == (sorted([*ids, "other"]), ["m3"])
    registry.begin_shadow(KEY, "first", "")
    # An interrupted rollback goes on noting.
    assert registry.note_changes(KEY, "memories", ["late"])
    registry.flip(KEY, "")
    assert registry.changes(KEY) == {}


def test_a_flip_that_was_taken_back_leaves_nobody_knowing(registry: Registry) -> None:
    _swapped(registry)
    registry.note_changes(KEY, "memories", ["a"])
    registry.flip_back(KEY)
    assert registry.changes(KEY) is None
    registry.note_changes(KEY, "memories", ["b"])
    assert registry.changes(KEY) is None


def test_retiring_ends_it(registry: Registry) -> None:
    _swapped(registry)
    registry.note_changes(KEY, "memories", ["a"])
    registry.retire(KEY)
    assert registry.changes(KEY) == {}
    assert not registry.note_changes(KEY, "memories", ["b"])
