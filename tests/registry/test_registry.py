"""The registry: versions that survive kills and two processes, and index states that change all at once."""

import json
import os
import shutil
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from child_process import run_python
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import save_file

from hins_memory.common.files import file_digest
from hins_memory.config import Settings
from hins_memory.database.leases import LeaseLostError
from hins_memory.encoders.encoder import Encoder
from hins_memory.encoders.manifest import MANIFEST_NAME
from hins_memory.errors import EncoderError, LogError, SwapError
from hins_memory.registry.registry import Registry


@pytest.fixture
def project(tmp_path):
    return Settings(home=tmp_path / "home", project="test")


@pytest.fixture
def registry(project):
    return Registry(project)


def make_folder(path, weights=b"weights"):
    """Write a folder of the right shape; `Encoder.load` is tested on a real one."""
    (path / "1_Pooling").mkdir(parents=True)
    (path / "modules.json").write_text("[]")
    save_file({"weights": np.frombuffer(weights, np.uint8)}, path / "model.safetensors")
    (path / "1_Pooling" / "config.json").write_text("{}")
    return path


def states(registry, key="agent"):
    found = {
        "live": registry.live_index(key),
        "previous": registry.previous_index(key),
        "shadow": registry.shadow_index(key),
    }
    return {state: record.suffix for state, record in found.items() if record} | {
        "retired": [record.suffix for record in registry.retired_indexes(key)]
    }


def test_add_moves_the_folder_and_writes_the_manifest(registry, project, tmp_path):
    folder = make_folder(tmp_path / "out")
    version = registry.add(folder, {"base": "stock", "note": "🎻 大提琴"})
    assert not folder.exists()
    assert version.id.startswith("v0001-")
    assert version.path == project.encoders / version.id
    content = json.loads((version.path / MANIFEST_NAME).read_text(encoding="utf-8"))
    assert content["id"] == version.id
    assert content["note"] == "🎻 大提琴"
    assert set(content["files"]) == {"modules.json", "model.safetensors", "1_Pooling/config.json"}
    assert content["files"]["model.safetensors"] == file_digest(version.path / "model.safetensors")
    assert registry.get(version.id) == version
    assert registry.add(make_folder(tmp_path / "out"), {"base": "stock"}).id.startswith("v0002-")


def test_a_version_is_a_folder_that_the_encoder_loads_and_verifies(registry, stock_encoder, tmp_path):
    stock_encoder.model.save(str(tmp_path / "out"))
    version = registry.add(tmp_path / "out", {})
    encoder = Encoder.load(version.path)
    assert encoder.version == version.id
    np.testing.assert_allclose(encoder.encode(["cello"]), stock_encoder.encode(["cello"]), atol=1e-5)
    with (version.path / "model.safetensors").open("r+b") as stream:
        stream.truncate(stream.seek(0, os.SEEK_END) - 1)
    with pytest.raises(EncoderError, match="damaged"):
        Encoder.load(version.path)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda folder: (folder / "modules.json").unlink(), r"modules\.json is missing"),
        (lambda folder: (folder / "model.safetensors").unlink(), "no safetensors"),
        (lambda folder: (folder / "pytorch_model.bin").write_bytes(b""), "may run code"),
        (lambda folder: (folder / "modeling.py").write_text(""), "may run code"),
        (lambda folder: (folder / "link").symlink_to("/etc/hostname"), "not a plain file"),
        (lambda folder: shutil.rmtree(folder), "no folder"),
    ],
)
def test_add_refuses_what_is_no_safe_encoder(registry, tmp_path, damage, message):
    folder = make_folder(tmp_path / "out")
    damage(folder)
    with pytest.raises(EncoderError, match=message):
        registry.add(folder, {})
    assert registry.versions() == []


def test_add_refuses_a_manifest_that_is_not_json_and_leaves_the_folder(registry, tmp_path):
    folder = make_folder(tmp_path / "out")
    with pytest.raises(EncoderError, match="not JSON"):
        registry.add(folder, {"model": object()})
    assert (folder / "model.safetensors").exists()


def test_add_copies_across_file_systems(registry, tmp_path, monkeypatch):
    if not os.access("/dev/shm", os.W_OK) or os.stat("/dev/shm").st_dev == tmp_path.stat().st_dev:
        pytest.skip("no second file system to move from")
    folder = make_folder(tmp_path.__class__("/dev/shm") / f"hins-test-{os.getpid()}")
    try:
        version = registry.add(folder, {})
        assert not folder.exists()
        assert (version.path / "1_Pooling" / "config.json").exists()
        assert [path.name for path in registry.settings.encoders.iterdir()] == [version.id]
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def test_unknown_and_missing_versions_are_clear_errors(registry, tmp_path):
    version = registry.add(make_folder(tmp_path / "out"), {})
    with pytest.raises(EncoderError, match=f"no encoder version 'nope'.*{version.id}"):
        registry.get("nope")
    with pytest.raises(EncoderError, match="no encoder version"):
        registry.get("../../etc")
    registry.promote(version.id)
    shutil.rmtree(version.path)
    for call in (lambda: registry.get(version.id), registry.current, lambda: registry.promote(version.id)):
        with pytest.raises(EncoderError, match="is missing"):
            call()


def test_promote_keeps_exactly_one_current_and_records_force(registry, tmp_path):
    assert registry.current() is None
    first, second = (registry.add(make_folder(tmp_path / name), {}) for name in "ab")
    registry.promote(first.id)
    registry.promote(second.id, forced=True)
    assert registry.current().id == second.id
    assert [p.forced for p in registry.get(second.id).manifest.promotions] == [True]
    registry.promote(first.id)
    assert registry.current().id == first.id
    assert len(registry.get(first.id).manifest.promotions) == 2


ADD_AND_DIE = """
import os, signal, sys
from pathlib import Path
from hins_memory.config import Settings
from hins_memory.registry.registry import Registry
import hins_memory.registry.registry, hins_memory.registry.folder
die = lambda *a, **k: os.kill(os.getpid(), signal.SIGKILL)
registry = Registry(Settings(home=Path(sys.argv[1]), project="test"))
if sys.argv[3] == "before the move":
    hins_memory.registry.folder.os.rename = die
else:
    registry._insert = die
registry.add(Path(sys.argv[2]), {})
"""


@pytest.mark.slow
@pytest.mark.parametrize("moment", ["before the move", "after the move"])
def test_a_kill_leaves_the_folder_or_a_complete_version(project, tmp_path, moment):
    folder = make_folder(tmp_path / "out")
    killed = run_python(ADD_AND_DIE, str(project.home), str(folder), moment)
    assert killed.returncode == -signal.SIGKILL
    registry = Registry(project)
    if moment == "before the move":
        assert registry.versions() == []
        assert registry.add(folder, {}).id.startswith("v0001-")
    else:
        (version,) = registry.versions()
        assert version.manifest.files["model.safetensors"] == file_digest(version.path / "model.safetensors")
        registry.promote(version.id)
        assert registry.current() == registry.get(version.id)


ADD_SOME = """
import sys
from pathlib import Path
from hins_memory.config import Settings
from hins_memory.registry.registry import Registry
registry = Registry(Settings(home=Path(sys.argv[1]), project="test"))
for folder in sys.argv[2:]:
    version = registry.add(Path(folder), {"from": folder})
    registry.promote(version.id)
"""


@pytest.mark.slow
@pytest.mark.usefixtures("forked_programs")
def test_two_processes_add_at_once(project, tmp_path):
    folders = [[str(make_folder(tmp_path / f"{process}-{n}")) for n in range(5)] for process in "ab"]
    running = [subprocess.Popen([sys.executable, "-c", ADD_SOME, str(project.home), *names]) for names in folders]
    assert [process.wait(timeout=60) for process in running] == [0, 0]
    versions = Registry(project).versions()
    assert sorted(int(version.id[1:5]) for version in versions) == list(range(1, 11))
    assert Registry(project).current() in [Registry(project).get(version.id) for version in versions]


def test_record_live_is_idempotent_and_never_overwrites(registry):
    assert registry.live_index("agent") is None
    registry.record_live("agent", "stock", "")
    registry.record_live("agent", "stock", "")
    with pytest.raises(SwapError, match="served by the encoder version 'stock'"):
        registry.record_live("agent", "v2", "")
    registry.record_live("other agent", "v2", "")
    live = registry.live_index("agent")
    assert (live.agent_key, live.version, live.suffix, live.state) == ("agent", "stock", "", "live")


def test_a_swap_a_second_swap_and_a_rollback(registry, tmp_path):
    one, two = (registry.add(make_folder(tmp_path / name), {}).id for name in "ab")
    registry.record_live("agent", "stock", "")
    registry.begin_shadow("agent", one, "_1")
    registry.begin_shadow("agent", one, "_1")
    assert states(registry) == {"live": "", "shadow": "_1", "retired": []}
    registry.flip("agent", "_1")
    assert states(registry) == {"live": "_1", "previous": "", "retired": []}
    assert registry.current().id == one
    registry.begin_shadow("agent", two, "_2")
    registry.flip("agent", "_2")
    assert states(registry) == {"live": "_2", "previous": "_1", "retired": [""]}
    registry.flip_back("agent")
    assert states(registry) == {"live": "_1", "previous": "_2", "retired": [""]}
    assert registry.current().id == one
    assert [record.suffix for record in registry.retire("agent")] == ["", "_2"]
    registry.forget("agent", "_1")  # live: stays
    registry.forget("agent", "_2")
    assert states(registry) == {"live": "_1", "retired": [""]}
    with pytest.raises(SwapError, match="no previous index"):
        registry.flip_back("agent")


def test_a_flip_to_the_stock_encoder_leaves_no_version_current(registry, tmp_path):
    one = registry.add(make_folder(tmp_path / "a"), {}).id
    registry.record_live("agent", "stock", "")
    registry.begin_shadow("agent", one, "_1")
    registry.flip("agent", "_1")
    registry.flip_back("agent")
    assert registry.current() is None


def test_shadows_that_cannot_be(registry):
    registry.record_live("agent", "stock", "")
    with pytest.raises(SwapError, match="has a live index"):
        registry.begin_shadow("agent", "one", "")
    registry.begin_shadow("agent", "one", "_1")
    with pytest.raises(SwapError, match="unfinished"):
        registry.begin_shadow("agent", "two", "_2")
    with pytest.raises(SwapError, match="no shadow index '_2'"):
        registry.flip("agent", "_2")
    registry.abandon_shadow("agent")
    assert states(registry) == {"live": "", "retired": ["_1"]}
    registry.begin_shadow("agent", "one", "_1")
    assert states(registry) == {"live": "", "shadow": "_1", "retired": []}


STEPS = st.lists(st.tuples(st.sampled_from(["begin", "flip", "back", "retire", "abandon"]), st.integers(1, 3)))


@settings(max_examples=25, deadline=None)
@given(STEPS)
@pytest.mark.slow
def test_whatever_happens_one_index_is_live_and_none_is_in_two_states(tmp_path_factory, steps):
    registry = Registry(Settings(home=tmp_path_factory.mktemp("home"), project="test"))
    registry.record_live("agent", "stock", "")
    suffixes = {""}
    for step, number in steps:
        try:
            if step == "begin":
                registry.begin_shadow("agent", f"v{number}", f"_{number}")
                suffixes.add(f"_{number}")
            elif step == "flip":
                registry.flip("agent", f"_{number}")
            elif step == "back":
                registry.flip_back("agent")
            elif step == "retire":
                registry.retire("agent")
            else:
                registry.abandon_shadow("agent")
        except SwapError:
            pass
        found = states(registry)
        names = [found[state] for state in ("live", "previous", "shadow") if state in found] + found["retired"]
        assert "live" in found
        assert sorted(names) == sorted(suffixes)


def test_a_flip_is_all_or_nothing(registry, monkeypatch):
    registry.record_live("agent", "stock", "")
    registry.begin_shadow("agent", "one", "_1")
    before = states(registry)

    def fail(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr("hins_memory.registry.registry._set_current", fail)
    with pytest.raises(KeyboardInterrupt):
        registry.flip("agent", "_1")
    assert states(registry) == before


def test_threads_that_record_at_once_agree(registry):
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: registry.record_live("agent", "stock", ""), range(16)))
    with registry._engine.connect() as connection:
        assert connection.exec_driver_sql("select count(*) from agent_indexes").scalar() == 1


def test_the_swap_lock_excludes_and_is_released(registry):
    with registry.swap_lock("agent"):
        with pytest.raises(SwapError, match="is running"), registry.swap_lock("agent"):
            pass
        with registry.swap_lock("another agent"):
            pass
    with registry.swap_lock("agent"):
        pass


def test_two_hosts_cannot_swap_an_agent_at_once_and_a_lost_lease_flips_nothing(tmp_path, monkeypatch):
    url, clock = f"sqlite:///{tmp_path / 'shared.db'}", [1000.0]
    monkeypatch.setattr("hins_memory.database.leases.database_clock", lambda _: clock[0])
    one, two = (Registry(Settings(tmp_path / host, "test", url)) for host in ("one", "two"))
    one.record_live("agent", "stock", "")
    with one.swap_lock("agent"):
        one.begin_shadow("agent", "first", "_1")
        with pytest.raises(SwapError, match=r"is running: process \d+ on"), two.swap_lock("agent"):
            pass
        clock[0] += 3600
        with two.swap_lock("agent"):
            for change in (
                lambda: one.flip("agent", "_1"),
                lambda: one.flip_back("agent"),
                lambda: one.retire("agent"),
                lambda: one.abandon_shadow("agent"),
                lambda: one.begin_shadow("agent", "first", "_1"),
            ):
                with pytest.raises(LeaseLostError, match="was lost"):
                    change()
            assert states(two) == {"live": "", "shadow": "_1", "retired": []}
            two.flip("agent", "_1")
    assert states(one) == {"live": "_1", "previous": "", "retired": []}


def test_a_flip_records_who_serves_and_that_the_gate_was_forced_past(registry, tmp_path):
    version = registry.add(make_folder(tmp_path / "a"), {})
    registry.record_live("agent", "stock", "")
    registry.record_gate(version.id, {"passed": False, "forced": True, "failures": ["held_out_gain"]})
    registry.begin_shadow("agent", version.id, "_1")
    registry.flip("agent", "_1")
    manifest = registry.get(version.id).manifest
    assert manifest.gates[0].failures == ("held_out_gain",)
    assert [(one.agent, one.forced) for one in manifest.promotions] == [("agent", True)]
    assert "gates" not in json.loads((version.path / MANIFEST_NAME).read_text())
    registry.record_gate("stock", {"passed": True})  # no version of ours: left out


def test_the_order_of_versions_does_not_follow_the_clock(registry, tmp_path, monkeypatch):
    times = iter([3000.0, 2000.0, 1000.0])
    monkeypatch.setattr("hins_memory.registry.versions.now", lambda: next(times))
    added = [registry.add(make_folder(tmp_path / str(n)), {}).id for n in range(3)]
    assert [version.id for version in registry.versions()] == added
    assert [version.manifest.created for version in registry.versions()] == [3000.0, 2000.0, 1000.0]


def test_a_full_database_is_a_clear_error_and_loses_nothing(registry):
    from hins_memory.database.engine import open_database

    registry.record_live("agent", "stock", "")
    full = open_database(registry.settings.database_url)
    with full.connect() as connection:
        pages = connection.exec_driver_sql("pragma page_count").scalar()

    import sqlalchemy as sa

    @sa.event.listens_for(full, "connect")
    def limit(connection, _):
        connection.execute(f"pragma max_page_count = {pages}")

    full.dispose()
    with pytest.raises(LogError, match="full"):
        Registry(registry.settings, full).record_live("x" * 1_000_000, "stock", "")
    assert registry.live_index("agent").version == "stock"
