"""Manifests: those of 0.1 say the same as before, and what cannot be is refused with the field's name."""

import json
from pathlib import Path

import pytest

from hins_memory.encoders.manifest import (
    MANIFEST_NAME,
    SCHEMA_VERSION,
    Description,
    Manifest,
    check_names,
    is_version_id,
    read_manifest,
)
from hins_memory.errors import EncoderError

FIXTURES = Path(__file__).parents[1] / "registry" / "fixtures"
LEAST = {"id": "v0001-01234567", "created": 1.0}


@pytest.mark.parametrize("name", ["manifest_0_1_folder.json", "manifest_0_1_row.json"])
def test_a_manifest_of_0_1_says_what_it_said(name):
    text = (FIXTURES / name).read_text(encoding="utf-8")
    found, said = Manifest.from_json(text), json.loads(text)
    assert found.schema_version == 0
    assert found.base == said["base"]
    assert (found.data.examples, found.ratio.count) == (58, 1049)
    assert list(found.run.curves.loss) == said["run"]["curves"]["loss"]
    assert found.scores["general"]["kept"] == 1.0
    # Nothing is lost on the way, and nothing is there that was not said, but what one verdict or promotion left out.
    written = found.to_dict()
    for group in ("gates", "promotions"):
        for entry, before in zip(written.pop(group, []), said.pop(group, []), strict=True):
            assert before.items() <= entry.items()
    assert written == said
    assert Manifest.from_dict(found.to_dict()) == found


def test_what_whoever_added_a_version_noted_is_kept():
    given = Description.given({"base": "b", "note": "🎻 大提琴", "from": {"a": [1, None]}})
    assert given.schema_version == SCHEMA_VERSION
    assert given.other == {"note": "🎻 大提琴", "from": {"a": [1, None]}}
    assert Description.from_dict(given.to_dict()) == given
    with pytest.raises(EncoderError, match="not JSON"):
        Description.given({"model": object()})
    with pytest.raises(EncoderError, match="not valid: it holds nan"):
        Description.given({"note": float("nan")})


BROKEN = [
    ({"created": float("nan")}, "nan"),
    ({"created": 1e20}, "created"),
    ({"created": -1.0}, "created"),
    ({"created": True}, "created"),
    ({"created": "1"}, "created"),
    ({"created": None}, "created"),
    ({"id": "v" + "9" * 200 + "-01234567"}, "id"),
    ({"id": "v٠٠٠١-01234567"}, "id"),
    ({"id": "v00001-01234567"}, "id"),
    ({"id": "v0001-01234567\n"}, "id"),
    ({"id": "../../etc"}, "id"),
    ({"id": 5}, "id"),
    ({"data": []}, "data"),
    ({"data": {"examples": -1}}, r"data\.examples"),
    ({"data": {"examples": 1e3}}, r"data\.examples"),
    ({"data": {"tiers": {"hard": "5"}}}, r"data\.tiers\.hard"),
    ({"data": {"exmaples": 1}}, r"data\.exmaples"),
    ({"promotions": 5}, "promotions"),
    ({"promotions": [5]}, r"promotions\.0"),
    ({"gates": [{"passed": True}]}, r"gates\.0\.time"),
    ({"gates": [{"time": 1, "passed": "yes"}]}, r"gates\.0\.passed"),
    ({"base": 5}, "base"),
    ({"base": "b" * 5000}, "base"),
    ({"settings": "lora"}, "settings"),
    ({"metrics": {"loss": [1.0, "x"]}}, r"metrics\.loss\.1"),
    ({"run": {"curves": {"held_out": [[1]]}}}, "held_out"),
    ({"trained_conversations": "abc"}, "trained_conversations"),
    ({"trained_conversations": [1]}, "trained_conversations"),
    ({"ratio": {"easy": 2, "medium": 0, "hard": 0}}, "ratio"),
    ({"files": {"a": "0" * 63}}, r"files\.a"),
    ({"files": {"/etc/passwd": "0" * 64}}, "files"),
    ({"files": []}, "files"),
    ({"schema_version": SCHEMA_VERSION + 1}, "newer hins-memory"),
    ({"schema_version": "1"}, "schema_version"),
]


@pytest.mark.parametrize(("change", "field"), BROKEN, ids=[str(change)[:40] for change, _ in BROKEN])
def test_what_cannot_be_is_refused_with_its_name(change, field):
    Manifest.from_dict(LEAST)
    with pytest.raises(ValueError, match=field) as error:
        Manifest.from_dict({**LEAST, **change})
    assert len(str(error.value)) < 1000


@pytest.mark.parametrize("text", ["", "[]", "5", '"v0001-01234567"', "null", "{", "\ufeff{}"])
def test_what_is_not_an_object_is_refused(text):
    with pytest.raises(ValueError, match=r"it is not an object|Expecting|BOM"):
        Manifest.from_json(text)


@pytest.mark.parametrize(
    "name",
    [
        *("", "/a", "//a", "a//b", "a/", "./a", "a/.", "..", "a/../b", "a\\b", "C:a", "a\0b", "a\nb", "a\x1b[2Jb"),
        *("\u202ea", "a\ud800", "x" * 300),
    ],
)
def test_a_name_that_is_not_its_own_normal_form_is_refused(name):
    with pytest.raises(ValueError, match=r"plain relative|no name of a file"):
        check_names([name])


@pytest.mark.parametrize(
    "names",
    [
        ("a.json", "A.json"),
        ("\u00e4.json", "a\u0308.json"),
        ("stra\u00dfe.txt", "STRASSE.txt"),
        ("\ufb01.txt", "fi.txt"),
        ("1_Pooling/a", "1_pooling/b"),
        ("a", "a/b"),
        ("A", "a/b"),
    ],
)
def test_two_names_of_one_file_are_refused(names):
    check_names(["config.json", "1_Pooling/config.json", "1_Pooling/extra.json", "大提琴.txt"])
    with pytest.raises(ValueError, match=r"one name|differs from another|a file and a folder"):
        check_names(names)


def test_ids_have_one_form():
    assert is_version_id("v0001-0123abcd")
    assert is_version_id("v12345-0123abcd")
    for id in (
        "v1-0123abcd",
        "v00001-0123abcd",
        "v123456789-0123abcd",
        "v0001-0123ABCD",
        "v０００１-0123abcd",
        ".v0001",
    ):
        assert not is_version_id(id)


def test_a_folder_without_a_manifest_that_can_be_read_says_why(tmp_path):
    with pytest.raises(EncoderError, match="missing"):
        read_manifest(tmp_path)
    (tmp_path / MANIFEST_NAME).mkdir()
    with pytest.raises(EncoderError, match="not a plain file"):
        read_manifest(tmp_path)
    (tmp_path / MANIFEST_NAME).rmdir()
    gates = {"gates": [{"time": 1.0, "passed": True}], "promotions": [{"time": 1.0}]}
    (tmp_path / MANIFEST_NAME).write_text(json.dumps({**LEAST, **gates}))
    assert read_manifest(tmp_path) == Manifest.from_dict(LEAST)
