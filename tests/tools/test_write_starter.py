"""The tool that writes the packaged starter, on a tiny model in the place of a trained one."""

import json
import shutil

import pytest
import write_starter

from hins_memory.errors import ConfigError

RECIPE = {"conversations": 4, "lora_rank": 2}


@pytest.fixture
def run(tiny_folder, tmp_path):
    """A run of benchmarks/start.py: its work folder, with a change of rank 2 in the model, and its result file."""
    import torch
    from safetensors.torch import load_file, save_file

    work, result = tmp_path / "work", tmp_path / "result.json"
    folder = work / "seed-3"
    shutil.copytree(tiny_folder, folder / "model")
    weights = load_file(folder / "model" / "model.safetensors")
    name = next(name for name, weight in weights.items() if "attention" in name and weight.dim() == 2)
    weights[name] = weights[name] + torch.ones(weights[name].shape[0], 1) @ torch.ones(1, weights[name].shape[1])
    save_file(weights, folder / "model" / "model.safetensors", {"format": "pt"})
    (folder / "record.json").write_text(json.dumps({"recipe": RECIPE, "seconds": 1.0}))
    rows = [{"encoder": "stock", "sample": 55.0}, {"encoder": "seed 3", "sample": 68.0, "locomo_turns_1": 42.0}]
    settings = {"seed": 3, "quick": False, **RECIPE}
    result.write_text(json.dumps({"figures": {"sample_mean": 68.0}, "rows": rows, "settings": settings}))
    return work, result


def test_the_first_seed_is_written_with_its_recipe_and_figures(run, tiny_folder, tmp_path):
    target = tmp_path / "starter.safetensors"
    digest = write_starter.write_starter(*run, target, tiny_folder)
    record = json.loads(target.with_suffix(".json").read_text())
    assert record["sha256"] == digest
    assert record["keyword_weight"] == 0.05
    assert record["about"] == {"recipe": RECIPE, "seed": 3, "figures": {"sample": 68.0}}


def test_a_result_of_another_run_writes_nothing(run, tiny_folder, tmp_path):
    work, result = run
    target = tmp_path / "starter.safetensors"
    (work / "seed-3" / "record.json").write_text(json.dumps({"recipe": {**RECIPE, "conversations": 5}}))
    with pytest.raises(ConfigError, match=r"another recipe than .*: conversations"):
        write_starter.write_starter(work, result, target, tiny_folder)
    for damaged in ("{", "[]", '{"settings": {"seed": 9}}'):
        result.write_text(damaged)
        with pytest.raises(ConfigError, match="not of a run"):
            write_starter.write_starter(work, result, target, tiny_folder)
    assert not target.exists()


def test_the_command_says_what_is_missing(tmp_path, capsys):
    argv = ["--work", str(tmp_path), "--result", str(tmp_path / "no.json"), "--to", str(tmp_path / "x.safetensors")]
    assert write_starter.main(argv) == 2
    assert "Run it with --seeds 1" in capsys.readouterr().err
