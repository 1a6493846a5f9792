"""Vectors beside a framework's own files, by space, kind and text."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from hins_memory.sdk.vector_cache import VectorCache


def test_vectors_are_kept_by_version(tmp_path: Path) -> None:
    cache = VectorCache(tmp_path, "v0001-abc")
    assert cache.get("pages", ["a"]) == {}
    assert not cache.path.exists()
    cache.put("pages", {"a": np.ones(3, np.float32), "b": np.zeros(3, np.float32)})
    cache.put("knowledge", {"a": np.full(2, 2, np.float32)})
    again = VectorCache(tmp_path, "v0001-abc")
    assert again.known("pages", [str(n) for n in range(2000)] + ["a", "b"]) == {"a", "b"}
    assert again.get("knowledge", ["a", "b"])["a"].tolist() == [2, 2]
    assert VectorCache(tmp_path, "").get("pages", ["a"]) == {}
    again.delete("pages", ["b", "c"])
    again.drop("pages")
    assert again.known("knowledge", ["a"]) == {"a"}
    again.drop("knowledge")
    assert not again.path.exists()
