"""The module names of version 0.1 still import, as the same modules, with a warning."""

import importlib
import subprocess
import sys

import pytest

from hins_memory._old_names import MOVED


@pytest.mark.parametrize("old", sorted(MOVED))
def test_an_old_name_is_the_same_module(old: str) -> None:
    new = importlib.import_module(f"hins_memory.{MOVED[old]}")
    sys.modules.pop(f"hins_memory.{old}", None)
    if old in ("log.database", "agent", "evaluate"):
        with pytest.warns(DeprecationWarning, match="has moved"):
            assert importlib.import_module(f"hins_memory.{old}") is new
    else:
        assert importlib.import_module(f"hins_memory.{old}") is new
    assert new.__spec__ is not None
    assert new.__spec__.name == new.__name__ == f"hins_memory.{MOVED[old]}"


def test_what_is_below_an_old_package_is_not_loaded_twice() -> None:
    code = (
        "import hins_memory.training, hins_memory.training.settings, hins_memory.training.settings\n"
        "from hins_memory.mining import MineSettings\nimport hins_memory.mining.settings as new\n"
        "assert hins_memory.training.settings is hins_memory.training.settings\nassert MineSettings is new.MineSettings"
    )
    subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=True, timeout=60)


def test_a_name_that_never_was_is_not_found() -> None:
    with pytest.raises(ModuleNotFoundError):
        importlib.import_module("hins_memory.never")
