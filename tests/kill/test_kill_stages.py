"""`kill -9` in the middle of mine, train and gate, full disks, damaged files, clocks that jump: nothing is lost."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import kill_child
import pytest
from child_process import Child, children
from kill_world import make_pipeline, write_log

from hins_memory.encoders.encoder import Encoder
from hins_memory.errors import EncoderError, SwapError
from hins_memory.log.reader import LogReader
from hins_memory.mining.storage import evidence
from hins_memory.registry.loader import shared_encoder
from hins_memory.registry.registry import Registry
from hins_memory.swapping import swap_agent

KILLS = (
    ("mine", "encode:3"),
    ("train", "encode:3"),
    ("train", "step:4"),
    ("train", "move:"),
    ("train", "_insert:"),
    ("gate", "encode:2"),
    ("gate", "record_gate:"),
)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory, shallow_base: Path) -> Iterator[Path]:
    """A project with a log and one trained version; its base stays loaded, with the vectors of its texts."""
    held = shared_encoder(shallow_base)
    home: Path = tmp_path_factory.mktemp("home")
    write_log(home)
    make_pipeline(home).train()
    yield home
    del held


def _counts(pipeline: Any) -> Any:
    return LogReader(pipeline._engine).counts()


@pytest.mark.slow
@pytest.mark.parametrize(("stage", "moment"), KILLS)
def test_a_killed_stage_leaves_everything_whole_and_is_repeated(
    home: Path, tmp_path: Path, stage: str, moment: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = tmp_path / "home"
    shutil.copytree(home, there)
    before = make_pipeline(there)
    counts, versions = _counts(before), [one.id for one in before.registry.versions()]
    with children(Child(kill_child.stage, there, stage, moment)) as (child,):
        child.killed()
    after = make_pipeline(there)
    assert _counts(after) == counts
    assert after.registry.current() is None
    found = after.registry.versions()
    # A version is there with all of its files, or it is not there at all.
    assert [one.id for one in found][:1] == versions
    assert len(found) == (2 if moment == "_insert:" else 1)
    for one in found:
        assert Encoder.load(one.path).version == one.id
    assert not (there / "examples.parquet").exists()
    made, make = [], evidence.collect
    monkeypatch.setattr(evidence, "collect", lambda *given: made.append(given) or make(*given))
    if stage == "mine":
        report = after.mine_to(there / "examples.parquet")
        assert (there / "examples.parquet").exists()
        assert report.examples > 0
    elif stage == "train":
        assert after.train().id not in versions
    else:
        assert after.gate().verdict()
        assert len(after.registry.get(versions[0]).manifest.gates) == 1
    # What had been read and embedded of the log stays.
    assert bool(made) == moment.startswith("encode")
    assert not list((there / "test" / "training").glob(".run-*"))


@pytest.mark.slow
def test_a_swap_of_another_process_is_waited_for_and_a_kill_frees_it(world: Any) -> None:
    agent = world.agent(30)
    with children(Child(kill_child.swap_slowly, world.settings.home, world.one)) as (child,):
        assert child.read() == "swapping"
        for version in (world.one, world.two):
            with pytest.raises(SwapError, match="is running"):
                world.swap(agent, version)
        assert agent.encoder_version == world.stock.version
    report = world.swap(agent)
    assert report.indexes[0].reused == 10
    assert agent.encoder_version == world.one


@pytest.mark.slow
@pytest.mark.usefixtures("shallow_base")
@pytest.mark.parametrize("provider", ["qdrant", "faiss"])
def test_a_full_disk_stops_the_swap_and_nothing_else(tmp_path: Path, tiny_folder: Path, provider: str) -> None:
    disk, home = tmp_path / "disk", tmp_path / "home"
    disk.mkdir()
    shutil.copytree(tiny_folder, tmp_path / "tiny")
    from hins_memory.config import Settings

    version = Registry(Settings(home=home, project="test")).add(tmp_path / "tiny", {"base": "tiny"})
    with children(Child(kill_child.full_disk, home, disk, provider)) as (child,):
        seen = child.read()
    if seen is None:
        pytest.skip("needs a Linux that lets a process mount a tmpfs of its own")
    assert "could not be re-embedded" in seen["told"]
    assert "resumes" in seen["told"]
    assert any(word in seen["told"].lower() for word in ("full", "no space"))
    assert seen["served"] != version.id
    assert seen["there"]
    assert seen["found"] > 0
    assert seen["version"] == seen["serves"] == version.id
    assert seen["after"]


@pytest.mark.slow
def test_an_encoder_that_lost_a_byte_is_not_swapped_to(world: Any) -> None:
    agent = world.agent(10)
    weights = world.registry.get(world.one).path / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    with pytest.raises(EncoderError, match=r"model\.safetensors"):
        swap_agent(agent, world.one, Encoder.load(world.registry.get(world.one).path), world.registry)
    assert agent.encoder_version == world.stock.version
    assert world.registry.shadow_index(agent.store_id) is None
    assert agent.search("Who grows tomatoes?")


@pytest.mark.slow
def test_a_clock_that_jumps_changes_nothing(world: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    import time

    agent, real, jumps = world.agent(30), time.time, iter((-86_400.0, 3.0e7, -3.0e7, 0.0, 86_400.0) * 1000)
    # Every look at the clock shows another day, forwards and backwards.
    monkeypatch.setattr(time, "time", lambda: real() + next(jumps))
    world.swap(agent, world.one, batch_size=10)
    agent.add("m9999", "Written on some day.")
    world.swap(agent, world.two, batch_size=10)
    from hins_memory.swapping import retire_agent, rollback_agent

    assert world.registry.live_index(agent.store_id).version == world.two
    assert world.registry.previous_index(agent.store_id).version == world.one
    assert rollback_agent(agent, world.registry, world.load).version == world.one
    assert agent.search("Written on some day.", 1) == ["m9999"]
    assert [one.id for one in world.registry.versions()] == [world.one, world.two]
    assert len(retire_agent(agent, world.registry)) == 2
