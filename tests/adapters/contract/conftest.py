"""Which contract tests are slow."""

from __future__ import annotations

import pytest


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark those with second processes, and those that embed a store anew."""
    slow = ("a_killed", "another_process", "a_swap_under_writes", "a_tower_touches")
    for item in items:
        if any(f"contract_{name}" in item.name for name in slow):
            item.add_marker(pytest.mark.slow)
