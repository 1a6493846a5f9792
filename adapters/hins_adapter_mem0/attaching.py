"""Attaching to a Mem0 memory that exists already, and restoring it exactly."""

from __future__ import annotations

from typing import Any

import mem0

from hins_adapter_mem0.agent import Mem0Agent
from hins_adapter_mem0.attached import Mem0Attachment, attached_memory
from hins_adapter_mem0.opening import (
    open_attached_agent,
    open_own_agent,
    open_recording_agent,
    recorded_version,
)
from hins_adapter_mem0.recorder import Mem0Recorder
from hins_memory.config import Settings
from hins_memory.errors import AgentError
from hins_memory.sdk.attachment import attachment_of, attachment_to_detach
from hins_memory.sdk.opening import first_encoder, reembed
from hins_memory.sdk.options import AttachOptions

__all__ = ["agent_of", "attach", "attach_with", "detach", "is_memory"]


def is_memory(memory: Any) -> bool:
    """Return whether an object is a Mem0 memory that can be attached to."""
    return isinstance(memory, (mem0.Memory, mem0.AsyncMemory))


def attach(memory: Any, **options: Any) -> Any:
    """Make an existing `mem0.Memory` or `mem0.AsyncMemory` record its use, and embed with hins if asked.

    The object stays the same; what was stored with its own embedder stays too, in its own collections. Attaching
    again replaces the options. With an embedder and without ``reembed``, the store must be empty or served by hins.

    Args:
        memory: the memory.
        options: those of `AttachOptions`.

    Raises:
        AgentError: it is not a Mem0 memory, or the store holds memories of another encoder and `reembed` is false.
        ConfigError: an option is not valid.
    """
    return attach_with(memory, AttachOptions.of("mem0", options))


def attach_with(memory: Any, options: AttachOptions) -> Any:
    """`attach` with its options in one value."""
    if not is_memory(memory):
        raise AgentError(f"{type(memory).__name__} is not a Mem0 memory.", "Give a mem0.Memory or a mem0.AsyncMemory.")
    known = attachment_of(memory)
    if known is not None and known.original is None:
        return memory
    if known is not None:
        detach(memory)
    chosen = options.resolved_settings
    agent = _agent_for(memory, chosen, options)
    original = type(memory)
    recorder = Mem0Recorder().join(chosen, capture=options.capture)
    attachment = Mem0Attachment(settings=chosen, recorder=recorder, original=original, agent=agent)
    memory.__class__ = attached_memory(original)
    attachment.install(memory)
    return memory


def _agent_for(memory: Any, settings: Settings, options: AttachOptions) -> Mem0Agent | None:
    recorded = recorded_version(memory, settings)
    if options.embedder is None:
        if recorded:
            return open_attached_agent(memory, settings, "hins", options.model)
        return open_recording_agent(memory, settings)
    if recorded or not options.reembed:
        return open_attached_agent(memory, settings, options.embedder, options.model)
    agent = open_own_agent(memory, settings, options.model)
    reembed(agent, first_encoder(agent.encoders, options.embedder), agent.encoders.registry)
    return agent


def detach(memory: Any) -> Any:
    """Restore a memory exactly as it was before `attach`: its class, its embedder and its stores.

    Memories that were added while it embedded with hins stay in hins' own collections, and are there again when it is
    attached with hins again: in the memory's own collection they would be vectors of another encoder.

    Raises:
        AgentError: it is not attached, or it is a `Memory` of hins-memory, which cannot be detached.
    """
    attachment = attachment_to_detach(memory)
    attachment.close(memory)
    attachment.uninstall(memory)
    return memory


def agent_of(memory: Any) -> Mem0Agent | None:
    """Return the agent of an attached memory, opening one if it only captured so far; None if it is not attached."""
    attachment: Mem0Attachment | None = attachment_of(memory)
    if attachment is None:
        return None
    if attachment.agent is None:
        agent = open_own_agent(memory, attachment.settings)
        agent.join(memory)
        attachment.agent = agent
    return attachment.agent
