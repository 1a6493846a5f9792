"""ONNX exports of an encoder; one in 8 bits only if it finds what the encoder finds, on held-out traffic of the log."""

from __future__ import annotations

import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from hins_memory.config import Settings
from hins_memory.database.engine import open_database
from hins_memory.encoders.onnx.export import compare_vectors, export_graph
from hins_memory.encoders.onnx.quantize import quantize_graph
from hins_memory.encoders.onnx.record import Fidelity, OnnxRecord
from hins_memory.encoders.onnx.session import OnnxEncoder
from hins_memory.encoders.onnx.sided import SidedEncoder
from hins_memory.encoders.starter import is_starter
from hins_memory.errors import ConfigError, EncoderError, GateError, NotEnoughDataError
from hins_memory.evaluation import paired_bootstrap
from hins_memory.evaluation.evaluate import evaluate_encoders
from hins_memory.evaluation.gate import K
from hins_memory.loop.data import LoopData, Progress
from hins_memory.loop.settings import LoopSettings
from hins_memory.loop.split import HeldOutSets
from hins_memory.mining.storage.evidence import EvidenceStore
from hins_memory.registry.loader import EncoderSource
from hins_memory.registry.onnx_exports import OnnxExports
from hins_memory.registry.registry import Registry

if TYPE_CHECKING:
    from hins_memory.encoders.encoder import Encoder
    from hins_memory.evaluation import EvalSet

__all__ = ["MOST_LOST", "OnnxExport", "check_fidelity", "export_onnx"]

#: How much nDCG@10 queries in 8 bits may lose, 0 to 1.
MOST_LOST = 0.003


@dataclass(frozen=True, slots=True)
class OnnxExport:
    """A finished export: its folder, and what it says of itself."""

    path: Path
    record: OnnxRecord


def export_onnx(
    settings: Settings,
    name: str,
    *,
    int8: bool = False,
    loop: LoopSettings | None = None,
    progress: Progress | None = None,
) -> OnnxExport:
    """Export an encoder of a project to ONNX, for `hins serve`; an export that is there already is returned.

    Args:
        settings: the project.
        name: an encoder version, ``stock`` or ``starter``, or what one of these is called in an index.
        int8: weights in 8 bits; it is made only if queries lose at most 0.3 points of nDCG@10 on the log's held-out
            conversations, and is measured again at each call.
        loop: settings of mining and of the gate; None means the project's.
        progress: called while the log is read.

    Raises:
        EncoderError: there is no such encoder, or it cannot be exported.
        NotEnoughDataError: the log holds too few held-out queries to judge 8 bits by.
        GateError: queries in 8 bits lose more. There is no int8 export then.
    """
    loop = loop or LoopSettings.from_file(settings.file())
    registry = Registry(settings)
    exports, source = OnnxExports(settings), EncoderSource(registry, loop.base)
    place = source.source(name) or (name if name == "stock" or is_starter(name) else None)
    if place is None:
        # Says which versions there are.
        place = registry.get(name).path
    version = _version_of(place)
    record = _intact(exports, version)
    if record is None:
        record = _made(exports, _fresh(place))
    if not int8:
        return OnnxExport(exports.path(version, "fp32"), record)
    return _export_int8(settings, loop, exports, _fresh(place), progress)


def check_fidelity(encoder: Encoder, queries: OnnxEncoder, held_out: list[EvalSet]) -> Fidelity:
    """Compare exported queries with the encoder's own, over documents that the encoder embeds.

    Args:
        encoder: what was exported.
        queries: the export.
        held_out: queries with known positives, at least one.
    """
    texts = list(dict.fromkeys(query.text for one in held_out for query in one.queries))
    ours, own = queries.encode(texts, role="query"), encoder.encode(texts, role="query")
    after, before = evaluate_encoders([SidedEncoder(queries, lambda: encoder), encoder], held_out, ks=(K,))
    found = paired_bootstrap(after.ndcg[K], before.ndcg[K], clusters=before.sets)
    return replace(
        compare_vectors(ours, own),
        queries=len(before),
        before=float(np.mean(before.ndcg[K])),
        after=float(np.mean(after.ndcg[K])),
        low=found.low,
        high=found.high,
    )


def _version_of(place: str | Path) -> str:
    from hins_memory.encoders.encoder import encoder_version

    return encoder_version(place)


def _fresh(place: str | Path) -> Encoder:
    """Load an encoder that nothing else uses, because an export changes it."""
    from hins_memory.encoders.encoder import Encoder

    return Encoder.load(place, device="cpu")


def _intact(exports: OnnxExports, version: str) -> OnnxRecord | None:
    try:
        return exports.find(version, "fp32")
    except EncoderError:
        # It is made again.
        return None


def _made(exports: OnnxExports, encoder: Encoder) -> OnnxRecord:
    folder = exports.new_folder()
    try:
        record = export_graph(encoder, folder)
        exports.add(folder, record)
        return record
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _export_int8(
    settings: Settings, loop: LoopSettings, exports: OnnxExports, encoder: Encoder, progress: Progress | None
) -> OnnxExport:
    version, folder = encoder.version, exports.new_folder()
    try:
        record = quantize_graph(exports.path(version, "fp32"), folder)
        found = _judged(settings, loop, encoder, OnnxEncoder(folder, record), progress)
        assert found.before is not None
        assert found.after is not None
        lost = found.before - found.after
        if lost > MOST_LOST:
            exports.remove(version, "int8")
            raise GateError(
                f"Queries of {version} in 8 bits lose {100 * lost:.2f} points of nDCG@{K} on {found.queries} held-out "
                f"queries ({100 * found.before:.2f} to {100 * found.after:.2f}), and may lose {100 * MOST_LOST:.1f}; "
                f"the mean cosine to the encoder's own is {found.mean_cosine:.4f}.",
                "Serve the export in fp32.",
            )
        record = replace(record, fidelity=found)
        return OnnxExport(exports.add(folder, record), record)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _judged(
    settings: Settings, loop: LoopSettings, encoder: Encoder, queries: OnnxEncoder, progress: Progress | None
) -> Fidelity:
    from hins_memory.training.run import scratch_folder

    engine = open_database(settings.database_url)
    data = LoopData(engine, loop, progress)
    trained: set[str] = set()
    for one in Registry(settings, engine).versions():
        if one.id == encoder.version:
            trained = set(one.manifest.trained_conversations)
            if one.manifest.scope:
                raise ConfigError(f"{one.id} is for {one.manifest.scope} alone.", "Export it without --int8.")
    with (
        scratch_folder(settings.training) as folder,
        EvidenceStore(folder, encoder, loop.mine) as evidence,
    ):
        data.collect(evidence)
        conversations = [one for one in data.labelled(evidence) if one.digest not in trained]
        held_out = [one for one in HeldOutSets(evidence, conversations, data.unit) if one.queries]
        count = sum(len(one.queries) for one in held_out)
        if count < loop.gate.min_queries:
            raise NotEnoughDataError(
                f"The log has {count} held-out queries with a known positive, and 8 bits are judged by at least "
                f"{loop.gate.min_queries}.",
                "Export without --int8, and again when there is more traffic.",
            )
        return check_fidelity(encoder, queries, held_out)
