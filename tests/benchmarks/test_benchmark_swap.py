"""The benchmarks of the swap and of capture, on a few memories."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import capture
import pytest
import swap
from waiting import until

from hins_memory import Memory
from hins_memory.config import Settings
from hins_memory.errors import HinsError
from parts.swapping.load import Call, Load, agent_behind, check_store, fill_store, memory_text, percentile, user_of


def test_no_two_memories_have_the_same_text() -> None:
    assert len({memory_text(number) for number in range(20_000)}) == 20_000
    assert user_of(0) == user_of(99) != user_of(100)


def test_percentiles_are_in_milliseconds() -> None:
    assert percentile([0.001] * 99 + [1.0], 50) == pytest.approx(1.0)
    assert percentile([0.001] * 99 + [1.0], 100) == pytest.approx(1000.0)


def test_the_overhead_is_the_median_of_the_ratios_of_pairs() -> None:
    found = capture._compare([[0.010, 0.012, 0.010]] * 3, [[0.011, 0.011, 0.013]] * 3, [0.0002] * 8 + [0.0004])
    assert found["median_overhead"] == pytest.approx(0.1)
    assert found["calls"] == 120
    assert found["median_added_ms"] == pytest.approx(0.2)
    assert 0.2 < found["p99_added_ms"] <= 0.4


@pytest.mark.slow
def test_the_load_finds_out_what_is_lost_or_mixed(tmp_path: Path) -> None:
    memory: Any = Memory(settings=Settings(home=tmp_path, project="p"), capture=False)
    fill_store(memory, 30)
    load = Load(memory, 30, searchers=1, pause=0.01)
    with load:
        until(lambda: len(load.calls) >= 3 and len(load.written) >= 3)
    assert not [call.fault for call in load.calls if call.fault]
    assert isinstance(load.calls[0], Call)
    assert check_store(memory, load, 0) == (0, 0)
    kept = next(iter(load.written))
    index = agent_behind(memory).live_indexes()[0]
    (record,) = index.get([kept])
    encoder = memory.embedding_model.encoder
    index.upsert([record], encoder.encode(["something else altogether"]))
    assert check_store(memory, load, 0) == (0, 1)
    load.written[kept] += " And more."
    assert check_store(memory, load, 0)[0] == 1
    index.delete([kept])
    with pytest.raises(HinsError, match="instead of"):
        check_store(memory, load, 0)
    memory.close()


@pytest.mark.slow
@pytest.mark.usefixtures("forked_programs")
@pytest.mark.parametrize(
    ("script", "options", "zero"),
    [
        (swap, ["--memories", "120", "--pause", "0.05"], ("failed_searches", "mixed_searches", "lost_writes")),
        (capture, ["--sizes", "120"], ("lost_events",)),
    ],
)
def test_a_quick_run_gives_the_figures(
    request: pytest.FixtureRequest, tmp_path: Path, script: Any, options: list[str], zero: tuple[str, ...]
) -> None:
    result, monkeypatch = tmp_path / "result.json", request.getfixturevalue("monkeypatch")
    if script is swap:
        request.getfixturevalue("shallow_starter")
    # As a user has it: a new store begins with the starter.
    monkeypatch.delenv("HINS_BASE")
    monkeypatch.setattr(swap, "_QUICK_BASELINE_SECONDS", 1.0)
    monkeypatch.setattr(swap, "_QUICK_RATE_COUNT", 100)
    monkeypatch.setattr(capture, "_QUICK_BLOCKS", 2)
    monkeypatch.setattr(capture, "_BLOCK", 10)
    monkeypatch.setattr(sys, "argv", [script.__file__, "--quick", *options, "--json", str(result)])
    script.main()
    figures = json.loads(result.read_text())["figures"]
    assert {name: figures[name] for name in zero} == dict.fromkeys(zero, 0)
    if script is swap:
        assert figures["reembed_speedup"] > 1
        assert 0 < figures["flip_ms"] < 5000
