"""Contract tests with second processes take seconds."""

from __future__ import annotations

import pytest


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark them as slow."""
    for item in items:
        if "contract_a_killed" in item.name or "contract_another_process" in item.name:
            item.add_marker(pytest.mark.slow)
