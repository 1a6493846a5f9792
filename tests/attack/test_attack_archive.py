"""Archives that somebody made to do harm: refused cleanly or whole, the project lists, and nothing else has changed.

More examples: HINS_ATTACK_EXAMPLES=5000 pytest tests/attack/test_attack_archive.py --hypothesis-show-statistics
"""

from __future__ import annotations

import json
import os
import pickle
import random
import re
import shutil
import stat
import subprocess
import sys
import tempfile
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st
from raw_zip import Entry, deflated, write_zip, zeros
from safetensors.numpy import save
from typer.testing import CliRunner

from hins_memory.cli import app
from hins_memory.config import Settings
from hins_memory.encoders.encoder import encoder_version
from hins_memory.encoders.manifest import MANIFEST_NAME
from hins_memory.errors import HinsError
from hins_memory.registry.archive import SUMS_NAME, import_version
from hins_memory.registry.registry import Registry
from hins_memory.registry.versions import Listing

EXAMPLES = int(os.environ.get("HINS_ATTACK_EXAMPLES", "200"))
ID = "v0007-0123abcd"
MODULES = [
    {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"},
    {"idx": 1, "name": "1", "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"},
]
FILES = {
    "modules.json": json.dumps(MODULES).encode(),
    "config.json": b'{"hidden_size": 4}',
    "model.safetensors": save({"weights": np.zeros((4, 4), np.float32)}),
    "vocab.txt": b"[PAD]\n[UNK]\nthe\n" * 20,
    "README.md": "# A model 🎻\n".encode(),
    "1_Pooling/config.json": b'{"word_embedding_dimension": 4}',
}
MANIFEST = {"id": ID, "created": 1.5e9, "base": "stock", "data": {"examples": 40, "tiers": {"hard": 5}}, "note": "n"}


class Draft:
    """An archive in the making: files by name, what is said of them, and how the ZIP file is to lie."""

    def __init__(self) -> None:
        self.files: list[tuple[str, bytes]] = list(FILES.items())
        self.manifest: dict[str, object] = dict(MANIFEST)
        self.folder = ID
        self.sums: list[tuple[str, str]] = []
        self.said: dict[str, object] | None = None
        self.lies: list[tuple[int, dict[str, object]]] = []
        self.after: list[tuple[str, float, int]] = []

    def do(self, step: tuple[str, object, object], outside: Path) -> None:
        """Do one step; one that has nothing to do does nothing."""
        kind, *given = step
        first, second = (one.replace("{abs}", str(outside)) if isinstance(one, str) else one for one in given)
        if kind in ("flip", "cut", "insert"):
            self.after.append((kind, first, second))
        elif kind not in ("rename", "again", "drop", "replace"):
            getattr(self, f"_{kind}")(first, second)
        elif self.files:
            getattr(self, f"_{kind}")(first % len(self.files), second)

    def _rename(self, place, name):
        self.files[place] = (name, self.files[place][1])

    def _again(self, place, content):
        self.files.append((self.files[place][0], content))

    def _drop(self, place, _):
        self.files.pop(place)

    def _replace(self, place, content):
        self.files[place] = (self.files[place][0], content)

    def _add(self, name, content):
        self.files.append((name, content))

    def _shuffle(self, seed, _):
        random.Random(seed).shuffle(self.files)

    def _field(self, name, value):
        self.manifest[name] = value

    def _nested(self, name, value):
        self.manifest[name] = {"examples": value, "loss": value, "curves": value}

    def _id(self, id, everywhere):
        self.folder = id
        self.manifest["id"] = id if everywhere else ID

    def _sum(self, name, digest):
        self.sums.append((name, digest))

    def _said(self, name, _):
        self.said = {name: "0" * 64}

    def _lie(self, place, lie):
        self.lies.append((place, lie))

    def entries(self) -> list[Entry]:
        digests = {name: sha256(data).hexdigest() for name, data in self.files}
        manifest = {"files": digests if self.said is None else self.said, **self.manifest}
        text = json.dumps(manifest).encode("utf-8", "surrogatepass")
        found = [(f"{self.folder}/{name}", data) for name, data in [*self.files, (MANIFEST_NAME, text)]]
        sums = {name: sha256(data).hexdigest() for name, data in found} | dict(self.sums)
        lines = "".join(f"{digest}  {name}\n" for name, digest in sums.items())
        found.append((SUMS_NAME, lines.encode("utf-8", "surrogatepass")))
        entries = [Entry(name.encode("utf-8", "surrogatepass"), data) for name, data in found]
        for place, lie in self.lies:
            entry = entries[place % len(entries)]
            lie = dict(lie)
            entry = deflated(entry) if lie.pop("deflate", False) else entry
            entries[place % len(entries)] = replace(entry, **lie)
        return entries


NAMES = [
    *("/abs/x.json", "//x.json", "../x.json", "a/../../x.json", "./x.json", "a//x.json", "a\\x.json", "C:x.json"),
    *("x.json\0.py", "\u202ex.json", "x\n.json", "MODULES.json", "modules.json/x.json", "x.pth", "x.so", "x.pyc"),
    *("1_pooling/config.json", "adapter_config.json", ".hidden", ".DS_Store", "con.json", "x" * 300 + ".json"),
    *("{abs}/x.json", "/{abs}/x.json", "..", ".", "", "e\u0301.json", "\u00e9.json", MANIFEST_NAME, SUMS_NAME),
    "../" * 12 + "{abs}/x.json",
]
CONTENTS = [b"", b"{}", b"[]", pickle.dumps({}), b"\x7fELF", b"import os", b"\xff\xfe", b"[" * 5000, b'{"a": NaN}']
VALUES = [
    *(float("nan"), float("inf"), 1e20, -1.0, True, None, 5, -5, 2**70, 10**200, "", "x" * 5000, "\0", "\ud800"),
    *([], [5], {}, {"a": []}, [[[[]]]], "\x1b]52;c;aGk=\x07", "[/b]", "../../x", {"time": 1}, [{"time": 1e300}]),
    [{"time": 1.0, "passed": True, "forced": True, "incumbent": "stock", "failures": []}],
]
FIELDS = ["id", "created", "files", "data", "promotions", "gates", "base", "run", "metrics", "ratio", "settings"]
FIELDS += ["document_space", "trained_conversations", "schema_version", "seed", "versions", "parent", "x" * 50]
IDS = [
    "v٠٠٠٧-0123abcd",
    "v" + "9" * 200 + "-0123abcd",
    "v99999999-0123abcd",
    "v00007-0123abcd",
    "..",
    "a/b",
    "V0007-0123abcd",
]
SIZES = [0, 1, 5, 2**16, 2**31 - 1, 2**32 - 2, 2**32 - 1]

places = st.integers(0, 9)
names = st.sampled_from(NAMES) | st.text(max_size=12)
contents = st.sampled_from(CONTENTS) | st.binary(max_size=200)
lies = st.one_of(
    st.just({"deflate": True}),
    st.fixed_dictionaries({"method": st.sampled_from([0, 8, 9, 12, 14, 95, 99])}),
    st.fixed_dictionaries({"size": st.sampled_from(SIZES)}),
    st.fixed_dictionaries({"packed_size": st.sampled_from(SIZES)}),
    st.fixed_dictionaries({"offset": st.sampled_from([*SIZES[:4], 2**31])}),
    st.fixed_dictionaries({"crc": st.integers(0, 2**32 - 1)}),
    st.fixed_dictionaries({"flags": st.integers(0, 2**16 - 1)}),
    st.fixed_dictionaries({"local_name": st.sampled_from([b"", b"x", b"/x", b"\xff"])}),
    st.fixed_dictionaries({"mode": st.sampled_from([kind | 0o777 for kind in (
        stat.S_IFLNK, stat.S_IFDIR, stat.S_IFIFO, stat.S_IFCHR, stat.S_IFBLK, stat.S_IFSOCK, 0)])}),
    st.fixed_dictionaries({"name": st.binary(max_size=10)}),
)  # fmt: skip
steps = st.one_of(
    st.tuples(st.just("rename"), places, names),
    st.tuples(st.just("again"), places, contents),
    st.tuples(st.just("drop"), places, st.none()),
    st.tuples(st.just("add"), names, contents),
    st.tuples(st.just("replace"), places, contents),
    st.tuples(st.just("shuffle"), st.integers(0, 99), st.none()),
    st.tuples(st.just("field"), st.sampled_from(FIELDS), st.sampled_from(VALUES)),
    st.tuples(st.just("nested"), st.sampled_from(["data", "metrics", "run"]), st.sampled_from(VALUES)),
    st.tuples(st.just("id"), st.sampled_from(IDS), st.booleans()),
    st.tuples(st.just("sum"), names, st.sampled_from(["0" * 64, "", "x" * 64, "A" * 64])),
    st.tuples(st.just("said"), names, st.none()),
    st.tuples(st.just("lie"), places, lies),
    st.tuples(st.just("flip"), st.floats(0, 1), st.integers(1, 255)),
    st.tuples(st.just("cut"), st.floats(0, 1), st.integers(1, 30)),
    st.tuples(st.just("insert"), st.floats(0, 1), st.integers(1, 30)),
)


def built(draft: Draft) -> bytes:
    content = bytearray(write_zip(draft.entries()))
    for kind, where, much in draft.after:
        at = min(int(where * len(content)), len(content) - 1)
        if kind == "flip" and content:
            content[at] ^= much
        elif kind == "cut":
            del content[at : at + much]
        elif kind == "insert":
            content[at:at] = bytes(much)
    return bytes(content)


def tree(folder: Path) -> dict[str, tuple[int, int]]:
    """Return {path: (size, time of change)} of everything under a folder."""
    paths = [Path(place) / name for place, folders, files in os.walk(folder) for name in (*folders, *files)]
    return {str(path): (path.lstat().st_size, path.lstat().st_mtime_ns) for path in paths if path.is_file()} | {
        str(path): (-1, -1) for path in paths if not path.is_file()
    }


class World:
    """A project with a version of its own, and a folder beside it in which nothing may change."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.outside = folder / "outside"
        self.outside.mkdir()
        (self.outside / "kept.json").write_text("kept")
        self.settings = Settings(home=folder / "home", project="test")
        self.registry = Registry(self.settings)
        own = folder / "own"
        for name, data in FILES.items():
            (own / name).parent.mkdir(parents=True, exist_ok=True)
            (own / name).write_bytes(data)
        self.own = self.registry.add(own, {"base": "mine"})
        self.archive = folder / "archive.zip"

    def everything(self) -> dict[str, tuple[int, int]]:
        """Return what is there, but the database and the locks, which change when they are used."""
        root = str(self.settings.root)
        ours = (f"{root}/log.db", f"{root}/locks", str(self.archive))
        return {path: what for path, what in tree(self.folder).items() if not path.startswith(ours)}

    def hins(self, *words: str) -> dict[str, object]:
        options = ["--home", str(self.settings.home), "--project", "test", *words, "--json"]
        result = CliRunner().invoke(app, options)
        assert result.exit_code == 0, (result.output, result.exception)
        return json.loads(result.stdout)

    def attack(self, content: bytes) -> str:
        """Import an archive; return what came of it, "" if it was taken over."""
        before = self.everything()
        self.archive.write_bytes(content)
        try:
            version = import_version(self.archive, self.registry)
        except HinsError as error:
            assert self.everything() == before
            assert self.registry.listing() == Listing([self.own], {})
            return str(error)
        inside = str(version.path)
        now = self.everything()
        assert {path: what for path, what in now.items() if not path.startswith(inside)} == before
        assert encoder_version(version.path) == version.id
        assert (version.manifest.gates, version.manifest.promotions) == ((), ())
        assert [one.id for one in self.registry.versions()] == sorted([self.own.id, version.id])
        assert not any(path.stat().st_mode & 0o111 for path in version.path.rglob("*") if path.is_file())
        self.hins("status")
        self.hins("encoders", "list")
        self.registry.remove(version.id)
        shutil.rmtree(version.path)
        return ""


@pytest.fixture(scope="module")
def world():
    with tempfile.TemporaryDirectory(prefix="hins-attack-") as folder:
        found = World(Path(folder))
        yield found
        # After all of it, the project takes over what is good and adds what is its own.
        assert found.attack(built(Draft())) == ""
        assert len(found.hins("encoders", "list")["versions"]) == 1


@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck), print_blob=True)
@given(st.lists(steps, min_size=1, max_size=4))
@pytest.mark.slow
def test_a_mutated_archive_is_refused_cleanly_or_whole(world, attack):
    draft = Draft()
    for step in attack:
        draft.do(step, world.outside)
    said = world.attack(built(draft))
    event("refused" if said else "taken over, whole")


def test_an_archive_that_nobody_touched_is_taken_over_stored_or_deflated(world):
    assert world.attack(built(Draft())) == ""
    draft = Draft()
    draft.lies = [(place, {"deflate": True}) for place in range(8)]
    assert world.attack(built(draft)) == ""


def archive(*more: Entry, **changes: object) -> bytes:
    """Return a valid archive with entries put before its own and fields of its manifest changed."""
    draft = Draft()
    draft.manifest |= changes
    return write_zip([*more, *draft.entries()])


def test_a_double_slash_does_not_hide_an_absolute_path(world):
    target = world.outside / "evil.pth"
    draft = Draft()
    draft.files.append((f"/{str(target).lstrip('/')}", b"import os"))
    assert "not a plain relative name" in world.attack(built(draft))
    assert "not a plain relative name" in world.attack(archive(Entry(f"{ID}//{target}".encode(), b"import os")))
    assert not target.exists()


def test_the_manifest_is_checked_before_a_byte_is_written(world, monkeypatch):
    monkeypatch.setattr(type(world.registry), "unpacking", lambda self: pytest.fail("something is unpacked"))
    for change in (
        {"created": float("nan")},
        {"created": 1e20},
        {"data": []},
        {"promotions": 5},
        {"id": "v" + "9" * 200},
    ):
        assert "damaged" in world.attack(archive(**change))


def test_an_entry_without_a_name_is_refused(world):
    assert "not a plain relative name" in world.attack(archive(Entry(b"", b"x")))


def test_verdicts_and_promotions_of_others_are_not_taken_over(world):
    gates = [{"time": 1.0, "passed": True, "forced": False, "incumbent": "stock", "failures": []}]
    assert world.attack(archive(gates=gates, promotions=[{"time": 2.0, "agent": "mem0:x"}])) == ""


def test_a_foreign_number_leaves_room_for_ours(world):
    draft = Draft()
    draft.folder = draft.manifest["id"] = "v99999999-0123abcd"
    assert "number over" in world.attack(built(draft))


CHILD = """
import json, re, resource, sys
from pathlib import Path
from hins_memory.config import Settings
from hins_memory.errors import EncoderError
from hins_memory.registry.archive import import_version
from hins_memory.registry.registry import Registry
import numpy, safetensors
registry = Registry(Settings(home=Path(sys.argv[1]), project="bomb"))
registry.listing()
held = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
peak = lambda: int(re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text()).group(1))
# The peak so far is that of the imports, and of whoever started this.
Path("/proc/self/clear_refs").write_text("5")
before = peak()
resource.setrlimit(resource.RLIMIT_AS, (held + (400 << 20),) * 2)
resource.setrlimit(resource.RLIMIT_FSIZE, (64 << 20,) * 2)
said = {}
for path in map(Path, sys.argv[2:]):
    try:
        import_version(path, registry)
        said[path.stem] = "taken over"
    except EncoderError as error:
        said[path.stem] = str(error)
print(json.dumps({"mebibytes": (peak() - before) // 1024, "said": said}))
"""

GIGABYTES = 3 << 30
LISTS = b"[" + b"[]," * 6_000_000 + b"[]]"


def long_sums() -> bytes:
    return write_zip([zeros(SUMS_NAME.encode(), GIGABYTES)])


def long_sums_that_say_they_are_short() -> bytes:
    return write_zip([replace(zeros(SUMS_NAME.encode(), GIGABYTES), size=100)])


def long_manifest() -> bytes:
    draft = Draft()
    name = f"{ID}/{MANIFEST_NAME}".encode()
    return write_zip(zeros(name, GIGABYTES) if entry.name == name else entry for entry in draft.entries())


def long_weights() -> bytes:
    name = f"{ID}/model.safetensors".encode()
    return write_zip(zeros(name, GIGABYTES) if entry.name == name else entry for entry in Draft().entries())


def long_weights_that_say_they_are_short() -> bytes:
    name = f"{ID}/model.safetensors".encode()
    bomb = replace(zeros(name, GIGABYTES), size=1000)
    return write_zip(bomb if entry.name == name else entry for entry in Draft().entries())


def many_entries() -> bytes:
    return write_zip(Entry(b"%d" % number, b"") for number in range(200_000))


def many_values_in_the_manifest() -> bytes:
    draft = Draft()
    entries = [entry for entry in draft.entries() if entry.name != f"{ID}/{MANIFEST_NAME}".encode()]
    sums = entries.pop().data.decode().splitlines()
    lines = [line for line in sums if MANIFEST_NAME not in line]
    lines.append(f"{sha256(LISTS).hexdigest()}  {ID}/{MANIFEST_NAME}")
    text = "".join(f"{line}\n" for line in lines).encode()
    return write_zip([*entries, Entry(f"{ID}/{MANIFEST_NAME}".encode(), LISTS), Entry(SUMS_NAME.encode(), text)])


def many_values_in_a_vocabulary() -> bytes:
    draft = Draft()
    draft.files.append(("tokenizer.json", LISTS))
    return write_zip(draft.entries())


def entries_that_share_their_bytes() -> bytes:
    name = f"{ID}/model.safetensors".encode()
    bomb = zeros(name, 40 << 20)
    first = write_zip([bomb])
    shared = [
        replace(bomb, name=b"%d" % number, data=b"", packed_size=len(bomb.data), offset=0) for number in range(90)
    ]
    assert first
    return write_zip([bomb, *shared])


BOMBS = [
    (long_sums, "too much"),
    (long_sums_that_say_they_are_short, "damaged"),
    (long_manifest, "too much"),
    (long_weights, "too much"),
    (long_weights_that_say_they_are_short, "damaged"),
    (many_entries, "at once|entries"),
    (many_values_in_the_manifest, "values"),
    (many_values_in_a_vocabulary, "values"),
    (entries_that_share_their_bytes, "overlap|too much"),
]


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.slow
def test_bombs_are_refused_in_little_memory(tmp_path):
    for bomb, _ in BOMBS:
        (tmp_path / f"{bomb.__name__}.zip").write_bytes(bomb())
    paths = [str(path) for path in tmp_path.glob("*.zip")]
    assert max(os.path.getsize(path) for path in paths) < 25 << 20
    command = [sys.executable, "-c", CHILD, str(tmp_path / "home"), *paths]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout)
    for bomb, message in BOMBS:
        assert re.search(message, found["said"][bomb.__name__]), found["said"][bomb.__name__]
    assert found["mebibytes"] < 100
