"""The weights of an ONNX export in 8 bits."""

from __future__ import annotations

import logging
import shutil
from dataclasses import replace
from pathlib import Path

from hins_memory.common.files import file_digest
from hins_memory.encoders.onnx.record import GRAPH_NAME, TOKENIZER_NAME, OnnxRecord, read_record
from hins_memory.errors import EncoderError

__all__ = ["quantize_graph"]


def quantize_graph(source: Path, folder: Path) -> OnnxRecord:
    """Write an export again with the matrices in 8 bits, one scale for each row of results; it embeds queries alone.

    Values between layers are brought to 8 bits as they come, by the range that they have for a text. Weights have
    7 bits, so that no sum overflows on processors without VNNI and the vectors are the same everywhere
    (https://onnxruntime.ai/docs/performance/model-optimizations/quantization.html).

    Args:
        source: an export in float32.
        folder: made here. Its record has no fidelity yet.

    Raises:
        EncoderError: the export is damaged, or a package is missing.
    """
    record = read_record(source)
    folder.mkdir(parents=True)
    try:
        from onnxruntime.quantization import QuantType, quantize_dynamic
    except ImportError as error:
        raise EncoderError(f"{error.name} is not installed.", 'pip install "hins-memory[onnx]"') from error
    # It recommends a step, of which the graph has no need, to the root logger.
    root = logging.getLogger()
    root.addFilter(_no_advice)
    try:
        quantize_dynamic(
            source / GRAPH_NAME,
            folder / GRAPH_NAME,
            op_types_to_quantize=["MatMul"],
            per_channel=True,
            reduce_range=True,
            weight_type=QuantType.QInt8,
        )
    finally:
        root.removeFilter(_no_advice)
    shutil.copyfile(source / TOKENIZER_NAME, folder / TOKENIZER_NAME)
    digests = {name: file_digest(folder / name) for name in (GRAPH_NAME, TOKENIZER_NAME)}
    return replace(record, precision="int8", documents=False, files=digests)


def _no_advice(record: logging.LogRecord) -> bool:
    return "run pre-processing before quantization" not in record.getMessage()
