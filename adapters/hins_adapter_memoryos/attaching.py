"""Attaching to a Memoryos that exists already, and restoring it."""

from __future__ import annotations

import os
import sqlite3
import weakref
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hins_adapter_memoryos import embedding
from hins_adapter_memoryos.agent import MemoryosAgent, open_agent
from hins_adapter_memoryos.attached import (
    Attached,
    AttachedLong,
    AttachedMid,
    AttachedRetriever,
    AttachedShort,
    AttachedUpdater,
)
from hins_adapter_memoryos.compat import Shape, is_memoryos, shape_of
from hins_adapter_memoryos.component import Part, PartKind
from hins_adapter_memoryos.encoders import FrameworkEncoder
from hins_adapter_memoryos.events import scope_of
from hins_adapter_memoryos.files import is_inside
from hins_adapter_memoryos.recorder import MemoryosRecorder
from hins_memory.errors import AgentError
from hins_memory.sdk.attachment import (
    Attachment,
    attached_class,
    attachment_of,
    attachment_to_detach,
)
from hins_memory.sdk.opening import record_framework_encoder, reembed
from hins_memory.sdk.options import AttachOptions

__all__ = ["MemoryosAttachment", "agent_of", "attach", "attach_with", "check_ids", "detach", "install"]

_MEMORIES: Mapping[str, tuple[PartKind, type]] = {
    "short_term_memory": ("short", AttachedShort),
    "mid_term_memory": ("mid", AttachedMid),
    "user_long_term_memory": ("long", AttachedLong),
    "assistant_long_term_memory": ("long", AttachedLong),
}
_HELPERS: Mapping[str, type] = {"retriever": AttachedRetriever, "updater": AttachedUpdater}


@dataclass(kw_only=True)
class MemoryosAttachment(Attachment):
    """What hins-memory keeps in a Memoryos; `helpers` are the classes of the parts without a file."""

    agent: MemoryosAgent
    recorder: MemoryosRecorder
    parts: dict[str, Part]
    shape: Shape
    helpers: dict[str, type] = field(default_factory=dict)
    restore_modules: Callable[[], object] = field(default=lambda: None)

    @property
    def searched_parts(self) -> list[Part]:
        """The parts whose content has vectors."""
        return [part for part in self.parts.values() if part.kind != "short"]

    def hook(self, memory: Any) -> None:
        """Change the classes of the memory's parts to attached ones, and store this in the memory."""
        for name, (_, methods) in _MEMORIES.items():
            component = getattr(memory, name)
            self.parts[name].install(component, attached_class(type(component), methods))
        for name, methods in _HELPERS.items():
            component = getattr(memory, name)
            self.helpers[name] = type(component)
            component.__class__ = attached_class(type(component), methods)
        embedding.install(self.shape.modules)
        # Also when the object is forgotten without being detached.
        self.restore_modules = weakref.finalize(memory, embedding.uninstall, self.shape.modules)
        self.install(memory)

    def unhook(self, memory: Any) -> None:
        """Restore the memory and its parts."""
        self.close(memory)
        self.agent.leave(self.parts.values())
        self.restore_modules()
        for name, original in self.helpers.items():
            getattr(memory, name).__class__ = original
        for name, part in self.parts.items():
            part.uninstall(getattr(memory, name))
        self.uninstall(memory)


def attach(memory: Any, **options: Any) -> Any:
    """Make an existing Memoryos record its use, save safely, and embed with hins if asked.

    The object stays the same. What MemoryOS stored with the stock encoder (its default) is served by it as it is.
    Attaching again replaces the options.

    Args:
        memory: the Memoryos, of memoryos-pro or of the newer source tree.
        options: those of `AttachOptions`.

    Raises:
        AgentError: it is not a Memoryos, or of an unknown version, or the store holds vectors of another encoder
            and `reembed` is false.
        ConfigError: an option is not valid.
    """
    return attach_with(memory, AttachOptions.of("memoryos", options))


def attach_with(memory: Any, options: AttachOptions) -> Any:
    """`attach` with its options in one value."""
    if not is_memoryos(memory):
        raise AgentError(f"{type(memory).__name__} is not a Memoryos.", "Give a memoryos.Memoryos.")
    known = attachment_of(memory)
    if known is not None and known.original is None:
        return memory
    original = type(memory) if known is None else known.original
    if known is not None:
        known.unhook(memory)
    install(memory, options, original)
    memory.__class__ = attached_class(type(memory), Attached)
    return memory


def install(memory: Any, options: AttachOptions, original: type | None) -> None:
    """Attach to the parts of a Memoryos; the caller changes the class of the object itself.

    Raises:
        AgentError: see `attach`; the parts are as they were then.
    """
    shape, settings = shape_of(memory), options.resolved_settings
    check_ids(memory.user_id, memory.assistant_id)
    own = FrameworkEncoder(shape.get_embedding, shape.model_name, shape.model_kwargs)
    root = Path(memory.data_storage_path).resolve()
    try:
        agent = open_agent(root, settings, own, options.model)
        missing = agent.choose_encoder(options.embedder, options.reembed)
        scope = scope_of(memory.user_id, memory.assistant_id)
        recorder = MemoryosRecorder(None, scope).join(settings, capture=options.capture)
        parts = {name: Part(getattr(memory, name), kind, agent, recorder) for name, (kind, _) in _MEMORIES.items()}
        attachment = MemoryosAttachment(
            settings=settings, recorder=recorder, original=original, agent=agent, parts=parts, shape=shape
        )
        for part in parts.values():
            part.set_aside_if_damaged()
        attachment.hook(memory)
        try:
            agent.join(attachment.searched_parts, shape.clear_cache)
            if missing is not None:
                reembed(agent, missing, agent.encoders.registry)
        except BaseException:
            attachment.unhook(memory)
            raise
    except (OSError, sqlite3.Error) as error:
        raise AgentError(
            f"The store {root} cannot be written: {error}", "Check that it is writable and that the disk is not full."
        ) from error


def check_ids(*ids: Any) -> None:
    """Check ids from which MemoryOS makes paths.

    Raises:
        AgentError: one leads out of the store, to files of another user.
    """
    for id_ in ids:
        if isinstance(id_, (str, os.PathLike)) and not is_inside(id_):
            raise AgentError(
                f"MemoryOS would keep the files of {str(id_)!r} outside of the folder for them.",
                "Use an id that is not an absolute path and has no '..' in it.",
            )


def detach(memory: Any) -> Any:
    """Restore a Memoryos as it was before `attach`: its classes, and its vectors, in the objects and in its files.

    What was added since gets vectors of MemoryOS's own encoder. The store stays swapped for its other users, and for
    this one when it is attached again.

    Raises:
        AgentError: it is not attached, or it is a `Memoryos` of this package, or MemoryOS's own encoder is needed
            and cannot be loaded; then it stays attached.
    """
    attachment: MemoryosAttachment = attachment_to_detach(memory)
    attachment.agent.release(attachment.searched_parts)
    attachment.unhook(memory)
    return memory


def agent_of(memory: Any) -> MemoryosAgent | None:
    """Return the agent of an attached Memoryos, ready to be swapped; None when it is not attached."""
    attachment: MemoryosAttachment | None = attachment_of(memory)
    if attachment is None:
        return None
    record_framework_encoder(attachment.agent, attachment.agent.encoders.registry)
    return attachment.agent
