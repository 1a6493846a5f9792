"""Which contract tests are slow."""

from __future__ import annotations

import pytest


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark those with second processes, those that embed a store anew, and those of a graph database."""
    slow = (
        "contract_a_killed",
        "contract_another_process",
        "contract_a_rollback",
        "contract_a_swap_under_writes",
        "contract_a_tower_touches",
    )
    for item in items:
        if any(name in item.name for name in (*slow, "[graphiti]")):
            item.add_marker(pytest.mark.slow)
