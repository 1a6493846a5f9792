"""A reader without a language model: the best span of the memories, by a transformers question-answering model."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hins_memory.errors import ConfigError
from hins_memory.llm import ReplyCache
from parts.qa.readers import NO_INFORMATION

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["DEFAULT_EXTRACTIVE", "ExtractiveReader"]

#: A SQuAD 2 model: it may also find that there is no answer.
DEFAULT_EXTRACTIVE = "deepset/minilm-uncased-squad2"

_QUESTION_TOKENS = 64
_WINDOW, _STRIDE, _BATCH = 384, 128, 16
_LONGEST_ANSWER = 30  # tokens


class ExtractiveReader:
    """A transformers question-answering model: the best span of the memories, or `NO_INFORMATION`.

    The memories are joined and read in overlapping windows. Where the model scores "no answer" over every span, as
    models trained on SQuAD 2 can, it abstains.

    Args:
        name_or_dir: a folder with a question-answering model, or a name of the hub.
        cache: where answers are kept; None keeps none.

    Raises:
        ConfigError: there is no such model, or it is not one for question answering.
    """

    workers = 1

    def __init__(self, name_or_dir: str, cache: ReplyCache | None = None) -> None:
        from transformers import AutoModelForQuestionAnswering, AutoTokenizer

        self.name = f"extractive:{name_or_dir}"
        try:
            self._model, info = AutoModelForQuestionAnswering.from_pretrained(
                name_or_dir, output_loading_info=True, use_safetensors=True, trust_remote_code=False
            )
            self._tokenizer: Any = AutoTokenizer.from_pretrained(name_or_dir, trust_remote_code=False)
        except (OSError, ValueError, KeyError) as error:
            raise ConfigError(
                f"The question-answering model {name_or_dir!r} cannot be loaded: {error}",
                "Name a folder that holds one, or check the name and the network.",
            ) from error
        if info["missing_keys"]:
            raise ConfigError(
                f"{name_or_dir!r} does not answer questions: it lacks {', '.join(sorted(info['missing_keys']))}.",
                "Use one that was trained on SQuAD or the like.",
            )
        self._model.eval()
        self._identity = _model_identity(name_or_dir, self._model)
        self._cache = cache
        self._lock = threading.Lock()

    def read(self, question: str, memories: Sequence[str]) -> str:
        """Return the best span; see `Reader`."""
        asked = {"reader": self._identity, "question": question, "memories": list(memories)}
        kept = self._cache.get(asked) if self._cache is not None else None
        if kept is not None and isinstance(kept.get("text"), str):
            return str(kept["text"])
        with self._lock:
            text = self._best_span(question, "\n".join(memories)) or NO_INFORMATION
        if self._cache is not None:
            self._cache.put(asked, {"text": text})
        return text

    def _best_span(self, question: str, context: str) -> str:
        import torch

        if not context.strip():
            return ""
        # A question is cut by itself, so that there is always room for the memories.
        ids = self._tokenizer(question, add_special_tokens=False, truncation=True, max_length=_QUESTION_TOKENS)
        question = self._tokenizer.decode(ids["input_ids"])
        longest = min(_WINDOW, getattr(self._model.config, "max_position_embeddings", _WINDOW))
        encoded = self._tokenizer(
            question,
            context,
            truncation="only_second",
            max_length=longest,
            stride=min(_STRIDE, longest // 4),
            return_overflowing_tokens=True,
            return_offsets_mapping=True,
            padding=True,
            return_tensors="pt",
        )
        offsets = encoded.pop("offset_mapping").numpy()
        encoded.pop("overflow_to_sample_mapping", None)
        best, no_answer, span = -float("inf"), float("inf"), (0, 0)
        windows = len(offsets)
        for begin in range(0, windows, _BATCH):
            with torch.inference_mode():
                out = self._model(**{name: values[begin : begin + _BATCH] for name, values in encoded.items()})
            starts, ends = out.start_logits.float().numpy(), out.end_logits.float().numpy()
            for row, window in enumerate(range(begin, min(begin + _BATCH, windows))):
                inside = [part == 1 for part in encoded.sequence_ids(window)]
                # By SQuAD 2's rule, "no answer" is as likely as in the window that finds it the least so.
                no_answer = min(no_answer, float(starts[row][0] + ends[row][0]))
                score, first, last = _best_of_window(starts[row], ends[row], inside)
                if score > best:
                    best, span = score, (int(offsets[window][first][0]), int(offsets[window][last][1]))
        return context[span[0] : span[1]].strip() if best > no_answer else ""


def _best_of_window(
    starts: NDArray[np.float32], ends: NDArray[np.float32], inside: Sequence[bool]
) -> tuple[float, int, int]:
    """Return the score, first and last token of the best span within the memories."""
    import numpy as np

    allowed = np.asarray(inside, dtype=bool)
    scores = np.where(allowed, starts, -np.inf)[:, None] + np.where(allowed, ends, -np.inf)[None, :]
    scores = np.where(
        np.triu(np.ones_like(scores)) - np.triu(np.ones_like(scores), _LONGEST_ANSWER) > 0, scores, -np.inf
    )
    first, last = divmod(int(scores.argmax()), scores.shape[1])
    return float(scores[first, last]), first, last


def _model_identity(name_or_dir: str, model: Any) -> str:
    """Return what tells this model from another one of the same name: its commit on the hub, or its weights' sum."""
    commit = getattr(model.config, "_commit_hash", None)
    if commit:
        return f"{name_or_dir}@{commit}"
    total = sum(float(values.double().abs().sum()) for values in model.state_dict().values())
    return f"{Path(name_or_dir).name}@{total:.6f}"
