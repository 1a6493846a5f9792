"""The file of settings: what wins over what, what is refused, and its reference page."""

from __future__ import annotations

import json
import runpy
from dataclasses import fields
from pathlib import Path

import pytest
from typer.testing import CliRunner

from hins_memory.cli.app import app
from hins_memory.config import REMOVED, Settings, read_settings_file
from hins_memory.errors import ConfigError
from hins_memory.loop.pipeline import Pipeline
from hins_memory.loop.settings import LoopSettings
from hins_memory.types import Ratio

ROOT = Path(__file__).resolve().parents[1]
EVERYTHING = """
base = "stock"
seed = 7
[capture]
queue_bytes = 5
[mine]
negatives = 5
ratio = {easy = 0.5, medium = 0.25, hard = 0.25}
[train]
mode = "full"
epochs = 3
micro_batch_size = 8
[gate]
max_general_loss = 0.5
held_out_share = 0.5
"""


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HINS_CONFIG", "HINS_LOG_URL", "HINS_CAPTURE"):
        monkeypatch.delenv(name, raising=False)


def written(home: Path, text: str) -> Path:
    (home / "p").mkdir(exist_ok=True)
    path = home / "p" / "hins.toml"
    path.write_text(text, encoding="utf-8")
    return path


def settings(home: Path, **given: object) -> Settings:
    return Settings(home=home, project="p", **given)  # type: ignore[arg-type]


def test_old_names_work_with_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    written(tmp_path, "[train]\nsoup = 1.0")
    assert LoopSettings.from_file(settings(tmp_path).file()).train.averaging_weight == 1.0
    assert "soup is now averaging_weight" in caplog.text
    written(tmp_path, "[train]\nsoup = 1.0\naveraging_weight = 0.5")
    with pytest.raises(ConfigError, match="unknown name: soup"):
        LoopSettings.from_file(settings(tmp_path).file())


def test_without_a_file_the_defaults_hold(tmp_path: Path) -> None:
    found = settings(tmp_path)
    assert (found.queue_bytes, found.capture, found.log_url) == (128 * 2**20, True, "")
    assert found.file().path is None
    assert LoopSettings.from_file(found.file()) == LoopSettings()


def test_the_file_sets_what_each_stage_uses(tmp_path: Path) -> None:
    path = written(tmp_path, EVERYTHING)
    found = settings(tmp_path)
    assert (found.queue_bytes, found.capture) == (5, True)
    pipeline = Pipeline(found)
    loop = pipeline.loop
    assert (loop.base, loop.mine.seed, loop.train.seed) == ("stock", 7, 7)
    assert (loop.mine.negatives, loop.mine.ratio) == (5, Ratio(0.5, 0.25, 0.25))
    assert (loop.train.mode, loop.train.epochs, loop.train.micro_batch_size) == ("full", 3.0, 8)
    assert (loop.gate.max_general_loss, loop.gate.held_out_share) == (0.5, 0.5)
    assert pipeline.status().settings_file == str(path)
    assert Pipeline(found, loop=LoopSettings()).loop == LoopSettings()


def test_arguments_win_over_the_environment_and_the_environment_over_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written(tmp_path, '[capture]\nlog_url = "sqlite:///file.db"\ncapture = true\n[train]\nepochs = 3\nbatch_size = 8')
    monkeypatch.setenv("HINS_CAPTURE", "0")
    monkeypatch.setenv("HINS_LOG_URL", "sqlite:///environment.db")
    assert (settings(tmp_path).capture, settings(tmp_path).log_url) == (False, "sqlite:///environment.db")
    given = settings(tmp_path, capture=True, log_url="")
    assert (given.capture, given.log_url) == (True, "")
    loop = LoopSettings.from_file(given.file(), base="starter", seed=3, train={"epochs": 1.0})
    assert (loop.base, loop.mine.seed, loop.train.seed) == ("starter", 3, 3)
    assert (loop.train.epochs, loop.train.batch_size) == (1.0, 8)


def test_the_environment_names_another_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written(tmp_path, "seed = 1")
    other = tmp_path / "other.toml"
    other.write_text("seed = 2")
    monkeypatch.setenv("HINS_CONFIG", str(other))
    assert LoopSettings.from_file(settings(tmp_path).file()).mine.seed == 2
    other.unlink()
    with pytest.raises(ConfigError, match=r"no settings file .*other\.toml"):
        settings(tmp_path)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[trian]\nepochs = 1", ["hins.toml", "trian", "Did you mean train?"]),
        ("sed = 1", ["hins.toml", "sed", "Did you mean seed?"]),
        ("[train]\nepoch = 1", ["hins.toml [train]", "epoch", "Did you mean epochs?"]),
        ("[train]\nseed = 1", ["hins.toml [train]", "seed"]),
        ("[capture]\nhome = '/'", ["hins.toml [capture]", "home"]),
        ("[train]\nepochs = '1'", ["hins.toml [train]", "epochs"]),
        ("[train]\nmode = 'lore'", ["hins.toml [train]", "mode", "'full', 'lora', 'tower' or 'query'"]),
        ("[train]\nepochs = -1", ["hins.toml [train]", "epochs is -1"]),
        ("[mine]\nnegatives = 2.5", ["hins.toml [mine]", "negatives"]),
        ("[mine]\nnegatives = true", ["hins.toml [mine]", "negatives"]),
        ("[mine]\nratio = {easy = 1.0, medium = 1.0, hard = 0.0}", ["hins.toml [mine]", "ratio", "sum to 1"]),
        ("[gate]\nskills = ['juggling']", ["hins.toml [gate]", "no skill 'juggling'", "preference"]),
        ("[capture]\nqueue_bytes = 0", ["hins.toml [capture]", "queue_bytes is 0"]),
        ("train = 1", ["hins.toml", "train has to be a table"]),
        ("[base]", ["hins.toml", "base has to be a value"]),
        ("seed = 1979-05-27", ["hins.toml", "seed"]),
        ("[train", ["hins.toml", "cannot be read"]),
    ],
)
def test_what_is_wrong_in_the_file_is_named(tmp_path: Path, text: str, said: list[str]) -> None:
    written(tmp_path, text)
    with pytest.raises(ConfigError) as caught:
        Pipeline(settings(tmp_path))
    for part in said:
        assert part in str(caught.value)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[train]\neval_steps = 4", ["hins.toml [train]", "eval_steps is not a setting any more", "Delete the line"]),
        ("[capture]\nqueue_size = 9", ["queue_size is not a setting any more", "queue_bytes bytes"]),
        ("[mix]\nhalf = 9", ["hins.toml", "mix is not a setting any more", "half of them are left at 500"]),
        ("[holdout]\nshare = 0.5", ["holdout is not a setting any more", "set held_out_share"]),
        ("[train]\nnegatives = 5", ["set negatives in [mine]"]),
        ("[train]\nmax_general_loss = 0.1", ["set max_general_loss in [gate]"]),
    ],
)
def test_a_setting_of_an_earlier_version_ends_in_what_holds_instead(tmp_path: Path, text: str, said: list[str]) -> None:
    written(tmp_path, text)
    with pytest.raises(ConfigError) as caught:
        Pipeline(settings(tmp_path))
    for part in said:
        assert part in str(caught.value)


def test_no_setting_is_said_to_be_removed() -> None:
    kinds = runpy.run_path(str(ROOT / "tools" / "settings_reference.py"))["classes"]()
    for table, removed in REMOVED.items():
        if table in kinds:
            assert not removed.keys() & {one.name for one in fields(kinds[table])}


def test_a_value_of_a_wrong_type_is_not_shown(tmp_path: Path) -> None:
    written(tmp_path, "[capture]\nlog_url = ['secret']")
    with pytest.raises(ConfigError) as caught:
        settings(tmp_path)
    assert "log_url" in str(caught.value)
    assert "secret" not in str(caught.value)


def test_a_wrong_argument_is_not_said_to_be_in_the_file(tmp_path: Path) -> None:
    written(tmp_path, "[capture]\nqueue_bytes = 3")
    with pytest.raises(ConfigError, match=r"^queue_bytes is 0"):
        settings(tmp_path, queue_bytes=0)


def test_a_file_that_is_not_text_is_refused(tmp_path: Path) -> None:
    written(tmp_path, "").write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match="cannot be read"):
        read_settings_file(tmp_path / "p")


def test_the_command_line_reads_the_file(tmp_path: Path) -> None:
    path = written(tmp_path, "[train]\nepochs = 3")
    call = ["--home", str(tmp_path), "--project", "p"]
    shown = CliRunner().invoke(app, [*call, "status", "--json"])
    assert json.loads(shown.stdout)["settings_file"] == str(path)
    written(tmp_path, "[train]\nepoch = 3")
    refused = CliRunner().invoke(app, [*call, "mine"])
    assert refused.exit_code == 2
    assert "Did you mean epochs?" in refused.stderr


def test_options_of_the_command_line_win(tmp_path: Path) -> None:
    from hins_memory.cli.loop import _loop

    written(tmp_path, "seed = 4\ndeep = 'auto'\n[mine]\nnegatives = 5\n[train]\nmode = 'full'\nepochs = 3")
    assert _loop(settings(tmp_path)).deep == "auto"
    loop = _loop(
        settings(tmp_path), seed=2, mine={"negatives": None}, train={"mode": "query", "epochs": None}, deep="never"
    )
    assert loop.deep == "never"
    assert (loop.mine.negatives, loop.mine.seed, loop.train.mode, loop.train.epochs) == (5, 2, "query", 3.0)


def test_the_reference_of_the_settings_is_up_to_date() -> None:
    tool = runpy.run_path(str(ROOT / "tools" / "settings_reference.py"))
    page = (ROOT / "docs" / "reference" / "settings.md").read_text(encoding="utf-8")
    assert tool["updated"](page) == page, "run: python tools/settings_reference.py"
