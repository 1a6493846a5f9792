"""Versions in a store that all hosts reach: nothing damaged is taken, and nothing that was pruned comes back."""

import os
import shutil
import signal
from dataclasses import replace

import pytest
from test_registry import make_folder

from hins_memory.config import Settings
from hins_memory.errors import ConfigError, EncoderError
from hins_memory.registry.prune import prune, remove_version
from hins_memory.registry.registry import Registry


@pytest.fixture
def hosts(tmp_path):
    """Two hosts of one project: two homes, one database, one store."""
    return [
        Settings(
            home=tmp_path / name,
            project="test",
            log_url=f"sqlite:///{tmp_path / 'shared.db'}",
            store=f"file://{tmp_path / 'store'}",
        )
        for name in ("one", "two")
    ]


def _stored(settings, what):
    folder = settings.store.removeprefix("file://")
    return sorted(path for path in os.scandir(f"{folder}/test/{what}") for path in _files(path))


def _files(entry):
    return [entry.path] if entry.is_file() else [inner.path for inner in os.scandir(entry)]


@pytest.mark.slow
def test_a_version_is_found_by_every_host_and_a_copy_may_be_deleted(hosts, s3, tmp_path):
    one, two = (Registry(replace(host, store=s3)) for host in hosts)
    made = one.add(make_folder(tmp_path / "out"), {"base": "stock"})
    found = two.get(made.id)
    assert found.path.is_relative_to(hosts[1].home)
    assert (found.path / "model.safetensors").read_bytes() == (made.path / "model.safetensors").read_bytes()
    assert found.manifest == made.manifest
    shutil.rmtree(found.path)
    assert two.get(made.id).path.is_dir()
    two.promote(made.id)
    assert one.current().id == made.id
    remove_version(one, one.add(make_folder(tmp_path / "out"), {"base": "none"}))
    with pytest.raises(EncoderError, match="no encoder version"):
        two.get("v0002-00000000")


def test_equal_files_are_stored_once_and_pruned_with_the_last_version(hosts, tmp_path):
    one, two = map(Registry, hosts)
    first = one.add(make_folder(tmp_path / "out"), {"base": "a"})
    second = two.add(make_folder(tmp_path / "out"), {"base": "b"})
    assert len(_stored(hosts[0], "files")) == 3
    one.get(second.id)
    two.promote(second.id)
    # What another host pruned is not taken for a new version of this one, nor is its copy kept.
    two.get(first.id)
    assert prune(two, keep=1).removed == (first.id,)
    assert [version.id for version in one.versions()] == [second.id]
    assert not first.path.exists()
    assert len(_stored(hosts[0], "files")) == 3
    assert [os.path.basename(path) for path in _stored(hosts[0], "versions")] == [f"{second.id}.json"]
    third = one.add(make_folder(tmp_path / "out", b"other"), {"base": "c"})
    assert len(_stored(hosts[0], "files")) == 4
    remove_version(two, third)
    assert len(_stored(hosts[0], "files")) == 3


def test_what_was_damaged_in_the_store_is_refused(hosts, tmp_path):
    one, two = map(Registry, hosts)
    made = one.add(make_folder(tmp_path / "out"), {})
    digest = made.manifest.files["model.safetensors"]
    (blob,) = (path for path in _stored(hosts[0], "files") if path.endswith(digest))
    with open(blob, "r+b") as stream:
        stream.write(b"\0\0")
    with pytest.raises(EncoderError, match="does not match its SHA-256"):
        two.get(made.id)
    assert not any(hosts[1].encoders.glob("*"))


def test_without_the_store_nothing_is_lost_and_the_version_follows_later(hosts, tmp_path):
    (tmp_path / "store").write_text("not a folder")
    one, two = map(Registry, hosts)
    with pytest.raises(EncoderError, match="could not be uploaded"):
        one.add(make_folder(tmp_path / "out"), {})
    assert two.versions() == []
    (tmp_path / "store").unlink()
    (made,) = one.versions()
    assert two.get(made.id).path.is_dir()


def test_a_kill_between_upload_and_record_loses_nothing(hosts, tmp_path):
    folder = make_folder(tmp_path / "out")
    child = os.fork()
    if not child:
        registry = Registry(hosts[0])
        registry._insert = lambda manifest: os.kill(os.getpid(), signal.SIGKILL)
        registry.add(folder, {})
        os._exit(1)
    assert os.waitpid(child, 0)[1] == signal.SIGKILL
    (made,) = Registry(hosts[0]).versions()
    assert Registry(hosts[1]).get(made.id).path.is_dir()


def test_two_databases_do_not_share_a_project_in_one_store(hosts, tmp_path):
    made = Registry(hosts[0]).add(make_folder(tmp_path / "out"), {"created": 1.0})
    other = Registry(replace(hosts[1], log_url=f"sqlite:///{tmp_path / 'other.db'}"))
    path = tmp_path / "store" / "test" / "versions" / f"{made.id}.json"
    path.write_text(path.read_text().replace('"created": 1.0', '"created": 2.0'))
    with pytest.raises(EncoderError, match="another version"):
        other.add(make_folder(tmp_path / "out"), {"created": 1.0})


def test_a_store_is_a_url(tmp_path):
    with pytest.raises(ConfigError, match="not a URL"):
        Settings(home=tmp_path, project="p", store="bucket")
