"""What a training leaves behind: the card, the record of the run and its page, and the dataset's columns."""

from __future__ import annotations

import contextlib
import json
import platform
from dataclasses import replace
from pathlib import Path

import pytest
from nasty_texts import EVERYTHING, check_page
from safetensors.torch import load_file
from train_world import NAMES, THINGS, examples, quick

from hins_memory.encoders.manifest import Description
from hins_memory.errors import NotEnoughDataError, TrainingError
from hins_memory.evaluation import EvalQuery, EvalSet
from hins_memory.training import AuxiliaryData, QuerySample, RunContent, discard_runs, open_run, train_encoder
from hins_memory.training.fit.dataset import to_dataset
from hins_memory.training.report import write_run_report


def held_out() -> EvalSet:
    documents = {f"m{i}{j}": f"{name}: {thing} it is" for i, name in enumerate(NAMES) for j, thing in enumerate(THINGS)}
    queries = tuple(
        EvalQuery(f"What does {name} do on day {j}?", frozenset({f"m{i}{j}"}))
        for i, name in enumerate(NAMES)
        for j in range(len(THINGS))
    )
    return EvalSet("held", documents, queries)


@pytest.mark.slow
def test_early_stopping_keeps_the_best_and_the_record_says_so(tmp_path, tiny_folder, monkeypatch):
    monkeypatch.setattr("hins_memory.training.settings._EVALUATIONS", 20)
    settings = quick(patience=2, min_steps=40, learning_rate=2e-2)
    auxiliary = AuxiliaryData(early_stopping_sets=[held_out()])
    result = train_encoder(examples(), tmp_path / "model", base=tiny_folder, settings=settings, auxiliary=auxiliary)
    curves = result.manifest.run.curves
    steps, values = zip(*curves.held_out, strict=True)
    assert list(steps) == [2 * (number + 1) for number in range(len(steps))]
    best = values.index(max(values))
    # stopped after two looks without a gain, or at the end
    assert len(values) in (best + 3, 20)
    assert len(curves.loss) == steps[-1]
    assert result.manifest.metrics.best_held_out == max(values)
    from hins_memory.encoders.encoder import Encoder
    from hins_memory.evaluation import evaluate_encoder

    found = evaluate_encoder(Encoder.load(result.folder), [held_out()], ks=(10,)).mean()["ndcg@10"]
    assert found == pytest.approx(max(values), abs=0.01)


def test_early_stopping_without_held_out_queries_is_refused(tmp_path):
    with pytest.raises(NotEnoughDataError, match="held-out"):
        train_encoder(examples(), tmp_path / "model", settings=quick(patience=1))


@pytest.mark.slow
def test_the_card_tells_everything_but_texts(tmp_path, tiny_folder):
    settings = quick(min_steps=2)
    result = train_encoder(examples(), tmp_path / "model", base=tiny_folder, settings=settings)
    card = (result.folder / "README.md").read_text(encoding="utf-8")
    for text in (
        "trained by hins-memory",
        "| examples | 24 |",
        "| hard negatives | 24 |",
        "| medium negatives | 12 |",
        "| positives from answer | 24 |",
        "| temperature | 0.05 |",
        "| last loss |",
        "TieredInfoNCELoss",
        result.manifest.data.digest,
    ):
        assert text in card, text
    for example in examples():
        for text in (example.positive.query, example.positive.text, *(one.text for one in example.negatives)):
            assert text not in card
    trained, base = (load_file(folder / "model.safetensors") for folder in (result.folder, tiny_folder))
    assert any((trained[other] != base[other]).any() for other in base)


@pytest.mark.slow
def test_the_page_shows_the_curves(tmp_path, tiny_folder):
    result = train_encoder(examples(), tmp_path / "model", base=tiny_folder, settings=quick(min_steps=3))
    manifest = Description.from_json(json.dumps(result.manifest.to_dict()))
    assert manifest == result.manifest
    assert manifest.run.hardware["cores"] >= 1
    assert manifest.versions["torch"]
    write_run_report(tmp_path / "run.html", "v0001-12345678", manifest)
    page = (tmp_path / "run.html").read_text(encoding="utf-8")
    assert page.count("<svg") >= 3
    assert "v0001-12345678" in page
    assert "://" not in page
    check_page(page)
    evil = replace(
        manifest,
        base=EVERYTHING,
        settings={EVERYTHING: EVERYTHING},
        versions={EVERYTHING: EVERYTHING},
        data=replace(manifest.data, sources={EVERYTHING: 1}, tiers={EVERYTHING: 1}),
        run=replace(manifest.run, hardware={EVERYTHING: EVERYTHING}),
    )
    write_run_report(tmp_path / "evil.html", EVERYTHING, evil)
    check_page((tmp_path / "evil.html").read_text(encoding="utf-8"))
    with pytest.raises(TrainingError, match="no record"):
        write_run_report(tmp_path / "run.html", "v1", Description(base="b"))
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(TrainingError, match="--report"):
        write_run_report(tmp_path / "file" / "run.html", "v1", manifest)


def test_the_columns_are_query_positive_and_negatives():
    assert to_dataset(examples()).column_names == ["query", "positive", "negative_1", "negative_2"]


def content() -> RunContent:
    queries = [QuerySample(("Where?", "谁？"), ("Here 🎻", "\ud800"), 5)]
    auxiliary = AuxiliaryData(queries, [QuerySample(("When?",), ("Now",))], [held_out(), held_out()])
    return RunContent(examples(), quick(), "base", auxiliary, Description(mix={"half": 5}), {"n": 1})


def interrupted(parent, complete: bool = True):
    from hins_memory.training.fit.checkpoints import mark_complete

    with contextlib.suppress(KeyboardInterrupt), open_run(parent, content) as run:
        if complete:
            (run.checkpoints / "checkpoint-1").mkdir(parents=True)
            mark_complete(run.checkpoints / "checkpoint-1")
        raise KeyboardInterrupt
    return run


def test_a_run_that_is_cut_is_continued_as_it_was(tmp_path):
    first = interrupted(tmp_path)
    assert (first.folder.stat().st_mode & 0o077) == 0
    (first.model).mkdir()
    (first.model / "half").write_text("saved")
    with open_run(tmp_path, None) as run:
        assert run.id == first.id
        assert run.content == content()
        assert not run.model.exists()
    with pytest.raises(TrainingError, match="no unfinished training"), open_run(tmp_path, None):
        pass


def test_runs_exclude_each_other_and_a_new_one_removes_those_that_were_cut(tmp_path):
    cut = interrupted(tmp_path)
    with open_run(tmp_path, content) as run:
        assert not cut.folder.exists()
        with pytest.raises(TrainingError, match="no unfinished training"), open_run(tmp_path, None):
            pass
        assert discard_runs(tmp_path) == 0
        assert run.folder.exists()
    assert not run.folder.exists()
    assert not interrupted(tmp_path, complete=False).folder.exists()
    cut = interrupted(tmp_path)
    assert discard_runs(tmp_path) == 1
    assert not cut.folder.exists()
    assert discard_runs(tmp_path / "nowhere") == 0


def test_bfloat16_is_used_only_where_the_processor_has_it():
    from hins_memory.encoders.encoder import bf16_supported
    from hins_memory.training.fit.hardware import hardware

    cpuinfo = Path("/proc/cpuinfo")
    if not cpuinfo.exists() or platform.machine() != "x86_64":
        pytest.skip("flags are known on Linux on x86-64 only")
    flags = set(cpuinfo.read_text(encoding="utf-8").split())
    assert bf16_supported("cpu") == bool(flags & {"avx512_bf16", "amx_bf16"})
    assert hardware()["processor"] in cpuinfo.read_text(encoding="utf-8")
    assert not bf16_supported("meta")


def test_a_package_that_is_not_installed_has_no_version():
    from hins_memory.training.fit.hardware import package_version

    assert package_version("pytest") == pytest.__version__
    assert package_version("hins-memory-of-another-name") is None
