"""Versions that serve single scopes: who is served by which, the way back, and that none ever serves anyone else."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from hins_memory.config import Settings
from hins_memory.errors import EncoderError, SwapError
from hins_memory.registry.prune import prune
from hins_memory.registry.registry import EncoderVersion, Registry
from hins_memory.types import Scope

ANN, ACME = Scope(user="ann", tenant="acme"), Scope(tenant="acme")
SPACE = "tiny"


@pytest.fixture
def registry(settings: Settings) -> Registry:
    return Registry(settings)


def version(registry: Registry, folder: Path, scope: Scope, seed: int = 0) -> EncoderVersion:
    copy = registry.settings.root / f"copy-{scope.key}-{seed}"
    shutil.copytree(folder, copy)
    return registry.add(copy, {"mode": "tower", "document_space": SPACE, "scope": scope.key, "seed": seed})


def test_the_nearest_scope_serves_and_there_is_a_way_back(registry: Registry, tiny_folder: Path) -> None:
    one, two = (version(registry, tiny_folder, ANN, seed) for seed in (1, 2))
    tenant = version(registry, tiny_folder, ACME)
    registry.record_live("agent", SPACE, "")
    for made in (one, tenant, two):
        registry.serve_scope(made.id)
    bot = Scope(user="ann", agent="bot", run="7", tenant="acme")
    assert registry.scoped_version(bot, SPACE) == two.id
    assert registry.scoped_version(Scope(user="bob", tenant="acme"), SPACE) == tenant.id
    # Others of that name, or over other vectors, are served by the common one.
    assert registry.scoped_version(Scope(user="ann"), SPACE) == ""
    assert registry.scoped_version(Scope(user="ann", tenant="other"), SPACE) == ""
    assert registry.scoped_version(bot, "another space") == ""
    assert [(row.scope, row.version, row.previous, row.serves) for row in registry.scoped_versions()] == [
        (ACME.key, tenant.id, "", True),
        (ANN.key, two.id, one.id, True),
    ]
    assert registry.roll_back_scope(ANN) == (one.id, two.id)
    assert registry.scoped_version(bot, SPACE) == one.id
    assert registry.roll_back_scope(ACME) == ("", tenant.id)
    assert registry.scoped_version(Scope(user="bob", tenant="acme"), SPACE) == ""
    assert registry.retire_scope(ANN) == [one.id, two.id]
    assert registry.scoped_version(bot, SPACE) == ""
    with pytest.raises(SwapError, match="never had an encoder of its own"):
        registry.roll_back_scope(ANN)


def test_no_version_of_a_scope_ever_serves_everyone(registry: Registry, tiny_folder: Path) -> None:
    own = version(registry, tiny_folder, ANN)
    registry.record_live("agent", SPACE, "")
    for serve in (
        lambda: registry.promote(own.id),
        lambda: registry.begin_shadow("agent", own.id, "_own"),
        lambda: registry.flip_queries("agent", own.id),
        lambda: registry.record_live("new agent", own.id, ""),
    ):
        with pytest.raises(SwapError, match="tenant=acme&user=ann alone"):
            serve()
    common = registry.settings.root / "common"
    shutil.copytree(tiny_folder, common)
    with pytest.raises(SwapError, match="made for everyone"):
        registry.serve_scope(registry.add(common, {"mode": "tower", "document_space": SPACE}).id)


def test_versions_in_use_are_not_pruned_and_scopes_take_no_place_of_common_ones(
    registry: Registry, tiny_folder: Path
) -> None:
    common = []
    for number in range(2):
        copy = registry.settings.root / f"common-{number}"
        shutil.copytree(tiny_folder, copy)
        common.append(registry.add(copy, {"seed": number}))
    old, one, two = (version(registry, tiny_folder, ANN, seed) for seed in range(3))
    registry.serve_scope(one.id)
    registry.serve_scope(two.id)
    new = version(registry, tiny_folder, ACME)
    with pytest.raises(EncoderError, match="is served by"):
        registry.remove(one.id)
    report = prune(registry, keep=1)
    assert report.removed == (common[0].id, old.id)
    assert set(report.kept) == {common[1].id, one.id, two.id, new.id}
    registry.retire_scope(ANN)
    assert prune(registry, keep=1).removed == (one.id,)


def test_a_version_is_for_nothing_that_is_not_a_scope(registry: Registry, tiny_folder: Path, tmp_path: Path) -> None:
    shutil.copytree(tiny_folder, tmp_path / "copy")
    for wrong in ("nobody=1", "ann", "user=ann&tenant=acme"):
        with pytest.raises(EncoderError, match="scope"):
            registry.add(tmp_path / "copy", {"scope": wrong})


def test_names_of_scopes_are_read_back() -> None:
    for scope in (Scope(user="a&b=c%"), Scope(tenant="t", agent="bot"), Scope(run="7")):
        assert Scope.from_key(scope.key) == scope
    with pytest.raises(ValueError, match="does not name a scope"):
        Scope.from_key("nobody=1")
    assert Scope(run="7", tenant="t").levels == (Scope(run="7", tenant="t"), Scope(tenant="t"))
