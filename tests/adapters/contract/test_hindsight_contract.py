"""Hindsight's adapter passes the contract suite, where Hindsight and a database for it are."""

from __future__ import annotations

import pytest
from hindsight_world import needs_database  # sets what Hindsight reads when it is imported

pytest.importorskip("hindsight_api", reason="needs an environment with the extra hindsight")

from hindsight_drivers import HindsightDriver

from hins_memory.testing import AdapterContract

pytestmark = needs_database


class TestHindsightContract(AdapterContract):
    """A `MemoryEngine` on PostgreSQL."""

    drivers = (HindsightDriver,)
