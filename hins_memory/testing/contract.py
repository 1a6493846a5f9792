"""The tests that every adapter passes, each for the drivers whose plugins claim what it is about."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import ClassVar

import pytest

from hins_memory.testing.capture_contract import CaptureContract
from hins_memory.testing.driver import AdapterDriver
from hins_memory.testing.encoders import random_encoder, random_tower
from hins_memory.testing.swap_contract import SwapContract
from hins_memory.testing.world import ContractWorld

__all__ = ["AdapterContract"]


class AdapterContract(CaptureContract, SwapContract):
    """Derive from it in a test file, and name the drivers; every test runs for those that claim what it is about.

    Example:
        class TestContract(AdapterContract):
            drivers = (NotebookDriver,)
    """

    #: the drivers of the adapters
    drivers: ClassVar[Sequence[type[AdapterDriver]]] = ()

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        """Run each test for the drivers that it applies to."""
        applies = getattr(metafunc.function, "applies", None)
        if applies is not None:
            chosen = [driver for driver in self.drivers if applies(driver)]
            metafunc.parametrize("driver", chosen, ids=[driver.label() for driver in chosen])

    @pytest.fixture(scope="class")
    def contract_encoders(self, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Path]:
        """The encoder that stores begin with, one of another length, and a tower beside the first."""
        folder = tmp_path_factory.mktemp("encoders")
        base = random_encoder(folder / "base", seed=1)
        return base, random_encoder(folder / "other", seed=2, dim=48), random_tower(base, folder / "tower")

    @pytest.fixture
    def world(
        self, driver: type[AdapterDriver], contract_encoders: tuple[Path, Path, Path], tmp_path: Path
    ) -> Iterator[ContractWorld]:
        """An empty store of a driver's framework."""
        made = ContractWorld(driver(), tmp_path, *contract_encoders)
        yield made
        made.close()
