"""Hindsight's official hook, which is called after each operation: what it recalls and retains is recorded."""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar
from typing import Any

from hindsight_api.extensions import OperationValidatorExtension, ValidationResult

from hins_memory.config import Settings
from hins_memory.log.capture import never_raises
from hins_memory.sdk import AgentTurn, Recorder
from hins_memory.types import Deletion, Memory, RankedMemory, Retrieval, Scope

__all__ = ["HinsExtension", "in_front_of", "scope_of"]

_RECORDED = (
    *("on_recall_complete", "on_retain_complete", "on_memory_update_complete"),
    *("validate_reflect", "on_reflect_complete"),
)

# The turn of the running `reflect`, whose recalls are internal to Hindsight, as those of its consolidation are.
_reflecting: ContextVar[AgentTurn | None] = ContextVar("hins_hindsight_reflecting", default=None)


class HinsExtension(OperationValidatorExtension):  # type: ignore[misc]  # hindsight_api is not read by mypy
    """Records what an engine recalls, retains and reflects; it forbids nothing.

    Hindsight takes one such extension: where you have one of your own, derive it from this, and call `super`.

    Args:
        config: what Hindsight gives its extensions; nothing of it is read. The project is that of the environment.
        recorder: what records, for an engine that is attached.
        version: returns the encoder version that serves, for an engine that is attached.

    Example:
        HINDSIGHT_API_OPERATION_VALIDATOR_EXTENSION=hins_adapter_hindsight:HinsExtension hindsight-api
    """

    def __init__(
        self,
        config: dict[str, str] | None = None,
        recorder: Recorder | None = None,
        version: Callable[[], str] = str,
    ) -> None:
        super().__init__(config or {})
        self._own = Settings() if recorder is None else None
        #: what records
        self.recorder = Recorder().join(self._own) if self._own is not None else recorder or Recorder()
        self._version = version

    async def on_shutdown(self) -> None:
        """Write what waits to be recorded."""
        if self._own is not None:
            self.recorder.leave(self._own)

    async def validate_retain(self, ctx: Any) -> Any:
        """Allow it."""
        return ValidationResult.accept()

    async def validate_recall(self, ctx: Any) -> Any:
        """Allow it."""
        return ValidationResult.accept()

    async def validate_reflect(self, ctx: Any) -> Any:
        """Allow it; what it recalls is of one turn, until `on_reflect_complete`."""
        _reflecting.set(self.recorder.turn().__enter__())
        return ValidationResult.accept()

    async def on_reflect_complete(self, result: Any) -> None:
        """Record what was said as the answer to what was recalled for it."""
        self._reflected(result)

    async def on_recall_complete(self, result: Any) -> None:
        """Record a search, with what it found in order."""
        self._recalled(result)

    async def on_retain_complete(self, result: Any) -> None:
        """Record the memories that were made. The hook has only their ids: the texts are read from the bank."""
        ids = [id_ for made in result.unit_ids for id_ in made] if result.success else []
        for id_ in ids:
            await self._stored(result, id_)

    async def on_memory_update_complete(self, result: Any) -> None:
        """Record a memory with its new text, or that it is not valid any more."""
        if result.action == "invalidate":
            self._gone(result)
        elif result.action != "reason":
            await self._stored(result, result.memory_id)

    async def _stored(self, result: Any, id_: str) -> None:
        engine = self.context.get_memory_engine()
        unit = await engine.get_memory_unit(result.bank_id, id_, request_context=result.request_context)
        self._kept(result, unit or {})

    @never_raises(None)
    def _kept(self, result: Any, unit: dict[str, Any]) -> None:
        scope = self._scope(result)
        if scope is not None and unit.get("text"):
            conversation = unit.get("document_id") or result.bank_id
            self.recorder.record(Memory(unit["id"], scope, conversation, unit["text"]))

    @never_raises(None)
    def _gone(self, result: Any) -> None:
        scope = self._scope(result)
        if scope is not None:
            self.recorder.record(Deletion(scope, result.memory_id))

    @never_raises(None)
    def _recalled(self, result: Any) -> None:
        scope = self._scope(result)
        of_an_agent = _reflecting.get() is not None or not result.request_context.internal
        if scope is None or not of_an_agent or not result.success or result.result is None:
            return
        found = tuple(
            RankedMemory(one.id, one.text, float(one.scores.final if one.scores else 1 / place))
            for place, one in enumerate(result.result.results, 1)
        )
        self.recorder.retrieved(Retrieval(scope, result.query, found, self._version()))

    @never_raises(None)
    def _reflected(self, result: Any) -> None:
        turn = _reflecting.get()
        if turn is not None:
            _reflecting.set(None)
            turn.answered(result.result.text if result.success and result.result else "")
            turn.__exit__()

    def _scope(self, result: Any) -> Scope | None:
        scope = scope_of(result.bank_id, result.request_context)
        if scope is None:
            self.recorder.left_out()
        return scope


def scope_of(bank_id: str, request_context: Any) -> Scope | None:
    """Return whose memories a bank has: the bank is a user of its tenant."""
    return Scope.of(user=bank_id, tenant=getattr(request_context, "tenant_id", None))


def in_front_of(theirs: Any, ours: HinsExtension) -> HinsExtension:
    """Let every hook of another extension be called, and ours after it; what it decides holds."""
    for name in dir(OperationValidatorExtension):
        if not name.startswith("_") and name not in ("context", "set_context"):
            decides = getattr(theirs, name)
            setattr(ours, name, _after(decides, getattr(ours, name)) if name in _RECORDED else decides)
    return ours


def _after(theirs: Any, ours: Any) -> Any:
    async def both(given: Any) -> Any:
        decided = await theirs(given)
        await ours(given)
        return decided

    return both
