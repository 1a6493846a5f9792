"""What the folder of an encoder version may hold: files of known kinds that are what their names say, and no others."""

from __future__ import annotations

import json
import os
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from hins_memory.common.strict_json import check_count, parse_json, read_bounded
from hins_memory.encoders.manifest import MANIFEST_NAME, check_names
from hins_memory.errors import EncoderError

__all__ = ["check_contents", "check_kinds", "file_names"]

# Every kind of file that sentence-transformers writes for a model with safetensors weights, MiniLM, BGE-M3 and
# Qwen3-Embedding among them. Whatever is not here, pickles and code above all, has no place in a version.
_TEXTS = frozenset({".md", ".txt", ".jinja"})
_SUFFIXES = _TEXTS | {".json", ".safetensors", ".model"}
# What a copy of a model of the hub may have beside those.
_TEXT_NAMES = frozenset({".gitattributes", ".gitignore", "LICENSE", "NOTICE"})
# Files of file managers: no program reads them, so they are ignored.
_IGNORED = frozenset({".DS_Store", "Thumbs.db", "desktop.ini"})
# The largest known tokenizer is 17 MB long.
_JSON_BYTES = 128 * 2**20
_TEXT_BYTES = 64 * 2**20
_VOCABULARIES = frozenset({"added_tokens.json", "tokenizer.json", "vocab.json"})
_NO_ADAPTER = "adapter_config.json"
# Names under which a configuration would have files read from outside the folder.
_ELSEWHERE = ("base_model_name_or_path", "model_name_or_path", "tokenizer_name_or_path")
# A SentencePiece model is a protobuf message that begins with its first piece, whose first field is its text.
_PIECE = b"\x0a"


def file_names(folder: Path) -> set[str]:
    """Return the relative paths of a version's files, but the manifest's; links are among them.

    Raises:
        OSError: a folder cannot be read.
    """

    def fail(error: OSError) -> None:
        raise error

    found: set[str] = set()
    for place, folders, files in os.walk(folder, onerror=fail):
        links = [name for name in folders if os.path.islink(os.path.join(place, name))]
        inner = Path(place).relative_to(folder)
        found |= {(inner / name).as_posix() for name in (*links, *files) if name not in _IGNORED}
    return found - {MANIFEST_NAME}


def check_kinds(names: Collection[str], what: str) -> None:
    """Make sure that names are those of an encoder version's files.

    Args:
        names: relative paths, without the manifest's.
        what: whose they are, for the message.

    Raises:
        EncoderError: one is not a proper name or of a kind that no version holds, or weights or ``modules.json`` are
            missing.
    """
    try:
        check_names(names)
    except ValueError as error:
        raise EncoderError(f"{what}: {error}.", "Rename it, or leave it out.") from error
    if "modules.json" not in names:
        raise EncoderError(
            f"{what} is not a sentence-transformers folder: modules.json is missing.",
            "Give the folder that SentenceTransformer.save wrote.",
        )
    for name in sorted(names):
        base = PurePosixPath(name)
        if base.name not in _TEXT_NAMES and (base.suffix not in _SUFFIXES or base.name.startswith(".")):
            raise EncoderError(
                f"{what} holds {name[:200]!r}, a kind of file that no encoder version needs; it may run code.",
                f"Keep safetensors weights, and files that end in {', '.join(sorted(_SUFFIXES))}.",
            )
        if base.name == _NO_ADAPTER:
            raise EncoderError(
                f"{what} holds {name!r}, which would load other weights beside its own.", "Merge the adapter first."
            )
    if not any(name.endswith(".safetensors") for name in names):
        raise EncoderError(f"{what} holds no safetensors weights.", "Save it with safe_serialization=True.")


def check_contents(folder: Path, names: Collection[str]) -> None:
    """Make sure that the files of a folder are what their names say, and name no code and no place outside it.

    Raises:
        EncoderError: one is not, or cannot be read.
    """
    for name in sorted(names):
        try:
            _check_file(folder / name)
        except (OSError, ValueError, RecursionError) as error:
            raise EncoderError(
                f"{folder / name} is not what its name says: {error}.", "Save the model again, or leave the file out."
            ) from error


def _check_file(path: Path) -> None:
    suffix = path.suffix
    if suffix == ".safetensors":
        _check_weights(path)
    elif suffix == ".json":
        content = read_bounded(path, _JSON_BYTES)
        if path.name in _VOCABULARIES:
            # Names and values are words, of whatever characters; they mean nothing.
            check_count(content)
            json.loads(content)
        else:
            _check_configuration(path.name, parse_json(content, limit=_JSON_BYTES))
    elif suffix in _TEXTS or path.name in _TEXT_NAMES:
        if b"\0" in (content := read_bounded(path, _TEXT_BYTES)):
            raise ValueError("it is not text: it holds a NUL character")
        content.decode("utf-8")
    else:
        with path.open("rb") as stream:
            start = stream.read(3)
        if start[:1] != _PIECE or start[2:] != _PIECE:
            raise ValueError("it is not a SentencePiece model")


def _check_weights(path: Path) -> None:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as tensors:
            tensors.keys()
    except SafetensorError as error:
        raise ValueError(f"it is not a safetensors file: {error}") from error


def _check_configuration(name: str, content: Any) -> None:
    if name == "modules.json":
        _check_modules(content)
    elif name == "router_config.json":
        types = content.get("types", {}) if isinstance(content, Mapping) else None
        if not isinstance(types, Mapping):
            raise ValueError("it does not say which modules it holds")
        for type_ in types.values():
            _check_type(type_)
    elif name == "wordembedding_config.json" and isinstance(content, Mapping):
        _check_type(content.get("tokenizer_class"))
    for key, value in _pairs(content):
        _check_setting(key, value)


def _check_modules(content: Any) -> None:
    if not isinstance(content, list) or not all(isinstance(module, Mapping) for module in content):
        raise ValueError("it is not a list of modules")
    for module in content:
        _check_type(module.get("type"))
        path = module.get("path")
        if not isinstance(path, str):
            raise ValueError("it does not say where a module is")
        if path:
            check_names([path])


def _check_type(type_: Any) -> None:
    if not isinstance(type_, str) or not type_.startswith("sentence_transformers."):
        raise ValueError(
            f"it names {str(type_)[:100]!r}, which is not a module of sentence-transformers and may run code"
        )


def _check_setting(key: str, value: Any) -> None:
    """Refuse settings that fetch code, weights or words from elsewhere, in some version of the libraries."""
    text = value if isinstance(value, str) else ""
    if key == "trust_remote_code" and value:
        raise ValueError("it asks for code from elsewhere (trust_remote_code)")
    if key in _ELSEWHERE and text:
        raise ValueError(f"it names files outside the folder ({key})")
    if key.endswith("attn_implementation") and "/" in text:
        raise ValueError(f"it names code from elsewhere ({key})")
    if key == "activation_function" and "." in text and not text.startswith("torch.nn."):
        raise ValueError(f"it names {text[:100]!r}, which is not an activation function of torch and may run code")


def _pairs(content: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(content, Mapping):
        for name, value in content.items():
            yield name, value
            yield from _pairs(value)
    elif isinstance(content, list):
        for value in content:
            yield from _pairs(value)
