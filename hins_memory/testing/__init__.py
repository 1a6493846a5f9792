"""The contract suite: tests that every adapter passes, for adapters of this project and of others; needs pytest.

In: an `AdapterDriver`, which says how to use a framework. Out: tests of what the adapter's plugin claims to do.
"""

import pytest

# Asserts of the suite are explained as those of a test file; it has to be said before the modules are imported.
for _module in ("capture_contract", "swap_contract", "world"):
    pytest.register_assert_rewrite(f"hins_memory.testing.{_module}")

from hins_memory.testing.contract import AdapterContract  # noqa: E402
from hins_memory.testing.driver import AdapterDriver, Found, Place  # noqa: E402
from hins_memory.testing.encoders import random_encoder, random_tower  # noqa: E402
from hins_memory.testing.processes import Child, children  # noqa: E402
from hins_memory.testing.world import ContractWorld  # noqa: E402

__all__ = [
    "AdapterContract",
    "AdapterDriver",
    "Child",
    "ContractWorld",
    "Found",
    "Place",
    "children",
    "random_encoder",
    "random_tower",
]
