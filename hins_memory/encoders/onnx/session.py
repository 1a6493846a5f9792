"""Embeds with an ONNX export. Nothing here imports torch, transformers or sentence-transformers."""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hins_memory.common.tracing import span
from hins_memory.encoders.cached import CachedEncoder, tokenizable
from hins_memory.encoders.onnx.record import GRAPH_NAME, TOKENIZER_NAME, OnnxRecord, read_record
from hins_memory.errors import EncoderError
from hins_memory.types import Role

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["OnnxEncoder"]


class OnnxEncoder(CachedEncoder):
    """Embeds as the encoder does that was exported, by onnxruntime on the CPU.

    Args:
        folder: what the export wrote.
        record: its record, checked.

    Raises:
        EncoderError: onnxruntime or tokenizers is not installed, or does not take the files.
    """

    def __init__(self, folder: Path, record: OnnxRecord) -> None:
        super().__init__(record.version, space=record.space)
        #: what the export says of itself
        self.record = record
        try:
            self._session, self._tokenizer = _session(folder / GRAPH_NAME), _tokenizer(folder, record)
        except ImportError as error:
            raise EncoderError(f"{error.name} is not installed.", 'pip install "hins-memory[onnx]"') from error
        except Exception as error:
            # Both libraries raise exceptions of their own kinds.
            raise EncoderError(
                f"{folder} cannot be loaded: {error}.", "Export the version again with `hins encoders export --onnx`."
            ) from error
        # A tokenizer pads in place; a session is safe with several threads, which then wait for the same cores.
        self._turn = threading.Lock()

    @classmethod
    def load(cls, folder: Path) -> OnnxEncoder:
        """Load an export.

        Raises:
            EncoderError: it is damaged, or what it needs is not installed.
        """
        return cls(folder, read_record(folder))

    @property
    def dim(self) -> int:
        """The length of the vectors."""
        return self.record.dim

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """Return how many tokens of each text the model reads, without those of a prompt."""
        with self._turn:
            return [sum(one.attention_mask) for one in self._tokenizer.encode_batch(tokenizable(texts))]

    def _forward(self, texts: list[str], role: Role, batch_size: int) -> NDArray[np.float32]:
        import numpy as np

        if role == "document" and not self.record.documents:
            raise EncoderError(
                f"The ONNX export of {self.version} embeds queries alone.", "Embed documents with the encoder itself."
            )
        prompt = self.record.prompts.get(role, "")
        texts = [prompt + text for text in tokenizable(texts)]
        vectors = np.empty((len(texts), self.dim), dtype=np.float32)
        # Texts of one length together, so that little is padded.
        order = sorted(range(len(texts)), key=lambda row: len(texts[row]))
        if self.record.precision == "int8":
            # The scale of 8 bits is that of a whole batch: a vector must not depend on what others ask meanwhile.
            batch_size = 1
        with span("hins.encode", version=self.version, role=role, texts=len(texts)), self._turn:
            for start in range(0, len(order), batch_size):
                rows = order[start : start + batch_size]
                vectors[rows] = self._run([texts[row] for row in rows])
        return vectors

    def _run(self, texts: list[str]) -> NDArray[np.float32]:
        """Return the vectors of texts that are padded to one length."""
        import numpy as np

        encoded = self._tokenizer.encode_batch(texts)
        # (n, tokens) each
        found = {
            "input_ids": [one.ids for one in encoded],
            "attention_mask": [one.attention_mask for one in encoded],
            "token_type_ids": [one.type_ids for one in encoded],
        }
        feed = {name: np.array(found[name], dtype=np.int64) for name in self.record.inputs}
        vectors: NDArray[np.float32] = self._session.run(None, feed)[0]
        return vectors


def _session(graph: Path) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    # It knows no OMP_NUM_THREADS, by which users say how many cores a process may have; 0 takes all.
    threads = os.environ.get("OMP_NUM_THREADS", "")
    options.intra_op_num_threads = int(threads) if threads.isdigit() else 0
    # Threads that spin for work, as onnxruntime has them do, take the cores from everything else in the process.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(str(graph), options, providers=["CPUExecutionProvider"])


def _tokenizer(folder: Path, record: OnnxRecord) -> Any:
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(folder / TOKENIZER_NAME))
    tokenizer.enable_truncation(record.max_tokens, direction="left" if record.cut_left else "right")
    tokenizer.enable_padding(
        direction="left" if record.pad_left else "right", pad_id=record.pad_id, pad_token=record.pad_token
    )
    return tokenizer
