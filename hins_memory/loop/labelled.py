"""Training and evaluation on labelled data of one's own, without any agent."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hins_memory.data.labelled import Rows, logs_of, read_rows
from hins_memory.data.stored_vectors import StoredVectors, StoredVectorsWriter
from hins_memory.errors import NotEnoughDataError
from hins_memory.evaluation import (
    BootstrapResult,
    EvalQuery,
    EvalSet,
    RankingScores,
    evaluate_encoder,
    paired_bootstrap,
)
from hins_memory.evaluation.gate import GateSettings
from hins_memory.loop.data import public_texts
from hins_memory.mining import MineResult, MineSettings, mine
from hins_memory.mining.negatives.whole_store import store_owner
from hins_memory.mining.storage.evidence import OwnerEvidence, collect

if TYPE_CHECKING:
    from hins_memory.config import Settings
    from hins_memory.encoders.encoder import Encoder
    from hins_memory.loop.settings import LoopSettings
    from hins_memory.registry.registry import EncoderVersion
    from hins_memory.training import TrainResult, TrainSettings
    from hins_memory.types import Progress

__all__ = ["Comparison", "compare_encoders", "labelled_sets", "mine_labelled", "train_encoder", "train_version"]

_K = 10


def mine_labelled(data: Rows, encoder: Encoder, settings: MineSettings | None = None) -> MineResult:
    """Turn labelled rows into tiered examples: negatives by conversation, topic and speaker where rows have them.

    Args:
        data: a file or rows, see `hins_memory.data.labelled`.
        encoder: decides which texts are near to a query.
        settings: the miner's. By default one user may have all examples.

    Raises:
        ConfigError: the data cannot be used.
        NotEnoughDataError: there are no rows.
    """
    return _mined(data, encoder, settings, None)


def _mined(data: Rows, encoder: Encoder, settings: MineSettings | None, stored: StoredVectors | None) -> MineResult:
    """Mine labelled rows; with a place for them, write all texts of each user there as stored vectors as well."""
    settings = settings or MineSettings(max_owner_share=1.0)
    logs = logs_of(read_rows(data))
    if stored is None:
        return mine(logs, encoder, settings, public_texts())
    with StoredVectorsWriter(stored.folder) as writer:

        def owners() -> Iterator[OwnerEvidence]:
            for log in logs:
                evidence = collect(log, encoder, settings, None)
                store_owner(writer, evidence, encoder, settings)
                yield evidence

        return mine(owners(), encoder, settings, public_texts())


def train_encoder(
    data: Rows,
    folder: str | Path,
    *,
    base: str | Path | Encoder = "starter",
    settings: TrainSettings | None = None,
    mining: MineSettings | None = None,
    progress: Progress | None = None,
) -> TrainResult:
    """Train an encoder on labelled questions and save it as a sentence-transformers folder.

    Args:
        data: a ``.csv``, ``.jsonl`` or ``.parquet`` file, or rows: mappings with ``query`` and ``positive``, and where
            they are known ``conversation``, ``speaker``, ``topic``, ``user`` and ``time`` (seconds since 1970). The
            tiers of HiNS come from these: without a conversation all other texts are easy negatives. A row
            without a query is a text that can be found.
        folder: where the model is written; must not exist or be empty.
        base: the encoder to start from: ``starter``, ``stock`` (all-MiniLM-L6-v2), a sentence-transformers folder, or
            an encoder that is loaded.
        settings: how to train.
        mining: how negatives are chosen.
        progress: called as (``train``, steps done, steps in all).

    Returns:
        The folder, and the description of the training for a manifest.

    Raises:
        ConfigError: the data cannot be used.
        NotEnoughDataError: there are fewer than 16 examples.
        TrainingError: the folder is not empty, the disk is full, or the loss is not a number any more.
        EncoderError: the base cannot be loaded.

    Example:
        >>> rows = [{"query": "Which instrument does Ann play?", "positive": "I play the oboe.", "speaker": "Ann"}, ...]
        >>> train_encoder(rows, "my-encoder")  # doctest: +SKIP
    """
    return _train(data, Path(folder), base, (settings, mining, GateSettings()), progress)


def _train(
    data: Rows,
    folder: Path,
    base: str | Path | Encoder,
    settings: tuple[TrainSettings | None, MineSettings | None, GateSettings],
    progress: Progress | None,
) -> TrainResult:
    """Train on labelled questions; the settings are the trainer's, the miner's and what may be forgotten."""
    from hins_memory.encoders.encoder import Encoder
    from hins_memory.registry.loader import shared_encoder
    from hins_memory.training import AuxiliaryData, train_encoder

    training, mining, gate = settings
    start = base if isinstance(base, Encoder) else shared_encoder(base)
    with tempfile.TemporaryDirectory(prefix="hins-stored-") as scratch:
        tower = training is not None and training.mode == "tower"
        stored = StoredVectors(Path(scratch) / "stored") if tower else None
        mined = _mined(data, start, mining, stored)
        auxiliary = AuxiliaryData(general_loss=gate.general_loss_in_training, stored=stored)
        auxiliary = auxiliary.with_packaged_sets(gate.skills)
        return train_encoder(
            mined.examples, folder, base=start, settings=training, auxiliary=auxiliary, progress=progress
        )


def train_version(
    data: Rows, settings: Settings, loop: LoopSettings, progress: Progress | None = None
) -> EncoderVersion:
    """Train on labelled questions and register the result as a version of a project.

    Args:
        data: a file or rows, see `train_encoder`.
        settings: the project.
        loop: how to mine and to train; one user may have all examples.
        progress: called as (``train``, steps done, steps in all).

    Raises:
        HinsError: as for `train_encoder`.
    """
    from hins_memory.registry.loader import EncoderSource
    from hins_memory.registry.registry import Registry
    from hins_memory.training.run import scratch_folder

    registry = Registry(settings)
    base = EncoderSource(registry).initial_name() if loop.base is None else loop.base
    chosen = (loop.train, replace(loop.mine, max_owner_share=1.0), loop.gate)
    with scratch_folder(settings.training) as folder:
        trained = _train(data, folder / "model", base, chosen, progress)
        return registry.add(trained.folder, trained.manifest)


def labelled_sets(data: Rows) -> list[EvalSet]:
    """Return labelled rows as evaluation sets, one a user: questions over all texts of that user.

    Raises:
        ConfigError: the data cannot be used.
        NotEnoughDataError: no row has a query.
    """
    sets = []
    for log in logs_of(read_rows(data)):
        documents = {memory.id: memory.text for memory in log.memories}
        queries = tuple(
            EvalQuery(one.query, frozenset(result.memory_id for result in one.results)) for one in log.retrievals
        )
        sets.append(EvalSet(log.scope.user, documents, queries))
    if not any(one.queries for one in sets):
        raise NotEnoughDataError("No row has a query.", "Give questions in the column `query`.")
    return sets


@dataclass(frozen=True, slots=True)
class Comparison:
    """Encoders on the same questions.

    Attributes:
        scores: each encoder's scores of every question, by the name that it was given by.
        gains: the paired difference of nDCG@10 with the first encoder, by name; the first is left out.
    """

    scores: dict[str, RankingScores]
    gains: dict[str, BootstrapResult]

    def to_dict(self) -> dict[str, Any]:
        """Return means, differences and intervals as JSON-able values, 0 to 1."""
        return {
            name: scores.mean() | ({"gain": asdict(self.gains[name])} if name in self.gains else {})
            for name, scores in self.scores.items()
        }


def compare_encoders(data: Rows, encoders: Mapping[str, str | Path]) -> Comparison:
    """Score encoders on labelled questions of one's own.

    Args:
        data: a file or rows, see `train_encoder`.
        encoders: what `Encoder.load` takes, by the name to report it by; the others are compared with the first.

    Raises:
        ConfigError: the data cannot be used.
        NotEnoughDataError: no row has a query.
        EncoderError: an encoder cannot be loaded.
    """
    from hins_memory.registry.loader import shared_encoder

    sets = labelled_sets(data)
    scores = {name: evaluate_encoder(shared_encoder(place), sets) for name, place in encoders.items()}
    first, *rest = scores
    gains = {name: paired_bootstrap(scores[name].ndcg[_K], scores[first].ndcg[_K]) for name in rest}
    return Comparison(scores, gains)
