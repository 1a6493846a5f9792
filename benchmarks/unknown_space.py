"""Queries for a store whose encoder is not at hand: only its vectors and texts are known, as with a hosted API.

    python benchmarks/unknown_space.py --data locomo10.json --json result.json
    python benchmarks/unknown_space.py --quick

One packaged encoder plays the unknown one: what it makes of all turns is stored, and nothing else of it is used.
Queries are embedded by another, local one: behind a linear map fitted on the stored texts (ridge regression), and as a
tower that is trained behind that map from the evidence labels of half of the conversations. Scored is nDCG@10 on the
other half, and beside it what the unknown encoder's own queries find. Without --data, and with --quick, the packaged
sample conversations are used.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hins_memory import Encoder, train_encoder
from hins_memory.evaluation import evaluate_encoder, paired_bootstrap
from hins_memory.training import TrainSettings, encoder_of_space
from parts.common.command import base_parser, exit_status
from parts.common.files import resolve_data
from parts.common.results import write_result
from parts.common.screen import show_table, stage
from parts.datasets.locomo import (
    ANSWERABLE,
    LOCOMO,
    Conversation,
    documents,
    eval_set,
    load_locomo,
    relevant,
    sample_conversations,
)

if TYPE_CHECKING:
    import argparse

    import numpy as np
    from numpy.typing import NDArray

    from hins_memory.types import Role

_PAIRS = (("stock", "starter"), ("starter", "stock"))
_K = 10
_QUICK_CONVERSATIONS, _QUICK_STEPS = 4, 8
_COLUMNS = ("unknown", "local", "own", "linear", "tower", "tower_gain", "tower_gain_low", "tower_gain_high", "seconds")


class _Sides(Encoder):
    """Queries by one encoder, and documents as they are stored."""

    def __init__(self, queries: Encoder, stored: Encoder) -> None:
        super().__init__(queries.model, queries.version, cache_size=0)
        self._stored = stored

    def encode(self, texts: Sequence[str], *, role: Role = "document", batch_size: int = 32) -> NDArray[np.float32]:
        """Encode texts of either side."""
        if role == "document":
            return self._stored.encode(texts, role=role, batch_size=batch_size)
        return super().encode(texts, role=role, batch_size=batch_size)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmark and return the exit status."""
    parser = base_parser(str(__doc__).splitlines()[0])
    parser.add_argument("--data", type=Path, metavar="FILE", help="locomo10.json or a file of its format")
    arguments = parser.parse_args(argv)
    return exit_status(lambda: _run(arguments))


def _run(arguments: argparse.Namespace) -> None:
    if arguments.quick or arguments.data is None:
        data = sample_conversations()
    else:
        data = load_locomo(resolve_data(arguments.data, LOCOMO))
    settings = TrainSettings(mode="tower", seed=arguments.seed)
    if arguments.quick:
        data = data[:_QUICK_CONVERSATIONS]
        settings = replace(settings, epochs=0.01, min_steps=_QUICK_STEPS)
    rows = [_compare(unknown, local, data, settings) for unknown, local in _PAIRS]
    show_table(
        f"nDCG@{_K} on conversations without training, by who embeds the queries",
        _COLUMNS,
        [[row[name] for name in _COLUMNS] for row in rows],
    )
    figures = {
        f"{row['unknown']}_space_{name}": row[name]
        for row in rows
        for name in ("own", "linear", "tower", "tower_gain", "tower_gain_low", "tower_gain_high", "seconds")
    }
    write_result(
        arguments.json, figures, rows, {"data": arguments.data, "quick": arguments.quick, **settings.to_dict()}
    )


def _compare(unknown: str, local: str, data: Sequence[Conversation], settings: TrainSettings) -> dict[str, Any]:
    """Return how well stored vectors of one encoder are found by its own queries, and by those of another."""
    stage(f"stored by {unknown}, asked by {local}")
    own, base = Encoder.load(unknown), Encoder.load(local)
    texts = list(dict.fromkeys(document.text for one in data for document in documents(one, "turns")))
    # Room for all of them, because they are scored three times.
    own = Encoder(own.model, own.version, cache_size=2 * len(texts))
    linear = encoder_of_space(texts, own.encode(texts), base=base, space="unknown")
    half = len(data) // 2
    with tempfile.TemporaryDirectory(prefix="hins-unknown-space-") as scratch:
        trained = train_encoder(_rows(data[:half]), Path(scratch) / "queries", base=linear, settings=settings)
        tower = _Sides(Encoder.load(trained.folder), linear)
        sets = [eval_set(one, "turns") for one in data[half:]]
        found = {}
        for name, encoder in (("own", own), ("linear", linear), ("tower", tower)):
            scores = evaluate_encoder(encoder, sets, ks=(_K,))
            answerable = [row for row, group in enumerate(scores.groups) if group in ANSWERABLE]
            found[name] = 100 * scores.ndcg[_K][answerable]
    gain = paired_bootstrap(found["tower"], found["own"])
    return {
        "unknown": unknown,
        "local": local,
        **{name: float(values.mean()) for name, values in found.items()},
        "tower_gain": gain.difference,
        "tower_gain_low": gain.low,
        "tower_gain_high": gain.high,
        "seconds": trained.manifest.metrics.train_seconds,
    }


def _rows(data: Sequence[Conversation]) -> Iterator[dict[str, str]]:
    """Yield every turn as a text that can be found, and every question with each of its evidence turns."""
    for one in data:
        turns = {document.id: document for document in documents(one, "turns")}
        for document in turns.values():
            yield _row(one, document)
        for question, evidence in zip(one.questions, relevant(one, "turns"), strict=True):
            if str(question.category) in ANSWERABLE:
                yield from (_row(one, turns[name]) | {"query": question.text} for name in sorted(evidence))


def _row(conversation: Conversation, document: Any) -> dict[str, str]:
    session = f"{conversation.id} {document.session}"
    return {"positive": document.text, "speaker": document.speaker, "user": conversation.id, "conversation": session}


if __name__ == "__main__":
    sys.exit(main())
