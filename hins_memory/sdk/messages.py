"""Chat messages as most frameworks take them, with a role and a content, as turns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from hins_memory.types import Scope, Turn, name_of, now

__all__ = ["message_turns"]

# Messages of one call get increasing times; a float can tell times of today apart that differ by this.
_STEP_SECONDS = 1e-6


def message_turns(messages: Any, scope: Scope) -> list[tuple[str, Turn]]:
    """Return (role, turn) for every message with a text; malformed messages are left out.

    The conversation is the scope: one run of an owner, or everything of the owner when no run is given.

    Args:
        messages: dicts with ``role``, ``content`` (a text, or the parts of a multimodal one) and perhaps ``name``; one
            such dict, or a text that the user said.
        scope: whose conversation it is.
    """
    if isinstance(messages, str):
        messages = [{"role": "user", "content": messages}]
    elif isinstance(messages, Mapping):
        messages = [messages]
    start = now()
    turns: list[tuple[str, Turn]] = []
    for message in messages if isinstance(messages, Sequence) else ():
        if not isinstance(message, Mapping):
            continue
        role, text = message.get("role"), _content_text(message.get("content"))
        # A system message is an instruction to the model, not something that was said.
        if not isinstance(role, str) or role == "system" or not text:
            continue
        # A name may be of any type.
        speaker = name_of(message.get("name") or None) or role
        if not speaker:
            continue
        time = start + len(turns) * _STEP_SECONDS
        turns.append((role, Turn(scope=scope, conversation=scope.key, speaker=speaker, text=text, time=time)))
    return turns


def _content_text(content: Any) -> str:
    """Return the text of a message: itself, or the text parts of a multimodal one joined by spaces."""
    if isinstance(content, str):
        return content
    if isinstance(content, Sequence):
        parts = [part.get("text") for part in content if isinstance(part, Mapping) and part.get("type") == "text"]
        return " ".join(part for part in parts if isinstance(part, str))
    return ""
