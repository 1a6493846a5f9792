"""The documentation's plots: drawn from the result files, the same each time, and up to date."""

import re
import shutil
from pathlib import Path

import plots
import pytest

pytest.importorskip("matplotlib")

DOCS = Path(__file__).resolve().parents[2] / "docs"


def _texts(path: Path) -> list[str]:
    """Return the texts of a plot; where they stand is matplotlib's matter and differs between its versions."""
    return re.findall(r"<text[^>]*>([^<]+)</text>", path.read_text(encoding="utf-8"))


@pytest.mark.slow
def test_plots_are_the_same_each_time_and_those_in_the_documentation_are_up_to_date(tmp_path):
    first = plots.draw(DOCS / "results", tmp_path / "one")
    second = plots.draw(DOCS / "results", tmp_path / "two")
    assert [path.name for path in first] == list(plots.PLOTS)
    for one, two in zip(first, second, strict=True):
        assert one.read_bytes() == two.read_bytes()
        assert _texts(one) == _texts(DOCS / "assets" / one.name), f"run tools/plots.py: {one.name} is out of date"
        assert len(one.read_bytes()) < 40_000


@pytest.mark.slow
def test_the_figures_are_those_of_the_results(tmp_path):
    plots.draw(DOCS / "results", tmp_path)
    assert {"30.8", "57.3", "60.8", "64.7", "57.1", "65.3", "66.0"} <= {*_texts(tmp_path / "ndcg.svg")}
    assert {"49.5", "54.5", "57.0", "59.1"} <= {*_texts(tmp_path / "ablation.svg")}
    modes = {f"{mode}, {kind}" for mode in ("query", "lora", "full") for kind in ("turns", "facts")}
    assert modes <= {*_texts(tmp_path / "training-cost.svg")}


@pytest.mark.parametrize("content", [None, "[", '{"rows": [{}]}'])
def test_a_missing_or_damaged_result_is_a_sentence(content, tmp_path, capsys):
    folder = tmp_path / "results"
    shutil.copytree(DOCS / "results", folder)
    (folder / "ablation.json").unlink()
    if content is not None:
        (folder / "ablation.json").write_text(content)
    assert plots.main(["--results", str(folder), "--to", str(tmp_path / "assets")]) == 2
    assert "ablation.svg cannot be drawn" in capsys.readouterr().err
    assert not (tmp_path / "assets" / "ablation.svg").exists()
