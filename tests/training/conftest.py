"""What the tests of training share beside what all tests do."""

from __future__ import annotations

from pathlib import Path

import pytest

from hins_memory.testing import random_encoder


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny encoder of all tests, with every word of the stock tokenizer."""
    return random_encoder(tmp_path_factory.mktemp("tiny") / "encoder")
