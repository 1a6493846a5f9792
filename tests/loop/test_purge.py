"""A purge of everything that was made of the log: what it deletes, what it names, and races with what is being made."""

from __future__ import annotations

import json
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from typer.testing import CliRunner

from hins_memory.cli import app
from hins_memory.config import Settings
from hins_memory.database.engine import open_database, reading
from hins_memory.errors import TrainingError
from hins_memory.evaluation.gate import GateSettings
from hins_memory.log.copies import known_copies
from hins_memory.log.purge import PurgedError
from hins_memory.log.reader import LogReader
from hins_memory.log.writer import LogWriter
from hins_memory.loop.data import LoopSettings
from hins_memory.loop.pipeline import Pipeline
from hins_memory.loop.purge import PurgeReport, purge_person
from hins_memory.loop.split import conversation_digest
from hins_memory.registry.registry import Registry
from hins_memory.training import TrainSettings
from hins_memory.types import Answer, Event, Feedback, Memory, RankedMemory, Retrieval, Scope, Turn

pytestmark = pytest.mark.slow

THINGS = ("cello", "chess", "pottery", "rowing", "violets", "canoes")
CANARY = b"zanzibar"


def _talk(scope: Scope, word: str, conversation: str, start: float) -> list[Event]:
    events: list[Event] = []
    ids = [f"{word}-{conversation}-{thing}" for thing in THINGS]
    texts = [f"{word} {scope.user} of {conversation} likes {thing}" for thing in THINGS]
    for at, (name, text) in enumerate(zip(ids, texts, strict=True)):
        speaker = f"{word}{at % 2}"
        events.append(Turn(scope, conversation, speaker, text, start + at, f"turn-{name}"))
        events.append(Memory(name, scope, conversation, text, speaker, (f"turn-{name}",), time=start + at))
    results = tuple(RankedMemory(name, text, 0.5) for name, text in zip(ids, texts, strict=True))
    for at, name in enumerate(ids):
        query = f"{word}: who likes {THINGS[at]}?"
        events.append(Retrieval(scope, query, results, time=start + 10 + at, id=f"asked-{name}"))
        events += [Feedback(name, "POSITIVE", f"asked-{name}"), Answer(f"asked-{name}", texts[at])]
    return events


@pytest.fixture
def project(settings: Settings) -> Settings:
    """A log of three people with three conversations each; the texts of one have the canary in them."""
    writer = LogWriter(open_database(settings.database_url))
    for number, (user, word) in enumerate((("ann", "zanzibar"), ("bob", "harmless"), ("cid", "plain"))):
        for talk in range(3):
            writer.write(_talk(Scope(user=user), word, f"c{talk}", 1000.0 * talk + number))
    return settings


@pytest.fixture
def loop(tiny_folder: Path, monkeypatch: pytest.MonkeyPatch) -> LoopSettings:
    # A checkpoint after each step.
    monkeypatch.setattr("hins_memory.training.fit.callbacks._SECONDS", -1.0)
    monkeypatch.setattr("hins_memory.training.fit.callbacks._MAX_SAVE_SHARE", float("inf"))
    return LoopSettings(
        train=TrainSettings(mode="full", epochs=0.1, min_steps=6, batch_size=8, max_tokens=32, replay=0.0),
        gate=GateSettings(held_out_share=0.2, min_queries=5, skills=("preference",)),
        base=str(tiny_folder),
    )


def _holding(root: Path) -> list[str]:
    """Return the files of a project that hold the canary."""
    found = [path for path in root.rglob("*") if path.is_file() and CANARY in path.read_bytes()]
    return sorted(path.relative_to(root).as_posix() for path in found)


def _where(report: PurgeReport, word: str) -> list[str]:
    return [one.where for one in report.left if word in one.what]


class _Cut(Exception):
    pass


def _cut(stage: str, done: int, total: int) -> None:
    if (stage, done) == ("train", 5):
        raise _Cut


@pytest.mark.slow
def test_a_purge_reaches_or_names_everything_that_was_made_of_the_log(project: Settings, loop: LoopSettings) -> None:
    pipeline = Pipeline(project, loop=loop)
    version = pipeline.train()
    export, examples, page = (project.root / name for name in ("out/export.jsonl", "examples.parquet", "gate.html"))
    pipeline.mine_to(examples)
    pipeline.gate(page=page)
    hins(project, "log", "export", "-o", export)
    with pytest.raises(_Cut):
        Pipeline(project, loop=loop, progress=_cut).train()
    killed = project.root / "examples.parquet.work"
    killed.mkdir()
    with closing(sqlite3.connect(killed / "journal.db")) as journal:
        journal.execute("CREATE TABLE drafts AS SELECT 'zanzibar' AS text")
    (killed.parent / ".examples.parquet.half").write_bytes(CANARY)
    assert len(_holding(project.root)) >= 6

    report = purge_person(project, "ann")
    assert report.problem == ""
    assert report.removed["memories"] == 18
    (run,) = (path for path in report.deleted if "run-" in path)
    assert sorted(report.deleted) == sorted([run, str(killed)])
    named = [str(path) for path in (export, project.root / ".examples.parquet.half", page, examples)]
    assert sorted(_where(report, "wrote on")) == sorted(named)
    assert _where(report, "encoder version") == [version.id]
    assert {name.split("/")[-1] for name in _holding(project.root)} <= {Path(one).name for one in named}
    again = purge_person(project, "ann", delete_copies=True)
    assert sorted(again.deleted) == sorted(named)
    assert _holding(project.root) == []
    assert known_copies(project.root) == []
    assert LogReader(open_database(project.database_url)).counts().memories == 36
    # what is trained now is not trained on the person
    after = Pipeline(project, loop=loop).train()
    gone = {conversation_digest(Scope(user="ann"), f"c{talk}") for talk in range(3)}
    assert gone & set(version.manifest.trained_conversations)
    assert not gone & set(after.manifest.trained_conversations)


@pytest.mark.parametrize(("stage", "running"), [("read", 1), ("mine", 1), ("train", 2)])
def test_a_training_in_which_the_log_is_purged_gives_no_version(
    project: Settings, loop: LoopSettings, stage: str, running: int
) -> None:
    found: list[PurgeReport] = []

    def purge(at: str, done: int, total: int) -> None:
        if at == stage and done >= 2 and not found:
            found.append(purge_person(project, "ann"))

    with pytest.raises(PurgedError, match="purged meanwhile"):
        Pipeline(project, loop=loop, progress=purge).train()
    assert len(_where(found[0], "a training, mining or gate")) == running
    pipeline = Pipeline(project, loop=loop)
    assert pipeline.registry.versions() == []
    assert not list(project.training.glob("*run-*"))
    assert _holding(project.root) == []
    with pytest.raises(TrainingError, match="no unfinished training"):
        pipeline.train(resume=True)


def test_mining_in_which_the_log_is_purged_leaves_no_file(project: Settings, loop: LoopSettings) -> None:
    path = project.root / "examples.parquet"
    found: list[PurgeReport] = []

    def purge(at: str, done: int, total: int) -> None:
        if (at, done) == ("mine", 2):
            found.append(purge_person(project, "ann"))

    with pytest.raises(PurgedError, match=r"examples\.parquet was not kept"):
        Pipeline(project, loop=loop, progress=purge).mine_to(path)
    assert _where(found[0], "mining that runs") == [f"{path}.work"]
    assert _holding(project.root) == []
    Pipeline(project, loop=loop).mine_to(path)
    assert path.exists()


def test_a_purge_deletes_towers_of_the_person_and_names_those_of_the_tenant(
    project: Settings, tiny_folder: Path, tmp_path: Path
) -> None:
    dan, acme = Scope(user="dan", tenant="acme"), Scope(tenant="acme")
    LogWriter(open_database(project.database_url)).write(_talk(dan, "harmless", "c0", 0.0))
    registry = Registry(project)
    made = {}
    for scope in (dan, Scope(user="dan", agent="bot", tenant="acme"), acme, Scope(user="dan"), Scope(tenant="other")):
        shutil.copytree(tiny_folder, tmp_path / scope.key)
        made[scope] = registry.add(tmp_path / scope.key, {"mode": "tower", "document_space": "s", "scope": scope.key})
    registry.serve_scope(made[dan].id)
    registry.serve_scope(made[acme].id)
    report = purge_person(project, "dan", "acme")
    gone = [made[dan], made[Scope(user="dan", agent="bot", tenant="acme")]]
    assert sorted(report.deleted) == sorted(str(one.path) for one in gone)
    assert _where(report, "encoder version trained") == [made[acme].id]
    assert registry.versions_by_scope() == {acme.key: made[acme].id}
    assert {one.id for one in registry.versions()} == {one.id for one in made.values()} - {one.id for one in gone}


def test_a_purge_that_finds_nobody_stops_no_training(project: Settings, loop: LoopSettings) -> None:
    def purge(at: str, done: int, total: int) -> None:
        if (at, done) == ("train", 2):
            purge_person(project, "nobody")

    assert Pipeline(project, loop=loop, progress=purge).train().id


def hins(settings: Settings, *arguments: object, code: int = 0) -> str:
    options = ["--home", str(settings.home), "--project", settings.project]
    done = CliRunner().invoke(app, [*options, *map(str, arguments)], env={"COLUMNS": "200"})
    assert done.exit_code == code, done.output
    return done.stdout


def test_equal_names_of_two_tenants_are_not_purged_together_by_accident(project: Settings) -> None:
    writer = LogWriter(open_database(project.database_url))
    writer.write(_talk(Scope(user="ann", tenant="acme"), "harmless", "x", 0.0))
    purge = ("log", "purge", "--user", "ann", "--yes", "--json")
    error = json.loads(hins(project, *purge, code=2))["error"]
    assert "2 tenants have a user 'ann': '', 'acme'" in error["problem"]
    assert (
        "--all-tenants"
        in json.loads(hins(project, *purge, "--tenant", "", "--all-tenants", code=2))["error"]["problem"]
    )
    assert _holding(project.root)
    report = json.loads(hins(project, *purge, "--tenant", ""))
    assert report["complete"]
    assert report["removed"]["turns"] == 18
    assert _holding(project.root) == []
    report = json.loads(hins(project, *purge, "--all-tenants"))
    assert report["removed"]["turns"] == 6


def test_the_command_says_that_traces_are_left_while_another_process_reads(
    project: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hins_memory.loop.purge.ERASE_SECONDS", 0.2)
    with reading(open_database(project.database_url)).connect() as reader:
        reader.exec_driver_sql("SELECT count(*) FROM turns")
        report = purge_person(project, "ann")
    assert "run the purge again" in report.problem
    assert not report.to_dict()["complete"]
    assert _where(report, "copies of the removed rows")
    assert LogReader(open_database(project.database_url)).counts().owners == 2
    assert "The log holds nothing of 'ann'" in hins(project, "log", "purge", "--user", "ann", "--yes")
    assert _holding(project.root) == []


def test_digests_keep_names_with_line_breaks_apart() -> None:
    one, other = Scope(user="a\nb"), Scope(user="a")
    assert conversation_digest(one, "c") != conversation_digest(other, "b\nc")
    # as it always was, because manifests hold it
    assert conversation_digest(Scope(user="ann@example.org", run="r"), "talk") == "d894402e7b57c640"
