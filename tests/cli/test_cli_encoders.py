"""`hins encoders`: what people and scripts see of versions, on real ones."""

import json
import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

from hins_memory.cli import app
from hins_memory.config import Settings
from hins_memory.registry.registry import Registry


@pytest.fixture
def registry(settings):
    return Registry(settings)


@pytest.fixture
def versions(registry, tiny_folder, tmp_path):
    """Two versions of the tiny encoder; in the second one layer's weights are doubled."""
    import safetensors.torch

    found = []
    for number in (1, 2):
        folder = tmp_path / f"tiny{number}"
        shutil.copytree(tiny_folder, folder)
        if number == 2:
            weights = safetensors.torch.load_file(folder / "model.safetensors")
            doubled = {name: 2 * w if "encoder.layer.0" in name else w for name, w in weights.items()}
            safetensors.torch.save_file(doubled, folder / "model.safetensors", {"format": "pt"})
        manifest = {
            "base": "tiny",
            "mode": "full",
            "settings": {"learning_rate": number * 1e-5, "epochs": 2},
            "data": {"examples": 40 + number, "tiers": {"hard": 5}},
            "metrics": {"train_seconds": 1.5},
        }
        found.append(registry.add(folder, manifest))
    return found


def hins(settings, *arguments, code=0, json_=True):
    options = ["--home", str(settings.home), "--project", settings.project, "encoders", *map(str, arguments)]
    result = CliRunner().invoke(app, [*options, *(["--json"] if json_ else [])], env={"COLUMNS": "200"})
    assert result.exit_code == code, result.output
    return json.loads(result.stdout) if json_ else result.stdout


def test_list_and_show_tell_who_serves_and_what_was_forced(settings, registry, versions):
    one, two = versions
    registry.record_live("mem0:a", one.id, "")
    registry.record_live("mem0:b", one.id, "")
    registry.record_gate(two.id, {"passed": False, "forced": False, "incumbent": one.id, "failures": ["held_out_gain"]})
    registry.record_gate(two.id, {"passed": None, "forced": True, "incumbent": one.id, "failures": []})
    registry.begin_shadow("mem0:b", two.id, "_2")
    registry.flip("mem0:b", "_2")
    first, second = hins(settings, "list")["versions"]
    assert (first["id"], first["current"], first["forced"], first["examples"]) == (one.id, False, False, 41)
    assert (second["id"], second["current"], second["forced"]) == (two.id, True, True)
    assert first["agents"] == [{"agent": "mem0:a", "state": "live"}, {"agent": "mem0:b", "state": "previous"}]
    assert first["bytes"] > 1000
    said = hins(settings, "list", json_=False)
    assert "current, forced past the gate" in said
    assert "kept for rollback" in said
    shown = hins(settings, "show", two.id)
    assert shown["current"]
    assert [gate["forced"] for gate in shown["manifest"]["gates"]] == [False, True]
    said = hins(settings, "show", two.id, json_=False)
    for words in ("by force", "not asked, forced", "refused", "held_out_gain", "mem0:b", "data: examples", "(current)"):
        assert words in said
    shutil.rmtree(one.path)
    assert "folder missing on this host" in hins(settings, "list", json_=False)


def test_lists_of_several_projects_stand_side_by_side(settings, versions, tmp_path):
    other = Settings(home=settings.home, project="other")
    assert hins(other, "list")["versions"] == []
    assert "hins train" in hins(other, "list", json_=False)
    found = hins(other, "list", "--all-projects")["versions"]
    assert [(one["project"], one["id"]) for one in found] == [("test", version.id) for version in versions]
    assert "test" in hins(other, "list", "--all-projects", json_=False)


def test_diff_finds_the_layer_that_changed_and_what_was_set_differently(settings, registry, versions):
    one, two = versions
    found = hins(settings, "diff", two.id, one.id)
    assert found["values"]["settings.learning_rate"] == {"before": 1e-5, "after": 2e-5}
    assert found["values"]["data.examples"] == {"before": 41, "after": 42}
    assert not {"settings.epochs", "files", "base"} & found["values"].keys()
    changed = {row["module"]: row for row in found["modules"] if row["change"]}
    assert changed.keys() == {"encoder.layer.0"}
    layer = changed["encoder.layer.0"]
    assert layer["after"] == pytest.approx(2 * layer["before"])
    assert layer["change"] == pytest.approx(layer["before"])
    said = hins(settings, "diff", two.id, one.id, json_=False)
    assert "encoder.layer.0" in said
    assert "100.0" in said
    # against the current one, which is the stock encoder: other shapes, other modules
    stock = {row["module"]: row for row in hins(settings, "diff", two.id)["modules"]}
    assert stock["encoder.layer.0"]["change"] is None
    assert stock["encoder.layer.5"]["after"] is None
    registry.promote(one.id)
    assert hins(settings, "diff", two.id)["against"] == one.id


def test_export_import_and_prune(settings, versions, tmp_path):
    one, two = versions
    written = hins(settings, "export", one.id, tmp_path / "one.zip")
    assert (written["version"], len(written["sha256"])) == (one.id, 64)
    assert (tmp_path / "one.zip").stat().st_size == written["bytes"]
    plan = hins(settings, "prune", "--keep", 1, "--dry-run")
    assert (plan["removed"], plan["dry_run"]) == ([one.id], True)
    assert "one of the 1 newest" in hins(settings, "prune", "--keep", 1, json_=False)
    assert [row["id"] for row in hins(settings, "list")["versions"]] == [two.id]
    assert hins(settings, "import", tmp_path / "one.zip")["version"] == one.id
    assert [row["id"] for row in hins(settings, "list")["versions"]] == [one.id, two.id]
    (tmp_path / "one.zip").write_bytes((tmp_path / "one.zip").read_bytes()[:-1])
    assert hins(settings, "import", tmp_path / "one.zip", code=6)["error"]["type"] == "EncoderError"
    assert hins(settings, "import", tmp_path / "nothing.zip", code=6)["error"]["hint"]
    assert hins(settings, "show", "v0009-01234567", code=6)["error"]["exit_code"] == 6
    assert hins(settings, "prune", "--keep", 0, code=2)["error"]["type"] == "ConfigError"


@pytest.mark.slow
def test_a_tower_alone_goes_out_and_comes_in(settings, tower_version, tmp_path):
    written = hins(settings, "export", "--delta", tower_version.id, tmp_path / "tower.safetensors")
    assert (tmp_path / "tower.safetensors").stat().st_size == written["bytes"] < 100_000
    found = hins(settings, "import", tmp_path / "tower.safetensors")
    assert found["manifest"]["parent"] == tower_version.id != found["version"]
    assert hins(settings, "export", "--delta", tower_version.id, "x.zip", code=2)["error"]["type"] == "ConfigError"


@pytest.mark.slow
def test_a_version_is_exported_as_a_graph_that_serving_uses(settings, versions, tmp_path):
    pytest.importorskip("onnxruntime", reason="the extra onnx is not installed")
    made = hins(settings, "export", "--onnx", versions[0].id)
    assert (made["version"], made["precision"]) == (versions[0].id, "fp32")
    assert made["bytes"] == sum(one.stat().st_size for one in Path(made["path"]).iterdir())
    # 8 bits are judged on held-out traffic, of which there is none.
    refused = hins(settings, "export", "--onnx", "--int8", versions[0].id, code=3)
    assert refused["error"]["type"] == "NotEnoughDataError"
    for wrong in (["--onnx", versions[0].id, tmp_path / "x.zip"], ["--int8", versions[0].id]):
        assert hins(settings, "export", *wrong, code=2)["error"]["type"] == "ConfigError"
