"""One part of an attached Memoryos (a memory with a file): its encoder, its lock, its atomic saving."""

from __future__ import annotations

import logging
import weakref
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from hins_adapter_memoryos.embedding import Operation, current_operation, running
from hins_adapter_memoryos.encoders import FrameworkEncoder
from hins_adapter_memoryos.files import encodable
from hins_memory.sdk.json_files import DamagedFileError, read_json, set_aside, write_json
from hins_memory.sdk.rw_lock import FlipLock
from hins_memory.sdk.vector_files import Entry
from hins_memory.types import Role

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from hins_adapter_memoryos.agent import MemoryosAgent
    from hins_adapter_memoryos.recorder import MemoryosRecorder
    from hins_memory.sdk.binding_agent import Binding

__all__ = ["Part", "PartKind", "part_of"]

logger = logging.getLogger(__name__)

PartKind = Literal["short", "mid", "long"]
_SLOT = "_hins"


def part_of(component: Any) -> Part:
    """Return what hins-memory keeps in a part of an attached Memoryos."""
    part: Part = component.__dict__[_SLOT]
    return part


class Part:
    """What hins-memory keeps in a short-, mid- or long-term memory object.

    Args:
        component: MemoryOS's object.
        kind: which of the three it is.
        agent: the store that its file is in.
        recorder: records what happens to it.
    """

    def __init__(self, component: Any, kind: PartKind, agent: MemoryosAgent, recorder: MemoryosRecorder) -> None:
        self.kind = kind
        self.agent = agent
        self.recorder = recorder
        self.path = Path(component.file_path)
        #: the encoder of the vectors in the object; not used for short-term memory, which has none
        self.binding = agent.own
        self.lock = FlipLock()
        self.original = type(component)
        self._component = weakref.ref(component)

    def install(self, component: Any, attached: type) -> None:
        """Change the component's class to an attached one."""
        component.__dict__[_SLOT] = self
        component.__class__ = attached

    def uninstall(self, component: Any) -> None:
        """Restore the component's class."""
        component.__class__ = self.original
        del component.__dict__[_SLOT]

    @property
    def searching(self) -> Binding:
        """What searches use: queries are embedded by the user's own encoder, where there is one over these vectors."""
        owner = self.recorder.owner
        return self.binding if owner is None else self.agent.scoped(self.binding, owner)

    @property
    def version(self) -> str:
        """The encoder version that embeds its queries; "" for MemoryOS's own encoder."""
        return self.searching.version

    @contextmanager
    def operation(self, role: Role) -> Iterator[None]:
        """Use one encoder inside the block; a flip waits until its end. May be nested."""
        outer = current_operation()
        if outer is not None and outer.part is self:
            with running(Operation(self, outer.encoder, role)):
                yield
        else:
            if outer is None:
                self.agent.refresh_if_due()
            with self.lock.shared():
                binding = self.searching if role == "query" else self.binding
                with running(Operation(self, binding.encoder, role)):
                    yield

    def embed(self, text: str) -> NDArray[np.float32]:
        """Return the unit vector of a query with the part's encoder, shape (dim,)."""
        encoder = self.searching.encoder
        if isinstance(encoder, FrameworkEncoder):
            return encoder.embed(text)
        vector: NDArray[np.float32] = encoder.encode([encodable(text)], role="query")[0]
        return vector

    def document(self) -> Any:
        """Return what MemoryOS saves of the object, with the mark of the encoder if it is not MemoryOS's own."""
        component = self._component()
        if component is None:
            return None
        if self.kind == "short":
            return list(component.memory)
        document: dict[str, Any]
        if self.kind == "mid":
            document = {"sessions": component.sessions, "access_frequency": dict(component.access_frequency)}
        else:
            document = {
                "user_profiles": component.user_profiles,
                "knowledge_base": list(component.knowledge_base),
                "assistant_knowledge": list(component.assistant_knowledge),
            }
        return self.agent.files.marked(document, self.binding.space)

    def entries(self) -> list[Entry]:
        """Return what has a vector in the object."""
        document = self.document()
        return list(self.agent.files.entries_in(document)) if isinstance(document, Mapping) else []

    def save(self) -> None:
        """Save as MemoryOS does, but in one step; like MemoryOS, report a failure and go on."""
        with self.operation("document"):
            try:
                with self.agent.files.lock(self.path):
                    write_json(self.path, self.document())
            except (OSError, ValueError, TypeError, RuntimeError) as error:
                logger.error("%s could not be saved and is as it was before: %s", self.path, error)
                return
        if self.kind != "short":
            self.agent.copy_to_shadow(self)

    def set_aside_if_damaged(self) -> None:
        """Move the file out of the way of the next save, if it is damaged."""
        try:
            with self.agent.files.lock(self.path):
                try:
                    read_json(self.path, list) if self.kind == "short" else self.agent.files.checked(self.path)
                except DamagedFileError as error:
                    set_aside(self.path, f"{error}. MemoryOS would start empty and overwrite it")
                    self._empty_if_misshapen()
        except OSError as error:
            logger.warning("%s could not be checked: %s", self.path, error)

    def _empty_if_misshapen(self) -> None:
        """Empty the object, as MemoryOS begins, if it loaded content from a damaged file that it cannot use."""
        component, problem = self._component(), self.agent.files.problem
        if component is None or self.kind == "short":
            return
        if self.kind == "mid" and problem({"sessions": component.sessions}):
            component.sessions, component.access_frequency, component.heap = {}, defaultdict(int), []
        if self.kind == "long":
            for held in (component.knowledge_base, component.assistant_knowledge):
                if problem({"knowledge_base": list(held)}):
                    held.clear()
