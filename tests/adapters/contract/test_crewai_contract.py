"""CrewAI's adapter passes the contract suite, where CrewAI is installed: it needs older packages than others here."""

from __future__ import annotations

import child_process  # noqa: F401  # the processes of the suite import what those of other tests do
import pytest

pytest.importorskip("crewai", reason="needs an environment with the extra crewai")

from crewai_drivers import CrewAIDriver

from hins_memory.testing import AdapterContract


class TestCrewAIContract(AdapterContract):
    """A `Memory` on LanceDB."""

    drivers = (CrewAIDriver,)
