"""The public names: lazy, complete, and clear about what is missing."""

import importlib.metadata
import subprocess
import sys
from pathlib import Path

import mem0
import pytest

import hins_memory
from hins_memory import Settings
from hins_memory.errors import AgentError


def python(code: str, *arguments: str) -> str:
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def test_importing_loads_neither_torch_nor_a_framework() -> None:
    heavy = ("torch", "transformers", "sentence_transformers", "sklearn", "mem0", "numpy", "sqlalchemy")
    loaded = python(f"import sys, hins_memory; print([name for name in {heavy} if name in sys.modules])")
    assert loaded == "[]"


@pytest.mark.slow
def test_the_command_line_starts_without_torch() -> None:
    loaded = python("import sys, hins_memory.cli; print([n for n in ('torch', 'mem0', 'sklearn') if n in sys.modules])")
    assert loaded == "[]"


def test_every_public_name_is_there_and_listed() -> None:
    assert hins_memory.__all__ == sorted(hins_memory.__all__)
    for name in hins_memory.__all__:
        assert getattr(hins_memory, name) is not None
    assert set(hins_memory.__all__) <= set(dir(hins_memory))


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'Memories'"):
        hins_memory.Memories  # noqa: B018


def test_the_version_is_the_installed_one() -> None:
    assert hins_memory.__version__ == importlib.metadata.version("hins-memory")


def test_memory_is_a_real_mem0_memory() -> None:
    assert issubclass(hins_memory.Memory, mem0.Memory)
    assert issubclass(hins_memory.AsyncMemory, mem0.AsyncMemory)


def test_a_missing_mem0_names_the_command_that_installs_it(tmp_path: Path) -> None:
    # An interpreter that cannot find mem0: the finder in front of the others hides it.
    code = """
import importlib.abc, sys

class Hidden(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "mem0":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

class Real:
    pass

import importlib.util
find = importlib.util.find_spec
importlib.util.find_spec = lambda name, package=None: None if name == "mem0" else find(name, package)
sys.meta_path.insert(0, Hidden())
import hins_memory
from hins_memory.errors import HinsError
try:
    hins_memory.Memory
except HinsError as error:
    print(error)
print(hins_memory.Encoder.__name__)
"""
    said, encoder = python(code).splitlines()
    assert 'pip install "hins-memory[mem0]"' in said
    assert encoder == "Encoder"


@pytest.mark.parametrize("function", [hins_memory.attach, hins_memory.detach])
def test_an_object_that_no_plugin_knows_is_refused(function: object) -> None:
    with pytest.raises(AgentError, match=r"builtins\.dict.*mem0"):
        function({})  # type: ignore[operator]


def test_attach_and_detach_go_through_the_plugin(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    # Mem0's default embedder and LLM are constructed, not called.
    monkeypatch.setenv("OPENAI_API_KEY", "none")
    folder = str(settings.home / "qdrant")
    config = {"vector_store": {"provider": "qdrant", "config": {"path": folder, "on_disk": True}}}
    memory = mem0.Memory.from_config(config)
    kind, embedder = type(memory), memory.embedding_model
    assert hins_memory.attach(memory, settings=settings) is memory
    assert hasattr(memory, "answered")
    assert hins_memory.detach(memory) is memory
    assert type(memory) is kind
    assert memory.embedding_model is embedder
    memory.close()
