"""Imports by the module names of version 0.1: each still works and warns with the new name."""

from __future__ import annotations

import importlib
import importlib.abc
import importlib.machinery
import sys
import warnings
from collections.abc import Sequence
from types import ModuleType

__all__ = ["install"]

#: Where the modules that 0.1 documented are now.
MOVED = {
    "agent": "plugins.protocols",
    "capture": "log.capture",
    "encoder": "encoders.encoder",
    "encoder_source": "registry.loader",
    "evaluate": "evaluation",
    "gate": "evaluation.gate",
    "general": "evaluation.general",
    "hookspecs": "plugins.hookspecs",
    "html_report": "common.html",
    "log.database": "database.engine",
    "mine": "mining",
    "mteb_model": "evaluation.mteb",
    "pipeline": "loop.pipeline",
    "sample": "data.sample_conversations",
    "starter": "encoders.starter",
    "swap": "swapping",
    "sync": "swapping.sync",
    "synthesize": "synthesis",
    "train": "training",
}


class _Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Finds a module of 0.1 where it is now; the two names are one module object."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        """Return a spec for an old name or a module below one, None for every other."""
        if (new := _new_name(fullname)) is None:
            return None
        return importlib.machinery.ModuleSpec(fullname, self, loader_state=new)

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType:
        """Return the module under its new name."""
        warnings.warn(f"{spec.name} has moved: import {spec.loader_state}.", DeprecationWarning, stacklevel=2)
        module = importlib.import_module(spec.loader_state)
        # The import system is about to put the old name's spec there.
        spec.loader_state = module.__spec__
        return module

    def exec_module(self, module: ModuleType) -> None:
        """Give the module, which is loaded already, its own spec back."""
        if module.__spec__ is not None:
            module.__spec__ = module.__spec__.loader_state


def _new_name(name: str) -> str | None:
    """Return the new name of a module of 0.1, None when the name is not an old one."""
    package, _, old = name.partition(".")
    if package != "hins_memory":
        return None
    parts = old.split(".")
    for length in (2, 1):
        if new := MOVED.get(".".join(parts[:length])):
            return ".".join(("hins_memory", new, *parts[length:]))
    return None


def install() -> None:
    """Make the old names importable, once a process."""
    if not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        # First, because the path finder would load a second copy of what is below an old package.
        sys.meta_path.insert(0, _Finder())
