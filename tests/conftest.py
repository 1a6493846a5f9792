"""Environment of all tests, set before anything imports mem0 or a model library, and the fixtures shared by them."""

import contextlib
import functools
import gc
import logging
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import certifi

#: Bytes that a run's folders may take; where shared memory has as many, they are there: databases and models are
#: written thousands of times, and a disk takes ten milliseconds each time to be sure of it.
_SCRATCH_BYTES = 8 << 30
_MEMORY = Path("/dev/shm")
if "TMPDIR" not in os.environ and _MEMORY.is_dir() and shutil.disk_usage(_MEMORY).free >= _SCRATCH_BYTES:
    os.environ["TMPDIR"] = str(_MEMORY)
    tempfile.tempdir = None

# Held for the whole run: mem0 reads MEM0_DIR once, when it is imported, so a folder per test would come too late.
_SCRATCH = tempfile.TemporaryDirectory(prefix="hins-tests-")
#: the process that has torch, of the process that starts those of the tests
_FORKING = contextlib.ExitStack()

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["MEM0_TELEMETRY"] = "False"
os.environ["MEM0_DIR"] = str(Path(_SCRATCH.name) / "mem0")
os.environ["HINS_HOME"] = str(Path(_SCRATCH.name) / "hins")
# The starter changes with every training of it; what it does by default has tests of its own.
os.environ["HINS_BASE"] = "stock"
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
# Tests run many small batches: more threads than one only wait for one another, and on a busy machine for long.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# Threads that load a small model cost more than they save.
os.environ["HF_DEACTIVATE_ASYNC_LOAD"] = "1"
# Every HTTP client reads the certificates that it trusts: 140 are 20 ms, and no test leaves the loopback. A machine's
# own variable would name as many.
_CERTIFICATE = Path(_SCRATCH.name) / "certificate.pem"
_FIRST, _END, _ = certifi.contents().partition("-----END CERTIFICATE-----\n")
_CERTIFICATE.write_text(_FIRST[_FIRST.index("-----BEGIN") :] + _END)
os.environ["SSL_CERT_FILE"] = str(_CERTIFICATE)
for _name in (
    "HINS_PROJECT",
    "HINS_CONFIG",
    "HINS_LOG_URL",
    "HINS_CAPTURE",
    "HINS_API_KEY",
    "OPENAI_API_KEY",
    "OPENAI_BASE_URL",
):
    os.environ.pop(_name, None)

# What the collection of tests imports makes a million objects, none of them garbage: looking at them is a fifth of it.
gc.disable()

import pytest  # noqa: E402
from hypothesis import HealthCheck  # noqa: E402
from hypothesis import settings as hypothesis_settings  # noqa: E402

from hins_memory.config import Settings  # noqa: E402

if TYPE_CHECKING:
    from hins_memory.encoders.encoder import Encoder
    from hins_memory.registry.registry import EncoderVersion


# How long an example takes, or to think of one, depends on the machine and on what else it does.
hypothesis_settings.register_profile(
    "hins", hypothesis_settings.default, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
hypothesis_settings.load_profile("hins")

#: Seconds until a test marked slow is ended, its fixtures included; pyproject.toml has the other tests' limit.
SLOW_TIMEOUT = 900


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark as slow what starts programs, for which a process imports torch first; give slow tests more time."""
    for item in items:
        if "forked_python" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.slow)
        if item.get_closest_marker("slow") and not item.get_closest_marker("timeout"):
            item.add_marker(pytest.mark.timeout(SLOW_TIMEOUT))


def pytest_sessionstart(session: pytest.Session) -> None:
    """Fork the processes that xdist starts from one that has torch, which takes each of them seconds to import."""
    from forked_python import PYTHON, first

    option = session.config.option
    own = ["popen"] * (getattr(option, "numprocesses", None) or 0)
    if own and option.tx == own and hasattr(os, "pidfd_open"):
        folder = Path(_SCRATCH.name) / "first"
        folder.mkdir()
        os.environ[PYTHON] = python = _FORKING.enter_context(first(folder))
        option.tx = [f"popen//python={python}"] * len(own)


def pytest_unconfigure() -> None:
    """End the process that forked those of the tests."""
    _FORKING.close()


@pytest.hookimpl(tryfirst=True)
def pytest_runtestloop() -> None:
    """Collect garbage from now on, but never look at what is imported already."""
    gc.freeze()
    gc.enable()


#: how many modules there were when objects were last kept out of garbage collections
_modules = 0


def pytest_runtest_logfinish() -> None:
    """Once tests have imported more, keep that too out of every later garbage collection.

    Every training collects several times; each collection would take half a second of looking at modules.
    """
    global _modules
    if len(sys.modules) > _modules + 100:
        gc.collect()
        gc.freeze()
        _modules = len(sys.modules)


@pytest.fixture(scope="session", autouse=True)
def _scratch_folder() -> Iterator[None]:
    """Remove the run's folder at its end."""
    yield
    _SCRATCH.cleanup()


@pytest.fixture(scope="session", autouse=True)
def _forked_children(request: pytest.FixtureRequest) -> None:
    """The server of `child_process` is forked too; it begins here, where what its children print is captured."""
    from forked_python import PYTHON

    if hasattr(request.config, "workerinput") and PYTHON in os.environ:
        from child_process import start_server

        start_server(os.environ[PYTHON])


@pytest.fixture(scope="session", autouse=True)
def _few_texts() -> Iterator[None]:
    """A gate would embed 5,000 texts in every test, and a training more."""
    from few_texts import take_few

    with pytest.MonkeyPatch.context() as patch:
        take_few(patch)
        yield


@pytest.fixture(scope="session", autouse=True)
def _compiled_templates() -> Iterator[None]:
    """Each model that is saved has a card, whose template would be compiled anew."""
    from jinja2 import Environment

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Environment, "compile", functools.lru_cache(maxsize=16)(Environment.compile))
        yield


@pytest.fixture(scope="session", autouse=True)
def _fewer_collections() -> Iterator[None]:
    """Each training begins with a garbage collection, for a graphics card's memory; here Python's own are enough."""
    with pytest.MonkeyPatch.context() as patch:
        if memory := sys.modules.get("accelerate.utils.memory"):
            patch.setattr(memory, "gc", SimpleNamespace(collect=lambda: 0))
        yield


@pytest.fixture(autouse=True)
def _levels_of_the_log() -> Iterator[None]:
    """Undo what the command line sets up in this process: the next test's `caplog` would miss what is logged."""
    yield
    for name, logger in list(logging.root.manager.loggerDict.items()):
        # To set a level, even the one that it has, is to go through all loggers.
        if name.startswith(("hins_", "mem0")) and "." not in name and getattr(logger, "level", logging.NOTSET):
            logging.getLogger(name).setLevel(logging.NOTSET)


@pytest.fixture(scope="session")
def forked_python(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The path of an executable that does what `sys.executable` does, in a process that has torch already."""
    if not hasattr(os, "pidfd_open"):
        # Only Linux has it.
        yield sys.executable
        return
    from forked_python import running

    with running(tmp_path_factory.mktemp("python")) as executable:
        yield executable


@pytest.fixture(scope="session")
def python_without_mem0() -> str:
    """The path of an executable that does what `sys.executable` does; it may have torch already, but not mem0."""
    from forked_python import PYTHON

    return os.environ.get(PYTHON, sys.executable)


@pytest.fixture
def forked_programs(forked_python: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Programs that are started as `sys.executable` are forked from a process that has torch already."""
    monkeypatch.setattr(sys, "executable", forked_python)


@pytest.fixture(scope="session")
def stock_encoder() -> "Encoder":
    """The packaged all-MiniLM-L6-v2, loaded once for all tests."""
    from hins_memory.encoders.encoder import Encoder

    return Encoder.load()


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """Settings of a fresh project in a folder of the test's own."""
    return Settings(home=tmp_path, project="test")


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sentence-transformers folder with random weights and 32 dimensions: a bag of words, more or less."""
    from hins_memory.testing import random_encoder

    return random_encoder(tmp_path_factory.mktemp("tiny") / "encoder")


@pytest.fixture(scope="session")
def shallow_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The stock encoder's words in 64 dimensions below one layer: it finds a little, and costs a thirtieth."""
    from tiny_bases import build_shallow

    return build_shallow(tmp_path_factory.mktemp("shallow") / "encoder")


@pytest.fixture(scope="session")
def first_layer_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The stock encoder cut down to its first layer, for tests that have to find: ten times as dear as the shallow."""
    from torch import nn

    from hins_memory.encoders.encoder import Encoder

    model = Encoder.load().model
    transformer: Any = model[0].auto_model
    transformer.encoder.layer = nn.ModuleList(list(transformer.encoder.layer)[:1])
    transformer.config.num_hidden_layers = 1
    folder = tmp_path_factory.mktemp("first-layer") / "encoder"
    model.save(str(folder))
    return folder


@pytest.fixture(scope="module")
def shallow_base(shallow_folder: Path) -> Iterator[Path]:
    """Makes the shallow encoder what projects start from, also in processes that the module's tests start."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HINS_BASE", str(shallow_folder))
        yield shallow_folder


@pytest.fixture
def shallow_stock(shallow_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Makes the shallow encoder what this process takes for the stock one."""
    from hins_memory.encoders import encoder

    monkeypatch.setattr(encoder, "_packaged_model", lambda: shallow_folder)
    return shallow_folder


@pytest.fixture
def first_layer_stock(first_layer_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Makes the stock encoder's first layer what this process takes for the whole."""
    from hins_memory.encoders import encoder

    monkeypatch.setattr(encoder, "_packaged_model", lambda: first_layer_folder)
    return first_layer_folder


@pytest.fixture
def tiny_version(tiny_folder: Path, settings: Settings, tmp_path: Path) -> "EncoderVersion":
    """The tiny encoder as a version of the project; not the current one."""
    from hins_memory.registry.registry import Registry

    copy = tmp_path / "tiny"
    shutil.copytree(tiny_folder, copy)
    return Registry(settings).add(copy, {"base": "tiny"})


@pytest.fixture(scope="session")
def postgresql_server() -> Iterator[str]:
    """The URL of a real PostgreSQL with pgvector, of the package pgserver; skips where that is not installed."""
    pgserver = pytest.importorskip("pgserver", reason="needs the package pgserver")
    # Not under tmp_path: the server runs as a user of its own where the tests run as root.
    with tempfile.TemporaryDirectory(prefix="hins-pg-") as folder:
        server = pgserver.get_server(Path(folder), cleanup_mode="stop")
        # Nobody needs these databases after a crash of the machine, and on a slow disk they take minutes to be synced.
        server.psql("ALTER SYSTEM SET fsync = off")
        server.psql("SELECT pg_reload_conf()")
        yield server.get_uri()
        server.cleanup()


@pytest.fixture
def query_version(tiny_version: "EncoderVersion", settings: Settings, tmp_path: Path) -> "EncoderVersion":
    """A version that embeds documents as the tiny encoder does, and queries otherwise."""
    import torch

    from hins_memory.encoders.encoder import Encoder
    from hins_memory.registry.registry import Registry
    from hins_memory.training.query_mode.query_map import QueryMap, with_query_map

    found = QueryMap(32, rank=4, seed=0)
    with torch.no_grad():
        found.up.normal_(std=0.5, generator=torch.Generator().manual_seed(0))
    model = with_query_map(Encoder.load(tiny_version.path).model, found)
    model.save(str(tmp_path / "query"), safe_serialization=True)
    return Registry(settings).add(tmp_path / "query", {"mode": "query", "document_space": tiny_version.id})


@pytest.fixture
def tower_version(tiny_version: "EncoderVersion", settings: Settings, tmp_path: Path) -> "EncoderVersion":
    """A tower beside the tiny version's documents."""
    from towers import add_tower

    return add_tower(tiny_version.path, tmp_path / "tower", settings, shift=0.3)
