"""The export to Parquet: it is the log of one moment, complete or not there, on disk and in an object store."""

from __future__ import annotations

import json
import stat
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import sqlalchemy as sa

from hins_memory.config import Settings
from hins_memory.database.engine import open_database
from hins_memory.database.tables import answers, feedback, memories, retrieval_results, retrievals, turns
from hins_memory.errors import LogError
from hins_memory.log import parquet
from hins_memory.log.copies import writing_copy
from hins_memory.log.parquet import export_parquet, remove_export
from hins_memory.log.purge import PurgedError, purge_rows
from hins_memory.log.writer import LogWriter
from hins_memory.loop.purge import purge_person
from hins_memory.types import Answer, Deletion, Event, Feedback, Memory, RankedMemory, Retrieval, Scope, Turn

ANN, BOB = Scope(user="ann", run="r"), Scope(user="bob", tenant="acme")
TABLES = (turns, memories, retrievals, retrieval_results, answers, feedback)


def _events(scope: Scope, count: int) -> list[Event]:
    name, events = scope.user, list[Event]()
    for n in range(count):
        found = tuple(RankedMemory(f"{name}-m{n - rank}", f"memory {n - rank} \N{VIOLIN}", 0.5) for rank in range(3))
        events += [
            Turn(scope, "c", name, f"turn {n}", 1.5 * n, f"{name}-t{n}"),
            Memory(f"{name}-m{n}", scope, "c", f"memory {n} \N{VIOLIN}", name, (f"{name}-t{n}",), time=1.5 * n),
            Retrieval(scope, f"query {n}", found, "v1", 2.0 * n, f"{name}-r{n}"),
            Answer(f"{name}-r{n}", f"answer {n}", 2.0 * n),
        ]
    return [*events, Feedback(f"{name}-m0", "POSITIVE", f"{name}-r0", 1.0), Deletion(scope, f"{name}-m1", 9.0)]


def _rows(engine: sa.Engine) -> dict[str, list[dict[str, Any]]]:
    with engine.connect() as connection:
        return {table.name: [dict(row) for row in connection.execute(sa.select(table)).mappings()] for table in TABLES}


def _read(folder: Path) -> dict[str, list[dict[str, Any]]]:
    files = json.loads((folder / "manifest.json").read_text())["files"]
    return {
        table.name: [
            row
            for name in files
            if name.startswith(f"{table.name}/")
            for row in pq.read_table(folder / name).to_pylist()
        ]
        for table in TABLES
    }


def _sorted(rows: dict[str, list[dict[str, Any]]]) -> dict[str, list[dict[str, Any]]]:
    return {name: sorted(found, key=lambda row: json.dumps(row, sort_keys=True)) for name, found in rows.items()}


def test_an_export_is_the_log_of_one_moment_in_parts_of_bounded_size(engine, tmp_path, monkeypatch):
    monkeypatch.setattr(parquet, "_GROUP_ROWS", 4)
    monkeypatch.setattr(parquet, "_FILE_ROWS", 8)
    LogWriter(engine).write([*_events(ANN, 7), *_events(BOB, 3)])
    rows = _rows(engine)
    folder = tmp_path / "export"

    def written_meanwhile(stage: str, done: int, total: int) -> None:
        LogWriter(engine).write([Turn(ANN, "c", "ann", f"later {stage} {done}"), _events(ANN, 9)[-4]])

    export = export_parquet(engine, str(folder), written_meanwhile)
    assert _sorted(_read(folder)) == _sorted(rows)
    assert export.rows == {name: len(found) for name, found in rows.items()}
    groups = pq.ParquetFile(folder / "turns" / "part-00000.parquet").metadata
    assert (groups.num_row_groups, groups.num_rows) == (2, 8)
    assert export.files["turns/part-00001.parquet"] == 2
    # Long texts make smaller groups.
    monkeypatch.setattr(parquet, "_GROUP_CHARS", 1)
    export_parquet(engine, str(tmp_path / "second"))
    assert pq.ParquetFile(tmp_path / "second" / "turns" / "part-00000.parquet").metadata.num_row_groups == 8
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert stat.S_IMODE((folder / "turns" / "part-00000.parquet").stat().st_mode) == 0o600


def test_an_export_that_was_cut_counts_for_nothing_and_one_that_is_complete_is_not_written_over(tmp_path):
    engine = open_database(f"sqlite:///{tmp_path / 'log.db'}")
    LogWriter(engine).write(_events(ANN, 3))
    folder = tmp_path / "export"
    folder.mkdir()
    (folder / "mine.txt").write_text("not the export's")

    def cut(stage: str, done: int, total: int) -> None:
        if "retrievals" in stage:
            raise OSError("no room")

    with pytest.raises(LogError, match="no room"):
        export_parquet(engine, str(folder), cut)
    assert (folder / "turns").is_dir()
    assert not (folder / "manifest.json").exists()
    export_parquet(engine, str(folder))
    assert _sorted(_read(folder)) == _sorted(_rows(engine))
    with pytest.raises(LogError, match="holds an export already"):
        export_parquet(engine, str(folder))
    remove_export(str(folder))
    assert [path.name for path in folder.iterdir()] == ["mine.txt"]


@pytest.mark.slow
def test_a_purge_names_exports_or_deletes_them_and_nothing_beside_them(tmp_path):
    settings = Settings(home=tmp_path, project="p")
    engine = open_database(settings.database_url)
    LogWriter(engine).write([*_events(ANN, 2), *_events(BOB, 2)])
    folder, url = tmp_path / "export", "s3://bucket/folder"
    with writing_copy(settings.root, engine, str(folder), "hins log export --parquet"):
        export_parquet(engine, str(folder))
    with writing_copy(settings.root, engine, url, "hins log export --parquet"):
        pass
    (folder / "mine.txt").write_text("not the export's")
    places = {one.where: one.advice for one in purge_person(settings, "ann").left}
    assert places[str(folder)].startswith("Delete it, or purge with")
    assert places[url] == "Delete it there."
    assert str(folder) in purge_person(settings, "ann", delete_copies=True).deleted
    assert [path.name for path in folder.iterdir()] == ["mine.txt"]

    def purged_meanwhile(stage: str, done: int, total: int) -> None:
        purge_rows(engine, "bob")

    copy = writing_copy(settings.root, engine, str(folder), "an export", lambda: remove_export(str(folder)))
    with pytest.raises(PurgedError), copy:
        export_parquet(engine, str(folder), purged_meanwhile)
    assert [path.name for path in folder.iterdir()] == ["mine.txt"]


@pytest.mark.slow
def test_an_export_goes_to_an_object_store(tmp_path, s3):
    import s3fs

    engine = open_database(f"sqlite:///{tmp_path / 'log.db'}")
    LogWriter(engine).write(_events(ANN, 3))
    export_parquet(engine, f"{s3}/export")
    store = s3fs.S3FileSystem(skip_instance_cache=True)
    store.get(f"{s3}/export", str(tmp_path / "got"), recursive=True)
    assert _sorted(_read(tmp_path / "got")) == _sorted(_rows(engine))
    remove_export(f"{s3}/export")
    store.invalidate_cache()
    assert not store.exists(f"{s3}/export")
    with pytest.raises(LogError, match="could not be exported"):
        export_parquet(engine, f"{s3.rsplit('/', 1)[0]}-elsewhere/export")
