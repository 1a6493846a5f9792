"""The drift watch: it looks when there is something new, warns, rolls back if told to, and its figures are metrics."""

from __future__ import annotations

import logging
import shutil
from pathlib import Path

import pytest

pytest.importorskip("fastapi", reason="the extra serve is not installed")
from fastapi.testclient import TestClient

from hins_memory.config import Settings
from hins_memory.database.engine import open_database
from hins_memory.log.retain import retain
from hins_memory.log.writer import LogWriter
from hins_memory.registry.registry import Registry
from hins_memory.server.app import create_app
from hins_memory.server.page.settings import PageSettings
from hins_memory.server.settings import ServeSettings
from hins_memory.server.watch import NEW_OUTCOMES, Watch
from hins_memory.types import Event, Feedback, Memory, RankedMemory, Retrieval, Scope

ANN = Scope(user="ann")


def disliked(version: str, count: int, start: int) -> list[Event]:
    """Searches of which the tenth result is the one that is liked."""
    memories = [Memory(f"m{n}", ANN, "c", f"Fact {n}", time=1.0) for n in range(10)]
    results = tuple(RankedMemory(one.id, one.text, 0.5) for one in memories)
    events: list[Event] = [*memories]
    for n in range(start, start + count):
        events += [Retrieval(ANN, f"Question {n}?", results, version, float(n), f"s{n}")]
        events += [Feedback("m9", "POSITIVE", f"s{n}", float(n))]
    return events


@pytest.mark.slow
def test_a_fall_below_the_gates_figure_is_told_and_rolled_back_once(
    tmp_path: Path, tiny_folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    settings = Settings(home=tmp_path, project="p")
    registry, log = Registry(settings), LogWriter(open_database(settings.database_url))
    version = registry.add(shutil.copytree(tiny_folder, tmp_path / "one"), {"base": "tiny"})
    registry.record_gate(version.id, {"passed": True, "ndcg": 0.6, "queries": 40})
    registry.promote(version.id)
    registry.begin_shadow("mem0/memories", version.id, "-new")
    registry.note_progress("mem0/memories", "-new", "build memories", 1024, 4096)
    options = ServeSettings(page=PageSettings(agent="nowhere", auto_rollback=True))
    app = create_app(settings, options)
    operator = app.state.server.page.operator
    watch = Watch(settings, registry, operator, auto_rollback=True)
    log.write(disliked(version.id, NEW_OUTCOMES - 1, 0))
    assert watch.look() is None
    log.write(disliked(version.id, 1, 1000))
    with caplog.at_level(logging.WARNING):
        found = watch.look()
    assert found is not None
    assert found.below
    assert "which is below the 60.0 that the gate measured" in caplog.text
    operator.wait(30)
    job = operator.job
    assert job is not None
    assert job.what.startswith("rollback, because nDCG@10 of 50 searches")
    # Nothing new: no look. And no second attempt for the same version.
    assert watch.look() is None
    log.write(disliked(version.id, NEW_OUTCOMES, 2000))
    assert watch.look() is not None
    assert operator.job is job
    # What comes after a retention that removed all outcomes is new, though the log counts from 1 again.
    retain(open_database(settings.database_url), 1)
    log.write(disliked(version.id, NEW_OUTCOMES, 4000))
    assert watch.look() is not None
    log.write(disliked(version.id, NEW_OUTCOMES, 6000))

    page = TestClient(app, base_url="http://localhost")
    overview = page.get("/").text
    assert "Recent searches went worse than the gate measured" in overview
    assert "build memories" in overview
    metrics = page.get("/metrics").text
    assert f'hins_quality_below{{version="{version.id}"}} 1.0' in metrics
    assert f'hins_quality_ndcg{{value="promise",version="{version.id}"}} 0.6' in metrics
    assert 'hins_log_outcomes{kind="feedback"} 100.0' in metrics
    assert "hins_log_searches 100.0" in metrics
    assert "hins_capture_dropped 0.0" in metrics
    assert f'hins_indexes{{state="shadow",version="{version.id}"}} 1.0' in metrics
    assert f'hins_swap_progress{{step="build memories",version="{version.id}"}} 0.25' in metrics
    assert f'hins_gate_passed{{version="{version.id}"}} 1.0' in metrics
