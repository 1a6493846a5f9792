"""Saves Mem0's faiss stores in one step: after a killed write, the store is as before it or as after it.

Mem0 writes an index and its payloads to two files in place, and only logs when it cannot; it updates a row by a saved
deletion and a saved insertion.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from hins_memory.errors import AgentError
from hins_memory.sdk.file_groups import FileGroup
from hins_memory.sdk.flat_faiss import stored_vectors

__all__ = ["finish_faiss", "forget_faiss", "prepare_faiss", "release_faiss", "start_faiss"]

_ENDINGS = (".faiss", ".json")
# The methods of a store that are replaced.
_METHODS = ("_save", "update", "reset")


def start_faiss(config: Any, collection: str) -> None:
    """Make the files of a collection that is not there yet, empty, so that Mem0 finds both and writes neither.

    Args:
        config: Mem0's configuration of the store.
        collection: its name.

    Raises:
        OSError: the folder is not writable.
        AgentError: there are vectors without the texts that they belong to; Mem0 would write over them.
    """
    import faiss

    if not config.path:
        return
    folder = Path(config.path)
    vectors, listed = _files(folder, collection).paths
    if (listed.exists() and vectors.exists()) or (folder / f"{collection}.pkl").exists():
        return
    if vectors.exists() and faiss.read_index(str(vectors)).ntotal:
        raise AgentError(f"{vectors} has vectors, but {listed} is missing.", "Restore both from a backup.")
    flat = faiss.IndexFlatL2 if config.distance_strategy.lower() == "euclidean" else faiss.IndexFlatIP
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    _write(folder, collection, flat(config.embedding_model_dims), {}, {})


def finish_faiss(folder: str, collection: str) -> None:
    """Finish a save that was killed between its two files; to be called before Mem0 reads them."""
    _files(folder, collection).finish()


def prepare_faiss(raw: Any) -> None:
    """Make one of Mem0's faiss stores save both of its files or none, and check that it could read what is there.

    Raises:
        AgentError: the files are damaged or do not belong together; Mem0 would go on with an empty store.
    """
    if raw.index is None or not raw.path:
        return
    vectors, listed = _files(raw.path, raw.collection_name).paths
    try:
        stored = len(json.loads(listed.read_text(encoding="utf-8"))["index_to_id"]) if listed.exists() else 0
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise AgentError(f"{listed} is damaged: {error}", "Restore it and the .faiss file from a backup.") from error
    if not stored == len(raw.index_to_id) == raw.index.ntotal:
        raise AgentError(
            f"{vectors} has {raw.index.ntotal} vectors, but {listed} names {stored}.", "Restore both from a backup."
        )
    raw._save = partial(_save, raw)
    raw.update = partial(_update, raw)
    raw.reset = partial(_reset, raw)


def release_faiss(raw: Any) -> None:
    """Restore the methods of a store that `prepare_faiss` replaced."""
    for name in _METHODS:
        vars(raw).pop(name, None)


def forget_faiss(raw: Any) -> None:
    """Remove the files that a killed save left, for a collection that is dropped."""
    _files(raw.path, raw.collection_name).forget()


def _update(raw: Any, vector_id: str, vector: Any = None, payload: Mapping[str, Any] | None = None) -> None:
    """Update a row as Mem0 does, but in its place and with one save."""
    import faiss
    import numpy as np

    if vector_id not in raw.docstore:
        raise ValueError(f"Vector {vector_id} not found")
    if vector is not None:
        row = np.array(vector, dtype=np.float32).reshape(1, -1)
        if row.shape[1] != raw.index.d:
            raise ValueError(f"The vector has {row.shape[1]} numbers, not {raw.index.d}")
        if raw._should_normalize():
            faiss.normalize_L2(row)
        stored = stored_vectors(raw.index)
        for place in [place for place, id_ in raw.index_to_id.items() if id_ == vector_id]:
            stored[place] = row[0]
    if payload is not None:
        raw.docstore[vector_id] = dict(payload)
    raw._save()


def _reset(raw: Any) -> None:
    """Delete every row as Mem0 does, but with one save."""
    raw.index.reset()
    raw.docstore, raw.index_to_id = {}, {}
    raw._save()


def _save(raw: Any) -> None:
    """Save as Mem0 does, but both files or none, and with an error when that is not possible.

    Raises:
        OSError: the disk is full or not writable; the files and the store are as they were before.
    """
    folder, name = Path(raw.path), raw.collection_name
    try:
        _write(folder, name, raw.index, raw.docstore, raw.index_to_id)
    except OSError:
        # The store in memory must agree with the files, so it is loaded again.
        raw._load(f"{folder}/{name}.faiss", f"{folder}/{name}.pkl")
        raise


def _write(folder: Path, name: str, index: Any, payloads: Mapping[str, Any], names: Mapping[int, str]) -> None:
    import faiss

    listed = {"docstore": payloads, "index_to_id": {str(place): id_ for place, id_ in names.items()}}
    _files(folder, name).write((faiss.serialize_index(index).tobytes(), json.dumps(listed, indent=2).encode()))


def _files(folder: str | Path, collection: str) -> FileGroup:
    return FileGroup(Path(folder), collection, _ENDINGS)
