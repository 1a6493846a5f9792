"""Versions as files: what comes out goes in again, anybody can load it, and nothing that is not whole and safe does."""

import json
import os
import pickle
import shutil
import signal
import stat
import subprocess
import sys
import zipfile
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
from child_process import run_python

from hins_memory.config import Settings
from hins_memory.encoders.encoder import Encoder
from hins_memory.encoders.manifest import MANIFEST_NAME
from hins_memory.errors import EncoderError
from hins_memory.registry.archive import SUMS_NAME, export_version, import_version
from hins_memory.registry.registry import Registry


@pytest.fixture
def other(tmp_path):
    return Registry(Settings(home=tmp_path / "other home", project="other"))


@pytest.fixture
def archive(tiny_version, tmp_path):
    path = tmp_path / "out" / "version.zip"
    export_version(tiny_version, path)
    return path


def leftovers(registry):
    folder = registry.settings.encoders
    return [path.name for path in folder.iterdir() if path.name.startswith(".")] if folder.is_dir() else []


def test_a_version_comes_out_and_goes_in_as_it_is(archive, tiny_version, other):
    found = import_version(archive, other)
    assert found.id == tiny_version.id
    assert found.manifest == tiny_version.manifest
    texts = ["Ann plays the cello.", "大提琴 🎻"]
    for role in ("query", "document"):
        np.testing.assert_array_equal(
            Encoder.load(found.path).encode(texts, role=role), Encoder.load(tiny_version.path).encode(texts, role=role)
        )
    assert other.current() is None
    assert import_version(archive, other) == found
    assert [version.id for version in other.versions()] == [tiny_version.id]
    assert leftovers(other) == []


def test_anybody_can_unpack_check_and_load_it(archive, tiny_version, tmp_path):
    from sentence_transformers import SentenceTransformer

    with zipfile.ZipFile(archive) as opened:
        opened.extractall(tmp_path / "plain")
    folder = tmp_path / "plain" / tiny_version.id
    if shutil.which("sha256sum"):
        subprocess.run(["sha256sum", "--quiet", "-c", SUMS_NAME], cwd=tmp_path / "plain", check=True)
    vectors = SentenceTransformer(str(folder), device="cpu").encode(["cello"], normalize_embeddings=True)
    np.testing.assert_array_equal(vectors, Encoder.load(tiny_version.path).encode(["cello"]))


def test_the_same_version_gives_the_same_bytes_and_its_sha256(archive, tiny_version, tmp_path):
    digest = export_version(tiny_version, tmp_path / "again.zip")
    assert (tmp_path / "again.zip").read_bytes() == archive.read_bytes()
    assert sha256(archive.read_bytes()).hexdigest() == digest
    assert [path.name for path in archive.parent.iterdir()] == ["version.zip"]


def test_a_damaged_version_is_not_exported(tiny_version, tmp_path):
    path = tiny_version.path / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(EncoderError, match="not what its manifest says"):
        export_version(tiny_version, tmp_path / "a.zip")
    assert not (tmp_path / "a.zip").exists()


def test_an_archive_that_cannot_be_written_says_so(tiny_version, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(EncoderError, match="cannot be written"):
        export_version(tiny_version, tmp_path / "file" / "a.zip")


def cut(path):
    path.write_bytes(path.read_bytes()[:-1])


def cut_in_the_middle(path):
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2] + content[len(content) // 2 + 1 :])


def flip_a_bit(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def empty(path):
    path.write_bytes(b"")


@pytest.mark.parametrize("damage", [cut, cut_in_the_middle, flip_a_bit, empty, os.unlink])
def test_a_damaged_file_is_refused_and_leaves_nothing(archive, other, damage):
    damage(archive)
    with pytest.raises(EncoderError):
        import_version(archive, other)
    assert other.versions() == []
    assert leftovers(other) == []


def rewritten(archive, change, tmp_path):
    """Write the archive anew after `change` worked on {name: bytes}; digests are made right unless it did that."""
    with zipfile.ZipFile(archive) as opened:
        content = {name: opened.read(name) for name in opened.namelist()}
    folder = next(name for name in content if "/" in name).split("/")[0]
    sums = change(content, folder)
    if sums is not False:
        names = sorted(name for name in content if name != SUMS_NAME)
        if (manifest := f"{folder}/{MANIFEST_NAME}") in content:
            said = json.loads(content[manifest])
            inner = {name.removeprefix(f"{folder}/"): name for name in names if name != manifest}
            said["files"] = {short: sha256(content[name]).hexdigest() for short, name in inner.items()}
            content[manifest] = json.dumps(said).encode()
        content[SUMS_NAME] = "".join(f"{sha256(content[name]).hexdigest()}  {name}\n" for name in names).encode()
    path = tmp_path / "evil.zip"
    with zipfile.ZipFile(path, "w") as target:
        for name, data in content.items():
            target.writestr(name, data)
    return path


def shorter_weights(content, folder):
    content[f"{folder}/model.safetensors"] = content[f"{folder}/model.safetensors"][:-1]


def pickle_as_weights(content, folder):
    content[f"{folder}/model.safetensors"] = pickle.dumps({"weights": [1.0]})


def a_pickle(content, folder):
    content[f"{folder}/pytorch_model.bin"] = pickle.dumps({})


def a_torch_file(content, folder):
    content[f"{folder}/1_Pooling/extra.PT"] = pickle.dumps({})


def code(content, folder):
    content[f"{folder}/modeling.py"] = b"print('hello')"


def a_foreign_class(content, folder):
    modules = json.loads(content[f"{folder}/modules.json"])
    modules[0]["type"] = "shutil.rmtree"
    content[f"{folder}/modules.json"] = json.dumps(modules).encode()


def a_router_with_a_foreign_class(content, folder):
    content[f"{folder}/router_config.json"] = json.dumps({"types": {"query_0": "subprocess.Popen"}}).encode()


def modules_that_are_none(content, folder):
    content[f"{folder}/modules.json"] = b'[1, "two"]'


def up_and_out(content, folder):
    content[f"{folder}/../../escaped.json"] = b"{}"


def absolute(content, folder):
    content["/tmp/hins-escaped.json"] = b"{}"


def backslashes(content, folder):
    content[f"{folder}\\..\\escaped.json"] = b"{}"


def two_versions(content, folder):
    content["v0009-01234567/modules.json"] = b"[]"


def another_id(content, folder):
    for name in [name for name in content if name != SUMS_NAME]:
        content[name.replace(folder, "v0009-01234567")] = content.pop(name)


def no_manifest(content, folder):
    del content[f"{folder}/{MANIFEST_NAME}"]


def an_extra_file(content, folder):
    content[f"{folder}/notes.txt"] = b"not in the list"
    return False


def a_missing_file(content, folder):
    del content[f"{folder}/config.json"]
    return False


def no_sums(content, folder):
    del content[SUMS_NAME]
    return False


def sums_that_are_none(content, folder):
    content[SUMS_NAME] = b"hello\n\xff"
    return False


def a_wrong_sum(content, folder):
    content[f"{folder}/config.json"] += b" "
    return False


EVIL = [
    (shorter_weights, "not a safetensors file"),
    (pickle_as_weights, "not a safetensors file"),
    (a_pickle, "may run code"),
    (a_torch_file, "may run code"),
    (code, "may run code"),
    (a_foreign_class, "'shutil.rmtree', which is not a module"),
    (a_router_with_a_foreign_class, "'subprocess.Popen', which is not a module"),
    (modules_that_are_none, "not a list of modules"),
    (up_and_out, "not a plain relative name"),
    (absolute, "not a plain relative name"),
    (backslashes, "a character that no name of a file needs"),
    (two_versions, "exactly one encoder version"),
    (another_id, "not what its manifest says"),
    (no_manifest, "is missing"),
    (an_extra_file, r"differ in .*notes\.txt"),
    (a_missing_file, r"differ in .*config\.json"),
    (no_sums, "SHA256SUMS is missing"),
    (sums_that_are_none, "damaged"),
    (a_wrong_sum, "does not match its SHA-256"),
]


@pytest.mark.parametrize(("change", "message"), EVIL, ids=[change.__name__ for change, _ in EVIL])
def test_an_archive_that_was_tampered_with_is_refused_and_leaves_nothing(archive, other, tmp_path, change, message):
    path = rewritten(archive, change, tmp_path)
    with pytest.raises(EncoderError, match=message):
        import_version(path, other)
    assert other.versions() == []
    assert leftovers(other) == []
    assert not list(tmp_path.parent.rglob("*escaped*"))
    assert not Path("/tmp/hins-escaped.json").exists()


def test_a_link_in_an_archive_is_refused(archive, other, tiny_version):
    with zipfile.ZipFile(archive, "a") as target:
        link = zipfile.ZipInfo(f"{tiny_version.id}/link")
        link.external_attr = (stat.S_IFLNK | 0o777) << 16
        target.writestr(link, "/etc/passwd")
    with pytest.raises(EncoderError, match="not a plain file"):
        import_version(archive, other)


def test_another_version_of_the_same_id_is_refused(archive, other, tmp_path):
    import_version(archive, other)

    def changed(content, folder):
        content[f"{folder}/README.md"] = b"changed"

    with pytest.raises(EncoderError, match="another encoder version"):
        import_version(rewritten(archive, changed, tmp_path), other)


def test_a_missing_folder_is_restored_and_said_to_be_missing_before(archive, other):
    version = import_version(archive, other)
    shutil.rmtree(version.path)
    with pytest.raises(EncoderError, match=r"is missing.*hins encoders import"):
        other.get(version.id)
    assert import_version(archive, other) == version
    assert other.get(version.id).path.is_dir()


KILLED = """
import os, signal, sys
from pathlib import Path
import hins_memory.registry.archive as archive, hins_memory.registry.folder as folder
import hins_memory.registry.versions as store
from hins_memory.config import Settings
from hins_memory.registry.registry import Registry
die = lambda *a, **k: os.kill(os.getpid(), signal.SIGKILL)
registry = Registry(Settings(home=Path(sys.argv[1]), project="other"))
if sys.argv[3] == "unpacking":
    archive.check_contents = die
elif sys.argv[3] == "moving":
    folder.os.rename = die
else:
    registry._insert = die
archive.import_version(Path(sys.argv[2]), registry)
"""


@pytest.mark.slow
@pytest.mark.parametrize("moment", ["unpacking", "moving", "recording"])
def test_a_kill_leaves_nothing_or_the_whole_version_and_the_next_import_cleans_up(archive, other, moment):
    home = str(other.settings.home)
    done = run_python(KILLED, home, str(archive), moment)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert len(other.versions()) == (moment == "recording")
    assert bool(leftovers(other)) == (moment != "recording")
    version = import_version(archive, other)
    assert Encoder.load(version.path).version == version.id
    assert leftovers(other) == []
    assert [one.id for one in other.versions()] == [version.id]


FULL = """
import resource, sys
from pathlib import Path
from hins_memory.config import Settings
from hins_memory.errors import EncoderError
from hins_memory.registry.registry import Registry
from hins_memory.registry.archive import import_version
registry = Registry(Settings(home=Path(sys.argv[1]), project="other"))
size = Path(sys.argv[2]).stat().st_size
resource.setrlimit(resource.RLIMIT_FSIZE, (size // 2, size // 2))
try:
    import_version(Path(sys.argv[2]), registry)
except EncoderError as error:
    print(error, registry.versions(), list(registry.settings.encoders.iterdir()))
"""


@pytest.mark.slow
def test_a_file_that_grows_too_large_is_a_clear_error(archive, other):
    home = str(other.settings.home)
    done = subprocess.run([sys.executable, "-c", FULL, home, str(archive)], capture_output=True, text=True, check=True)
    assert "cannot be imported" in done.stdout
    assert done.stdout.strip().endswith("[] []")
