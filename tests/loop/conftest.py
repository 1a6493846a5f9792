"""What the tests of the loop share beside what all tests do."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture(scope="module")
def shallow_folder(shallow_folder: Path) -> Iterator[Path]:
    """The shallow encoder of all tests, which a module's tests share here, with the vectors of the texts that it has
    embedded: most of them store and score the same.
    """
    from hins_memory.registry.loader import shared_encoder

    held = shared_encoder(shallow_folder)
    yield shallow_folder
    del held
