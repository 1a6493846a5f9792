"""Recent searches are judged by their outcomes, beside what the gate measured of the version that serves."""

from __future__ import annotations

import shutil
from dataclasses import replace

import pytest
from typer.testing import CliRunner

from hins_memory.cli import app
from hins_memory.config import Settings
from hins_memory.data.sample_conversations import load_sample
from hins_memory.database.engine import open_database
from hins_memory.encoders.encoder import Encoder
from hins_memory.evaluation.gate import evaluate_gate
from hins_memory.log.reader import LogReader
from hins_memory.log.writer import LogWriter
from hins_memory.loop.pipeline import Pipeline
from hins_memory.loop.purge import purge_person
from hins_memory.loop.quality import MIN_SEARCHES, judge_project, read_quality
from hins_memory.loop.split import HeldOutSets, labelled
from hins_memory.mining import MineSettings
from hins_memory.mining.storage.evidence import EvidenceStore
from hins_memory.registry.registry import Registry
from hins_memory.types import Answer, Event, Feedback, Memory, RankedMemory, Retrieval, Scope

ANN = Scope(user="ann")


@pytest.fixture
def settings(tmp_path):
    return Settings(home=tmp_path / "home", project="p")


def searches(version: str, count: int, place: int, start: int = 0) -> list[Event]:
    """Searches that return ten memories, of which the one at a place, from 0, is liked."""
    names = [f"m{n}" for n in range(10)]
    events: list[Event] = [Memory(name, ANN, "c", f"Fact {name}", time=1.0) for name in names]
    for number in range(start, start + count):
        results = tuple(RankedMemory(name, f"Fact {name}", 0.5) for name in names)
        events.append(Retrieval(ANN, f"Question {number}?", results, version, float(number), f"s{number}"))
        events.append(Feedback(f"m{place}", "POSITIVE", f"s{number}", float(number)))
    return events


def test_quality_is_that_of_what_serves_beside_what_the_gate_measured(settings, tiny_folder, tmp_path):

    registry, log = Registry(settings), LogWriter(open_database(settings.database_url))
    folder = shutil.copytree(tiny_folder, tmp_path / "copy")
    version = registry.add(folder, {"base": "tiny"})
    registry.promote(version.id)
    encoder = Encoder.load(version.path)
    log.write(searches("an older one", 5, 0))
    log.write(searches(version.id, MIN_SEARCHES - 1, 9, start=5))
    log.write([Retrieval(ANN, "Without an outcome", (), version.id)])
    found = judge_project(settings, registry, encoder)
    assert (found.searches, found.mean, found.below) == (MIN_SEARCHES - 1, None, False)
    assert f"{MIN_SEARCHES} are needed" in found.sentence

    log.write(searches(version.id, 1, 0, start=100))
    registry.record_gate(version.id, {"passed": True, "ndcg": 0.3, "queries": 40})
    found = judge_project(settings, registry, encoder)
    assert {one.ndcg for one in found.judged if one.version != version.id} == {1.0}
    # One at the first place, and 49 at the tenth, which counts 1 / log2(11).
    assert found.mean == pytest.approx((1 + 49 / 3.4594) / 50, abs=1e-4)
    assert found.low < found.mean < found.high
    assert (found.promise, found.promise_queries, found.below) == (0.3, 40, False)

    registry.record_gate(version.id, {"passed": True, "ndcg": 0.6, "queries": 40})
    assert Pipeline(settings).judge().below
    assert read_quality(settings.root).below
    shown = CliRunner().invoke(app, ["--home", str(settings.home), "--project", "p", "status"])
    assert "which is below the 60.0 that the gate measured" in " ".join(shown.output.replace("│", "").split())

    # It holds the times of a person's searches.
    assert str(settings.root / "quality.json") in purge_person(settings, "ann").deleted
    assert read_quality(settings.root) is None


def test_nothing_judged_is_nothing_said(settings, tiny_folder, tmp_path):
    # With the log in another place, the project has no folder yet.
    settings = replace(settings, log_url=f"sqlite:///{tmp_path / 'elsewhere.db'}")
    assert Pipeline(settings).status().quality is None
    found = judge_project(settings, Registry(settings), Encoder.load(tiny_folder))
    assert (found.mean, found.judged) == (None, ())
    (settings.root / "quality.json").write_text("{", encoding="utf-8")
    assert read_quality(settings.root) is None


@pytest.mark.slow
def test_the_same_searches_give_the_figure_of_the_gate(settings, shallow_folder, tmp_path):
    """Nothing drifts: what is judged is what the gate measured, so that a fall below it means something."""
    registry, log = Registry(settings), LogWriter(open_database(settings.database_url))
    version = registry.add(shutil.copytree(shallow_folder, tmp_path / "copy"), {"base": "shallow"})
    encoder = Encoder.load(version.path)
    for one in load_sample()[:4]:
        scope = Scope(user=one.id)
        memories = [
            Memory(
                f"{one.id}-{turn.id}", scope, f"{session.time}", f"{turn.speaker}: {turn.text}", turn.speaker, time=1.0
            )
            for session in one.sessions
            for turn in session.turns
        ]
        vectors = encoder.encode([memory.text for memory in memories])
        log.write(memories)
        for n, asked in enumerate(one.questions):
            cosines = vectors @ encoder.encode([asked.question], role="query")[0]
            best = [memories[row] for row in (-cosines).argsort()[:10]]
            results = tuple(RankedMemory(memory.id, memory.text, 0.5) for memory in best)
            name = f"{one.id}-search-{n}"
            log.write(
                [Retrieval(scope, asked.question, results, version.id, 2.0, name), Answer(name, asked.answer, 3.0)]
            )
    # The gate, without general retrieval, which takes longest.
    with EvidenceStore(tmp_path / "evidence", encoder, MineSettings()) as store:
        for owner in LogReader(open_database(settings.database_url)).scope_logs():
            store.add(owner)
        verdict = evaluate_gate(encoder, encoder, HeldOutSets(store, labelled(store)), None, ()).verdict()
    registry.record_gate(version.id, verdict)
    registry.promote(version.id)
    found = Pipeline(settings).judge()
    assert (found.promise, found.promise_queries) == (verdict["ndcg"], verdict["queries"])
    assert found.searches == verdict["queries"] >= MIN_SEARCHES
    assert found.mean == pytest.approx(found.promise, abs=0.005)
    assert not found.below
