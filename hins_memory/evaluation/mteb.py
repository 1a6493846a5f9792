"""An encoder as a model of MTEB (https://github.com/embeddings-benchmark/mteb), for any of its tasks."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hins_memory.encoders.encoder import DEFAULT_MODEL, Encoder
from hins_memory.errors import ConfigError
from hins_memory.types import Role

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["MtebModel", "mteb_model"]

_BATCH = 32


def mteb_model(encoder: Encoder | str | Path = DEFAULT_MODEL) -> MtebModel:
    """Return an encoder as a model that ``mteb.evaluate`` takes.

    Args:
        encoder: an `Encoder`, or what `Encoder.load` takes: an encoder version's folder, ``stock``, a model's name.

    Raises:
        ConfigError: mteb is not installed.
        EncoderError: the encoder cannot be loaded.

    Example:
        import mteb
        model = mteb_model("~/.hins/default/encoders/v0001-1a2b3c4d")
        mteb.evaluate(model, mteb.get_tasks(tasks=["LoCoMo"]))
    """
    return MtebModel(encoder if isinstance(encoder, Encoder) else Encoder.load(encoder))


class MtebModel:
    """An encoder behind MTEB's ``EncoderProtocol``: queries and documents are encoded in their own roles.

    Args:
        encoder: the encoder.
        revision: MTEB's second argument, unused: an encoder names its own version.
        options: others of MTEB's arguments, unused.

    Raises:
        ConfigError: mteb is not installed.
    """

    def __init__(self, encoder: Encoder, revision: str | None = None, **options: Any) -> None:
        try:
            from mteb.models import ModelMeta
        except ImportError as error:
            raise ConfigError(
                f"MTEB cannot be imported: {error}.", 'Install it with: pip install "hins-memory[mteb]"'
            ) from error
        from mteb.models.model_meta import ScoringFunction

        self.encoder = encoder
        # MTEB's names are organization/model, and its results go to folders of that name.
        name = re.sub(r"[^A-Za-z0-9._@-]+", "_", encoder.version)
        self.mteb_model_meta: Any = ModelMeta.create_empty(
            {
                "name": f"hins-memory/{name}",
                "revision": name,
                "embed_dim": encoder.dim,
                "max_tokens": encoder.model.max_seq_length,
                "similarity_fn_name": ScoringFunction.COSINE,
                "framework": ["Sentence Transformers", "PyTorch"],
                "languages": [],
            }
        )

    def encode(
        self,
        inputs: Iterable[Mapping[str, Any]],
        *,
        task_metadata: Any = None,
        hf_split: str = "",
        hf_subset: str = "",
        prompt_type: Any = None,
        **options: Any,
    ) -> NDArray[np.float32]:
        """Encode MTEB's batches, each with its texts under ``text``.

        Args:
            inputs: the batches.
            task_metadata: unused, as are `hf_split` and `hf_subset`.
            hf_split: see there.
            hf_subset: see there.
            prompt_type: ``query`` for the side that asks; anything else is a document.
            options: ``batch_size``; the rest is unused.

        Returns:
            float32 array of shape (number of texts, dim), each row of length 1.
        """
        texts = [str(text) for batch in inputs for text in batch["text"]]
        # MTEB's is an enum of strings.
        role: Role = "query" if str(getattr(prompt_type, "value", prompt_type)) == "query" else "document"
        return self.encoder.encode(texts, role=role, batch_size=int(options.get("batch_size") or _BATCH))

    def similarity(self, left: Any, right: Any) -> Any:
        """Return the cosines of all pairs, a tensor of shape (len(left), len(right))."""
        from mteb.similarity_functions import cos_sim

        return cos_sim(left, right)

    def similarity_pairwise(self, left: Any, right: Any) -> Any:
        """Return the cosine of each row with the same row, a tensor of shape (len(left),)."""
        from mteb.similarity_functions import pairwise_cos_sim

        return pairwise_cos_sim(left, right)
