"""Pruning keeps what anybody needs, frees the rest, and survives kills and swaps that begin meanwhile."""

import os
import signal
import time

import pytest
from child_process import run_python
from test_registry import make_folder

from hins_memory.config import Settings
from hins_memory.errors import ConfigError, EncoderError, SwapError
from hins_memory.registry.prune import prune
from hins_memory.registry.registry import Registry


@pytest.fixture
def registry(tmp_path):
    return Registry(Settings(home=tmp_path / "home", project="test"))


@pytest.fixture
def versions(registry, tmp_path):
    return [registry.add(make_folder(tmp_path / str(n), b"x" * 1000), {}) for n in range(6)]


def ids(registry):
    return [version.id for version in registry.versions()]


def swap(registry, agent, version):
    registry.begin_shadow(agent, version.id, f"_{version.id}")
    registry.flip(agent, f"_{version.id}")


def test_what_serves_what_a_rollback_needs_and_the_newest_stay(registry, versions):
    registry.record_live("one", versions[0].id, "")
    swap(registry, "one", versions[1])
    registry.record_live("two", versions[2].id, "")
    plan = prune(registry, keep=1, dry_run=True)
    assert plan.removed == (versions[3].id, versions[4].id)
    assert len(ids(registry)) == 6
    report = prune(registry, keep=1)
    assert report.removed == plan.removed
    assert report.bytes == plan.bytes > 2000
    assert ids(registry) == [versions[n].id for n in (0, 1, 2, 5)]
    assert [path.name for path in sorted(registry.settings.encoders.iterdir())] == ids(registry)
    reasons = ["previous index of one", "current", "live index of two", "one of the 1 newest"]
    assert list(report.kept.values()) == reasons
    assert prune(registry, keep=1).removed == ()
    # Once neither agent needs it, it goes; two agents may share one, which stays as long as one of them does.
    swap(registry, "two", versions[1])
    for agent in ("one", "two"):
        for record in registry.retire(agent):
            registry.forget(agent, record.suffix)
    assert prune(registry, keep=1).removed == (versions[0].id, versions[2].id)
    with pytest.raises(EncoderError, match="no encoder version"):
        registry.get(versions[0].id)


def test_the_parent_of_the_current_one_stays(registry, versions, tmp_path):
    child = registry.add(make_folder(tmp_path / "child"), {"parent": versions[0].id})
    registry.promote(child.id)
    assert prune(registry, keep=1).kept == {versions[0].id: f"{child.id} came from it", child.id: "current"}


def test_the_newest_stay(registry, versions):
    assert prune(registry, keep=2).removed == tuple(version.id for version in versions[:4])
    assert registry.add(make_folder(registry.settings.home / "next"), {}).id.startswith("v0007-")
    with pytest.raises(ConfigError, match="at least the newest"):
        prune(registry, keep=0)


def test_a_version_in_use_is_not_removed_and_a_removed_one_cannot_be_begun(registry, versions):
    registry.promote(versions[0].id)
    registry.record_live("agent", versions[1].id, "")
    for version, message in ((versions[0], "is the current"), (versions[1], "agent has a live index")):
        with pytest.raises(EncoderError, match=message):
            registry.remove(version.id)
    prune(registry, keep=1)
    with pytest.raises(SwapError, match="was pruned meanwhile"):
        registry.begin_shadow("agent", versions[2].id, "_2")


def test_what_killed_processes_left_is_removed_once_it_is_old(registry, versions):
    folder = registry.settings.encoders
    for name in (".training-old", ".incoming-old", ".training-new"):
        (folder / name / "model").mkdir(parents=True)
        (folder / name / "model" / "weights").write_bytes(b"y" * 500)
    old = time.time() - 8 * 24 * 3600
    for name in (".training-old", ".incoming-old"):
        for path in (*(folder / name).rglob("*"), folder / name):
            os.utime(path, (old, old))
    report = prune(registry, keep=6)
    assert set(report.left_over) == {".training-old", ".incoming-old"}
    assert report.bytes == 1000
    assert (folder / ".training-new").is_dir()
    assert not (folder / ".training-old").exists()


KILLED = """
import os, signal, sys
from pathlib import Path
import hins_memory.registry.prune as pruning
from hins_memory.config import Settings
from hins_memory.registry.registry import Registry
die = lambda *a, **k: os.kill(os.getpid(), signal.SIGKILL)
registry = Registry(Settings(home=Path(sys.argv[1]), project="test"))
if sys.argv[2] == "before the move":
    pruning.os.rename = die
elif sys.argv[2] == "inside the transaction":
    registry.remove, remove = (lambda id: (exec("import sqlalchemy as sa\\nsa.Connection.commit = die\\n"
        "sa.engine.base.RootTransaction.commit = die", {"die": die}), remove(id))), registry.remove
else:
    pruning.shutil.rmtree = lambda path, **k: die() if Path(path).exists() else None
pruning.prune(registry, keep=1)
"""


@pytest.mark.slow
@pytest.mark.parametrize("moment", ["inside the transaction", "before the move", "while it is deleted"])
def test_a_kill_leaves_every_version_whole_or_gone(registry, versions, moment):
    size = (versions[0].path / "model.safetensors").stat().st_size
    done = run_python(KILLED, str(registry.settings.home), moment)
    assert done.returncode == -signal.SIGKILL, done.stderr
    known = registry.versions()
    assert len(known) == (5 if moment == "while it is deleted" else 6)
    assert all((registry.get(one.id).path / "model.safetensors").stat().st_size == size for one in known)
    prune(registry, keep=1)
    assert ids(registry) == [versions[5].id]
    assert [path.name for path in registry.settings.encoders.iterdir()] == [versions[5].id]
