"""What the folder of an ONNX export says of itself."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import ConfigDict, Field, Strict, TypeAdapter, ValidationError

from hins_memory.common.files import file_digest
from hins_memory.common.strict_json import read_bounded
from hins_memory.errors import EncoderError

__all__ = ["GRAPH_NAME", "RECORD_NAME", "TOKENIZER_NAME", "Fidelity", "OnnxRecord", "Precision", "read_record"]

#: The files of an export's folder.
RECORD_NAME, GRAPH_NAME, TOKENIZER_NAME = "hins_onnx.json", "model.onnx", "tokenizer.json"

_FORMAT = 1
_MAX_BYTES = 1 << 20

Precision = Literal["fp32", "int8"]
_Digest = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
_Input = Annotated[str, Field(pattern="^(input_ids|attention_mask|token_type_ids)$")]
_Id = Annotated[int, Strict(), Field(ge=0, lt=2**31)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Fidelity:
    """How near the exported queries are to those of the encoder itself.

    Attributes:
        texts: how many texts were compared.
        mean_cosine: between both vectors of a text.
        least_cosine: the lowest of them.
        queries: held-out queries that were ranked with both; 0 where that was not needed.
        before: nDCG@10 of the encoder itself on them; documents are its own in both cases.
        after: nDCG@10 with exported queries.
        low: lower end of the 95% interval of the difference.
        high: upper end of it.
    """

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    texts: int
    mean_cosine: float
    least_cosine: float
    queries: int = 0
    before: float | None = None
    after: float | None = None
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class OnnxRecord:
    """What an export is, and how texts are to be cut for it.

    Attributes:
        version: the encoder version that was exported.
        space: of the documents' vectors.
        precision: of the weights.
        dim: length of the vectors.
        documents: whether it embeds documents too; one with two sides, and one in int8, embeds queries alone.
        max_tokens: longer texts are cut.
        prompts: what stands before queries and documents.
        inputs: the graph's.
        pad_token: fills up a batch.
        pad_id: its number.
        pad_left: whether it is put before the text.
        cut_left: whether a long text loses its beginning.
        files: name -> SHA-256 of the graph and of the tokenizer.
        fidelity: how near it is to the encoder.
        packages: versions of what made it.
        format: of this record.
    """

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    version: str
    space: str
    precision: Precision
    dim: Annotated[int, Strict(), Field(ge=1, le=65_536)]
    documents: bool
    max_tokens: Annotated[int, Strict(), Field(ge=1, le=2**20)]
    prompts: Mapping[Literal["query", "document"], str]
    inputs: tuple[_Input, ...]
    pad_token: str
    pad_id: _Id
    pad_left: bool = False
    cut_left: bool = False
    files: Mapping[str, _Digest] = field(default_factory=dict)
    fidelity: Fidelity | None = None
    packages: Mapping[str, str] = field(default_factory=dict)
    format: Literal[1] = _FORMAT  # type: ignore[assignment]

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON values."""
        return asdict(self)

    def write(self, folder: Path) -> None:
        """Write it to a folder that holds all other files."""
        (folder / RECORD_NAME).write_text(json.dumps(self.to_dict(), indent=2, allow_nan=False), encoding="utf-8")


def read_record(folder: Path) -> OnnxRecord:
    """Return the record of an export's folder, after comparing the other files with its digests.

    Raises:
        EncoderError: it is not an export, or damaged.
    """
    try:
        content = read_bounded(folder / RECORD_NAME, _MAX_BYTES)
        record: OnnxRecord = TypeAdapter(OnnxRecord).validate_json(content)
        if record.files.keys() != {GRAPH_NAME, TOKENIZER_NAME}:
            raise ValueError("it does not list the graph and the tokenizer")
        for name, digest in record.files.items():
            if file_digest(folder / name) != digest:
                raise ValueError(f"{name} does not match its digest")
    except ValidationError as error:
        # Without the values.
        found = error.errors(include_url=False, include_input=False, include_context=False)[0]
        raise _damaged(folder, str(found["msg"])) from error
    except (OSError, ValueError) as error:
        raise _damaged(folder, str(error)) from error
    return record


def _damaged(folder: Path, why: str) -> EncoderError:
    return EncoderError(
        f"{folder} is not an ONNX export, or damaged: {why}.",
        "Make it again: `hins encoders export VERSION --onnx`; or remove the folder.",
    )
