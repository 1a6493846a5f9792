"""The record of a training run, and the page that shows it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hins_memory.common.html import Section, Series, line_chart, paragraph, table, write_page
from hins_memory.encoders.manifest import Curves, Description
from hins_memory.errors import TrainingError

__all__ = ["curves", "write_run_report"]

_EARLY_STOPPING_METRIC = "eval_held_out_ndcg@10"


def curves(history: Sequence[Mapping[str, Any]]) -> Curves:
    """Return the curves of a run from the trainer's log; interruptions are left out of the seconds."""
    steps = [entry for entry in history if "loss" in entry]
    evaluations = [entry for entry in history if _EARLY_STOPPING_METRIC in entry]
    return Curves(
        loss=tuple(float(entry["loss"]) for entry in steps),
        learning_rate=tuple(float(entry["learning_rate"]) for entry in steps),
        gradient_norm=tuple(round(float(entry.get("grad_norm", 0.0)), 5) for entry in steps),
        seconds=tuple(float(entry.get("seconds", 0.0)) for entry in steps),
        held_out=tuple((int(entry["step"]), float(entry[_EARLY_STOPPING_METRIC])) for entry in evaluations),
    )


def write_run_report(path: Path, version: str, manifest: Description) -> None:
    """Write the HTML page of a run: its curves, settings, data, machine and packages; self-contained.

    Args:
        path: the file; one that is there is replaced.
        version: the encoder version's id.
        manifest: the version's manifest.

    Raises:
        TrainingError: the manifest holds no record of a run, or the file cannot be written.
    """
    run, data, metrics = manifest.run, manifest.data, manifest.metrics
    if not run.curves.loss:
        raise TrainingError(f"{version} holds no record of its training.", "Train a new version.")
    charts = [
        _chart("Training loss", run.curves.loss, "loss"),
        _chart("Learning rate", run.curves.learning_rate, "rate"),
        _chart("Gradient norm", run.curves.gradient_norm, "norm"),
    ]
    if run.curves.held_out:
        steps, values = zip(*run.curves.held_out, strict=True)
        charts.insert(1, line_chart("Held-out nDCG@10", [Series("nDCG@10", tuple(values), tuple(steps))], "step"))
    size = f"{data.examples} examples, {len(run.curves.loss)} steps"
    summary = f"{size}, {metrics.train_seconds:.1f} seconds, from {manifest.base}."
    sections = [
        Section("Run", (paragraph(summary), *charts)),
        Section("Data", (_rows({**_prefixed("positives from", data.sources), **_prefixed("tier", data.tiers)}),)),
        Section("Settings", (_rows(manifest.settings),)),
        Section("Machine", (_rows(run.hardware),)),
        Section("Packages", (_rows(manifest.versions),)),
    ]
    try:
        write_page(path, f"Training of {version}", sections)
    except OSError as error:
        raise TrainingError(f"{path} cannot be written: {error}.", "Name another file with --report.") from error


def _chart(title: str, values: Sequence[float], label: str) -> str:
    return line_chart(title, [Series(label, tuple(values), tuple(range(1, len(values) + 1)))], "step", label)


def _prefixed(prefix: str, counts: Mapping[str, Any]) -> dict[str, Any]:
    return {f"{prefix} {name}": count for name, count in counts.items()}


def _rows(values: Mapping[str, Any]) -> str:
    return table(("name", "value"), [(name, str(value)) for name, value in sorted(values.items())])
