"""The model card of a trained encoder: sentence-transformers' card without texts of the log, and a section of ours."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from hins_memory.encoders.manifest import Description

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

__all__ = ["add_card_section", "prepare_card"]


def prepare_card(model: SentenceTransformer, base: str) -> None:
    """Give the card its title, and take out what shows texts of the log: samples, widget and usage examples."""
    card = model.model_card_data
    card.model_name = f"{base.partition('@')[0]} trained by hins-memory"
    card.add_tags(["hins-memory", "agent-memory"])
    card.widget = []
    for name in ("usage_examples", "usage_examples_display"):
        if hasattr(card, name):
            setattr(card, name, None)
    for dataset in (*card.train_datasets, *card.eval_datasets):
        for name in ("examples", "examples_table"):
            dataset.pop(name, None)


def add_card_section(folder: Path, manifest: Description) -> None:
    """Append to the card of a saved model what was trained on, how, and the result."""
    data, settings, metrics = manifest.data, manifest.settings, manifest.metrics
    loss = metrics.loss
    rows = [
        ("base", manifest.base),
        ("examples", data.examples),
        *((f"positives from {source}", count) for source, count in sorted(data.sources.items())),
        *((f"{tier} negatives", count) for tier, count in sorted(data.tiers.items())),
        ("digest of the data", data.digest),
    ]
    measured = [("training time", f"{metrics.train_seconds:.1f} s"), ("steps", len(loss))]
    if loss:
        measured += [("first loss", f"{loss[0]:.4f}"), ("last loss", f"{loss[-1]:.4f}")]
    if metrics.best_held_out is not None:
        measured.append(("best held-out nDCG@10", f"{metrics.best_held_out:.4f}"))
    limited = {name: manifest.scores[name] for name in ("general", "skills") if manifest.scores.get(name)}
    for name, one in limited.items():
        measured.append((f"{name} nDCG@10, before", f"{one['before']:.4f}"))
        measured.append((f"{name} nDCG@10, after", f"{one['after']:.4f}"))
    if limited:
        measured.append(("share of the trained update kept", f"{next(iter(limited.values()))['kept']:.0%}"))
    text = "\n".join(
        (
            "",
            "## Training by hins-memory",
            "",
            "Trained on tiered examples of an agent's own retrieval traffic "
            "([HiNS](https://arxiv.org/abs/2601.14857)); no text of it is part of this card.",
            "",
            *_table("data", rows),
            *_table("setting", [(name, settings[name]) for name in sorted(settings)]),
            *_table("measured", measured),
        )
    )
    with (folder / "README.md").open("a", encoding="utf-8") as stream:
        stream.write(text)


def _table(title: str, rows: list[tuple[str, Any]]) -> list[str]:
    return [f"| {title} | |", "|---|---|", *(f"| {name} | {value} |" for name, value in rows), ""]
