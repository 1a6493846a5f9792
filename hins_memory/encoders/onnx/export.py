"""Writes an encoder as an ONNX graph: its transformer, pooling and last layers in one, texts cut by its tokenizer."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hins_memory.common.files import file_digest
from hins_memory.encoders.layers import layers
from hins_memory.encoders.onnx.record import GRAPH_NAME, TOKENIZER_NAME, Fidelity, OnnxRecord
from hins_memory.encoders.onnx.session import OnnxEncoder
from hins_memory.errors import EncoderError
from hins_memory.types import Role

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from hins_memory.encoders.encoder import Encoder

__all__ = ["compare_vectors", "export_graph", "packages"]

logger = logging.getLogger(__name__)

_OPSET = 17
_INPUTS = ("input_ids", "attention_mask", "token_type_ids")
# A file of ONNX holds at most 2 GiB.
_MAX_BYTES = 2**31 - 2**26
# Cosines between the vectors of the graph and of the encoder: rounding alone leaves 1 - 1e-6.
_LEAST_COSINE = 0.99999
_NO_LIMIT = 512
# What tokenizers treat in ways of their own, and lengths on both sides of a cut.
_TEXTS = (
    "Ann plays the cello.",
    "",
    "  Two  spaces,\ta tab\nand a line. ",
    "Ünïcödé, 谢谢, 🎻 and a\u0301 combining accent",
    "supercalifragilisticexpialidocious " * 3,
    "Bo: on day one we rowed across the lake, and lunch was cold. " * 60,
)


def export_graph(encoder: Encoder, folder: Path) -> OnnxRecord:
    """Write an encoder's queries, and its documents where both are embedded alike, to a new folder.

    Args:
        encoder: loaded for this alone: its transformer is changed.
        folder: made here.

    Returns:
        The record, which is in the folder too. The graph was compared with the encoder.

    Raises:
        EncoderError: the encoder has parts that cannot be exported, a package is missing, or the graph does not give
            the encoder's vectors.
    """
    modules, both = _modules(encoder)
    tokenizer = encoder.model.tokenizer
    _check(encoder, modules, tokenizer)
    folder.mkdir(parents=True)
    tokenizer.backend_tokenizer.save(str(folder / TOKENIZER_NAME))
    inputs = tuple(name for name in _INPUTS if name in tokenizer.model_input_names)
    # The graph computes in float32, so that a model in bfloat16 is compared as it is in float32.
    encoder.model.float()
    expected = {role: encoder.encode(_TEXTS, role=role) for role in _roles(both)}
    _write_graph(modules, tokenizer, inputs, folder / GRAPH_NAME)
    record = OnnxRecord(
        version=encoder.version,
        space=encoder.space,
        precision="fp32",
        dim=encoder.dim,
        documents=both,
        max_tokens=encoder.model.max_seq_length or _NO_LIMIT,
        prompts={role: _prompt(encoder, role) for role in _roles(both)},
        inputs=inputs,
        pad_token=str(tokenizer.pad_token),
        pad_id=int(tokenizer.pad_token_id),
        pad_left=tokenizer.padding_side == "left",
        cut_left=tokenizer.truncation_side == "left",
        files={name: file_digest(folder / name) for name in (GRAPH_NAME, TOKENIZER_NAME)},
        packages=packages("torch", "transformers", "sentence-transformers", "onnx", "onnxruntime"),
    )
    made = OnnxEncoder(folder, record)
    found = [compare_vectors(made.encode(_TEXTS, role=role), expected[role]) for role in _roles(both)]
    worst = min(found, key=lambda one: one.least_cosine)
    if not worst.least_cosine >= _LEAST_COSINE:
        raise EncoderError(
            f"The ONNX graph of {encoder.version} gives other vectors than it does itself: the cosine of a text with "
            f"itself is {worst.least_cosine:.6f}.",
            "Serve it with torch; please report which architecture it is.",
        )
    return record


def compare_vectors(ours: NDArray[np.float32], theirs: NDArray[np.float32]) -> Fidelity:
    """Return how near two sets of unit vectors of the same texts are, of shape (n, dim) each."""
    cosines = (ours * theirs).sum(axis=1)
    return Fidelity(texts=len(cosines), mean_cosine=float(cosines.mean()), least_cosine=float(cosines.min()))


def packages(*names: str) -> dict[str, str]:
    """Return the installed versions of packages; those that are not installed are left out."""
    found = {}
    for name in names:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def _roles(both: bool) -> tuple[Role, ...]:
    return ("query", "document") if both else ("query",)


def _modules(encoder: Encoder) -> tuple[list[Any], bool]:
    """Return the modules that queries go through, and whether documents go through the same."""
    Router = layers().Router
    found: list[Any] = []
    both = True
    # A tower begins with a router, a map of queries ends with one.
    for module in encoder.model.children():
        if isinstance(module, Router):
            found, both = [*found, *module.sub_modules["query"]], False
        else:
            found.append(module)
    return found, both


def _check(encoder: Encoder, modules: Sequence[Any], tokenizer: Any) -> None:
    reason = ""
    if not hasattr(modules[0], "auto_model"):
        reason = f"it begins with {type(modules[0]).__name__}, which is not a transformer"
    elif getattr(tokenizer, "backend_tokenizer", None) is None:
        reason = "its tokenizer has no form that the package tokenizers reads"
    elif tokenizer.pad_token_id is None:
        reason = "its tokenizer has no token for padding"
    elif any(not getattr(one, "include_prompt", True) for one in modules):
        reason = "its pooling leaves out the prompt"
    elif sum(one.numel() * 4 for one in modules[0].parameters()) > _MAX_BYTES:
        reason = "its weights are over 2 GiB in float32"
    if reason:
        raise EncoderError(f"{encoder.version} cannot be exported to ONNX: {reason}.", "Serve it with torch.")


def _prompt(encoder: Encoder, role: Role) -> str:
    """Return what sentence-transformers puts before a text of a role."""
    prompts = encoder.model.prompts
    names = ("query",) if role == "query" else ("document", "passage", "corpus")
    name = next((one for one in names if one in prompts), encoder.model.default_prompt_name)
    return prompts.get(name) or "" if name else ""


def _write_graph(modules: Sequence[Any], tokenizer: Any, inputs: tuple[str, ...], path: Path) -> None:
    import torch

    class Whole(torch.nn.Module):
        """From tokens to unit vectors."""

        def __init__(self) -> None:
            super().__init__()
            self.transformer, self.rest = modules[0].auto_model, torch.nn.ModuleList(modules[1:])

        def forward(self, *tensors: Any) -> Any:
            given = dict(zip(inputs, tensors, strict=True))
            output = self.transformer(**given, return_dict=True)
            features: Any = {**given, "token_embeddings": output[0]}
            for module in self.rest:
                features = module(features)
            return torch.nn.functional.normalize(features["sentence_embedding"], dim=-1)

    whole = Whole().cpu().float().eval()
    # The plain form of attention, whose nodes onnxruntime joins into one.
    whole.transformer.set_attn_implementation("eager")
    example = tokenizer(["Ann plays the cello.", "She does."], padding=True, return_tensors="pt")
    axes = {name: {0: "texts", 1: "tokens"} for name in inputs} | {"vectors": {0: "texts"}}
    try:
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.onnx.export(
                whole,
                tuple(example[name] for name in inputs),
                str(path),
                input_names=list(inputs),
                output_names=["vectors"],
                dynamic_axes=axes,
                opset_version=_OPSET,
                dynamo=False,
            )
    except ImportError as error:
        raise EncoderError(f"{error.name} is not installed.", 'pip install "hins-memory[onnx]"') from error
    except Exception as error:
        # The exporter raises errors of many kinds, for what it does not know.
        raise EncoderError(
            f"The encoder cannot be written as an ONNX graph: {type(error).__name__}: {error}", "Serve it with torch."
        ) from error
