"""What hins-memory keeps in an attached object of a framework, and the class and methods that such an object gets."""

from __future__ import annotations

from dataclasses import dataclass
from inspect import iscoroutinefunction
from typing import Any

from hins_memory.config import Settings
from hins_memory.errors import AgentError
from hins_memory.sdk.recorder import AgentTurn, Recorder

__all__ = [
    "ATTACHMENT_SLOT",
    "Attachment",
    "BindingComponent",
    "OutcomeMethods",
    "attached_class",
    "attachment_of",
    "attachment_to_detach",
    "checked_async",
    "super_of",
]

#: The name under which an object's `__dict__` holds its attachment.
ATTACHMENT_SLOT = "_hins"
_MARK = "_hins_attached"
_attached_classes: dict[tuple[type, type], type] = {}


@dataclass(kw_only=True)
class Attachment:
    """What hins-memory keeps in an object; adapters derive from it what their framework needs.

    Args:
        settings: the project.
        recorder: records what the object does.
        original: the class to go back to; None for an object that was made by hins-memory.
    """

    settings: Settings
    recorder: Recorder
    original: type | None = None

    def install(self, memory: Any) -> None:
        """Store this in an object."""
        memory.__dict__[ATTACHMENT_SLOT] = self

    def uninstall(self, memory: Any) -> None:
        """Remove this from an object, and give it back its class."""
        del memory.__dict__[ATTACHMENT_SLOT]
        if self.original is not None:
            memory.__class__ = self.original

    def close(self, memory: Any) -> None:
        """Write waiting events to the log and record nothing more; a second call does nothing.

        Args:
            memory: the object.
        """
        self.recorder.leave(self.settings)


def attached_class(original: type, methods: type) -> type:
    """Return the subclass of one of a framework's classes with the methods of another class; one for each pair.

    It has one base, and the methods are copied into it: Python lets an object change its class to such a subclass, but
    not to any with a second base. In these methods `super_of` is what `super` is elsewhere.
    """
    key = (original, methods)
    if key not in _attached_classes:
        namespace: dict[str, Any] = {_MARK: True, "__doc__": original.__doc__, "__module__": methods.__module__}
        for source in reversed(methods.__mro__[:-1]):
            namespace |= {name: value for name, value in vars(source).items() if not name.startswith("__")}
        _attached_classes[key] = type(f"Attached{original.__name__}", (original,), namespace)
    return _attached_classes[key]


def super_of(memory: Any) -> Any:
    """Return `super()` for the methods of an attached class."""
    attached = next(cls for cls in type(memory).__mro__ if _MARK in vars(cls))
    return super(attached, memory)


def attachment_of(memory: Any) -> Any:
    """Return the `Attachment` of an object, or None when it is not attached."""
    return getattr(memory, "__dict__", {}).get(ATTACHMENT_SLOT)


def attachment_to_detach(memory: Any) -> Any:
    """Return the attachment of an object that can be restored.

    Raises:
        AgentError: it is not attached, or was made by hins-memory, so that there is nothing to go back to.
    """
    attachment, kind = attachment_of(memory), type(memory).__name__
    if attachment is None:
        raise AgentError(f"This {kind} is not attached.", "There is nothing to undo.")
    if attachment.original is None:
        raise AgentError(
            f"This {kind} was made by hins-memory; there is nothing to go back to.",
            f"Make the framework's own {kind} instead, or turn capture off with capture=False.",
        )
    return attachment


def checked_async(memory: Any) -> Any:
    """Return a memory that records its use and whose search is awaited, for adapters that use another one's.

    Raises:
        AgentError: it is another object.
    """
    if attachment_of(memory) is None:
        raise AgentError(
            f"This {type(memory).__name__} is not attached.", "Give what hins_memory.attach returns, or an AsyncMemory."
        )
    if not iscoroutinefunction(memory.search):
        raise AgentError(f"The calls of this {type(memory).__name__} are not awaited.", "Give an AsyncMemory.")
    return memory


class OutcomeMethods:
    """The methods of an attached object that record the outcome of a search."""

    def answered(self, retrieval_id: str, text: str) -> None:
        """Record the text that the agent answered after a search.

        Args:
            retrieval_id: what the search returned as ``retrieval_id``; "" is ignored.
            text: the answer. Answers that the framework itself gives are recorded without this call.
        """
        self._hins_recorder.answered(retrieval_id, text)

    def feedback(self, memory_id: str, polarity: str, retrieval_id: str | None = None) -> None:
        """Record that a memory was or was not what a search should have found.

        Args:
            memory_id: the id that the log knows the memory by.
            polarity: ``POSITIVE`` or ``NEGATIVE``.
            retrieval_id: the search it is about; None means the latest that returned the memory.

        Raises:
            ConfigError: the polarity is something else.
        """
        self._hins_recorder.feedback(memory_id, polarity, retrieval_id)

    def turn(self) -> AgentTurn:
        """Return a context manager around one turn of the agent; see `AgentTurn`."""
        turn: AgentTurn = self._hins_recorder.turn()
        return turn

    @property
    def _hins_recorder(self) -> Any:
        attachment = attachment_of(self)
        return Recorder(None) if attachment is None else attachment.recorder


class BindingComponent:
    """An attribute of an attached object that comes from the running operation's binding.

    While the attachment has no ``agent``, it is the framework's own.

    Args:
        field: what it is called in the agent's `Binding`.
    """

    def __init__(self, field: str) -> None:
        self._field = field

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    def __get__(self, memory: Any, owner: type | None = None) -> Any:
        if memory is None:
            return self
        agent = getattr(attachment_of(memory), "agent", None)
        return memory.__dict__.get(self._name) if agent is None else getattr(agent.binding, self._field)

    def __set__(self, memory: Any, value: Any) -> None:
        memory.__dict__[self._name] = value
