"""One bad folder or record is in nobody's way: everything else lists, serves and is added to, and it is named."""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import sqlalchemy as sa
from test_registry import make_folder
from typer.testing import CliRunner

from hins_memory.cli import app
from hins_memory.config import Settings
from hins_memory.database.tables import encoder_versions
from hins_memory.encoders.manifest import MANIFEST_NAME, Manifest
from hins_memory.errors import EncoderError, HinsError
from hins_memory.registry.prune import prune
from hins_memory.registry.registry import Registry

GOOD = json.loads((Path(__file__).parent / "fixtures" / "manifest_0_1_row.json").read_text(encoding="utf-8"))
ID = GOOD["id"]


@pytest.fixture
def registry(settings):
    return Registry(settings)


@pytest.fixture
def own(registry, tmp_path):
    return registry.add(make_folder(tmp_path / "own"), {"base": "mine"})


def hins(settings, *words):
    result = CliRunner().invoke(app, ["--home", str(settings.home), "--project", settings.project, *words, "--json"])
    assert result.exit_code == 0, (result.output, result.exception)
    return json.loads(result.stdout)


def everything_works(registry, own, tmp_path, *unreadable):
    """Return why the named things cannot be read, after all that a project does was done."""
    assert [version.id for version in registry.versions()] == [own.id]
    assert hins(registry.settings, "status")["versions"] == [own.id]
    listed = hins(registry.settings, "encoders", "list")
    assert [row["id"] for row in listed["versions"]] == [own.id]
    reasons = {row["name"]: row["reason"] for row in listed["unreadable"]}
    assert set(reasons) == set(unreadable)
    assert hins(registry.settings, "status")["unreadable"] == reasons
    registry.promote(own.id)
    assert registry.current().id == own.id
    prune(registry, keep=1)
    added = registry.add(make_folder(tmp_path / "another"), {})
    assert registry.versions()[-1].id == added.id
    return reasons


def put(registry, manifest, name=ID):
    folder = make_folder(registry.settings.encoders / name)
    text = manifest if isinstance(manifest, str) else json.dumps({**GOOD, **manifest})
    (folder / MANIFEST_NAME).write_text(text, encoding="utf-8")
    return folder


CHANGES = [
    *({"created": float("nan")}, {"created": 1e20}, {"data": []}, {"promotions": 5}, {"files": None}, {"id": 5}),
    *({"id": "v0002-01234567"}, {"created": "soon"}, {"note": "\0"}, {"note": "\ud800"}, {"seed": 2**70}),
    *("", "[]", "{", "[" * 100_000, '{"id": "' + ID + '"}'),
]


@pytest.mark.parametrize("change", CHANGES, ids=[str(change)[:30] for change in CHANGES])
@pytest.mark.slow
def test_a_folder_with_a_bad_manifest_is_listed_with_its_reason(registry, own, tmp_path, change):
    put(registry, change)
    (reason,) = everything_works(registry, own, tmp_path, ID).values()
    assert reason
    with pytest.raises(EncoderError, match=f"{ID} cannot be read"):
        registry.get(ID)


def test_whatever_else_lies_there_is_listed_too(registry, own, tmp_path):
    encoders = registry.settings.encoders
    (encoders / "v0003-01234567").mkdir()
    (encoders / "notes.txt").write_text("mine")
    (encoders / "v0004-01234567").symlink_to("nowhere")
    os.mkfifo(encoders / "v0005-01234567")
    os.mkdir(os.fsencode(encoders) + b"/\xff\xfe")
    (encoders / f"v{'9' * 200}-01234567").mkdir()
    put(registry, {}, "v٠٠٠١-01234567")
    (encoders / ".hidden").mkdir()
    names = [f"v000{n}-01234567" for n in (3, 4, 5)]
    names += ["notes.txt", "\\udcff\\udcfe", f"v{'9' * 200}-01234567", "v٠٠٠١-01234567"]
    reasons = everything_works(registry, own, tmp_path, *names)
    assert reasons["notes.txt"] == "its name is not the id of a version"
    assert "missing" in reasons["v0003-01234567"]


def test_the_largest_number_leaves_room_for_more(registry, own, tmp_path):
    put(registry, {"id": "v99999999-01234567"}, "v99999999-01234567")
    assert len(registry.versions()) == 2
    added = [registry.add(make_folder(tmp_path / name), {"n": name}) for name in "ab"]
    assert {version.id for version in added} < {version.id for version in registry.versions()}


@pytest.mark.parametrize(
    "row", ["[]", "5", '{"id": "other"}', '{"data": []}', '{"created": NaN}', "not JSON", '"\\u0000"']
)
def test_a_record_that_is_not_valid_is_listed_with_its_reason(registry, own, tmp_path, row):
    insert = sa.text("INSERT INTO encoder_versions (id, manifest, created, current) VALUES (:id, :row, 1.0, 0)")
    with registry._engine.begin() as connection:
        connection.execute(insert, {"id": ID, "row": row})
    (reason,) = everything_works(registry, own, tmp_path, ID).values()
    assert "its record in the log is not valid" in reason
    with pytest.raises(EncoderError, match="cannot be read"):
        registry.get(ID)
    with pytest.raises(HinsError, match="cannot be read"):
        registry.record_gate(ID, {"passed": True})
    assert registry.document_space(ID) == ID
    with registry._engine.begin() as connection:
        connection.execute(sa.delete(encoder_versions).where(encoder_versions.c.id == ID))
    put(registry, {})
    assert registry.get(ID).manifest.base == GOOD["base"]
    assert registry.listing().unreadable == {}


def test_a_record_of_0_1_is_read_as_it_is(registry, own):
    row = {"id": ID, "manifest": GOOD, "created": GOOD["created"], "current": True}
    with registry._engine.begin() as connection:
        connection.execute(sa.update(encoder_versions).values(current=False))
        connection.execute(sa.insert(encoder_versions).values(**row))
    put(registry, {})
    version = registry.current()
    assert version.manifest == Manifest.from_dict(GOOD)
    assert version.manifest.gates[0].passed
    assert registry.listing().unreadable == {}
    registry.record_gate(ID, {"passed": False, "forced": False, "incumbent": own.id, "failures": ["held_out_gain"]})
    assert [gate.passed for gate in registry.get(ID).manifest.gates] == [True, None, False]
    assert registry.get(ID).manifest.schema_version == 0
    shown = hins(registry.settings, "encoders", "show", ID)["manifest"]
    assert shown["data"] == GOOD["data"]


def test_a_folder_of_0_1_that_the_table_does_not_know_is_taken_up_without_verdicts_of_others(registry, own):
    put(registry, {})
    found = registry.get(ID)
    assert found.manifest == Manifest.from_dict(GOOD).as_made()
    assert GOOD["gates"]
    assert (found.manifest.gates, found.manifest.promotions) == ((), ())


def test_verdicts_that_are_given_to_a_new_version_are_not_taken_over(registry, tmp_path):
    added = registry.add(make_folder(tmp_path / "a"), GOOD)
    assert (added.manifest.gates, added.manifest.promotions, added.manifest.base) == ((), (), GOOD["base"])
    assert added.id != ID


BAD = [
    {"created": float("nan")},
    {"created": 1e20},
    {"data": []},
    {"metrics": 5},
    {"seed": "1"},
    {"ratio": {"easy": 1}},
]


@pytest.mark.parametrize("manifest", BAD, ids=[str(bad) for bad in BAD])
def test_add_refuses_what_cannot_be_and_moves_nothing(registry, tmp_path, manifest):
    folder = make_folder(tmp_path / "a")
    with pytest.raises(EncoderError, match="not valid"):
        registry.add(folder, manifest)
    assert (folder / "model.safetensors").is_file()
    assert registry.listing().versions == []
    assert not registry.settings.encoders.exists() or not list(registry.settings.encoders.iterdir())


def test_a_verdict_that_cannot_be_is_not_recorded(registry, own):
    with pytest.raises(EncoderError, match="cannot be recorded"):
        registry.record_gate(own.id, {"passed": "yes"})
    with pytest.raises(EncoderError, match="cannot be recorded"):
        registry.record_gate(own.id, {"gain": float("nan")})
    assert registry.get(own.id).manifest.gates == ()


KILLED = """
import os, signal, sys
from pathlib import Path
from hins_memory.config import Settings
from hins_memory.registry.registry import Registry
registry = Registry(Settings(home=Path(sys.argv[1]), project="test"))
registry._insert = lambda manifest: os.kill(os.getpid(), signal.SIGKILL)
registry.add(Path(sys.argv[2]), {"base": "b", "run": {"id": "run-1"}})
"""


def test_a_kill_between_the_move_and_the_record_loses_nothing_even_beside_a_bad_folder(tmp_path):
    settings = Settings(home=tmp_path, project="test")
    folder = make_folder(tmp_path / "a")
    done = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path), str(folder)], capture_output=True, text=True)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert not folder.exists()
    registry = Registry(settings)
    put(registry, {"created": float("nan")})
    (version,) = registry.versions()
    assert version.manifest.run.id == "run-1"
    assert set(registry.listing().unreadable) == {ID}
    shutil.rmtree(settings.encoders / ID)
    assert registry.listing().unreadable == {}
