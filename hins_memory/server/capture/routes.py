"""The endpoints of capture: /v1/retrievals, /v1/memories, /v1/turns, /v1/outcomes and /v1/deletions."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Sequence
from typing import Annotated, Any

from fastapi import APIRouter, Body, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute

from hins_memory.errors import HinsError
from hins_memory.server.capture.recording import ConflictError, QueueFullError, UnknownRetrievalError
from hins_memory.server.capture.schemas import (
    Batch,
    DeletionBody,
    EventBody,
    MemoryBody,
    OutcomeBody,
    Recorded,
    RetrievalBody,
    TurnBody,
    events_of,
)
from hins_memory.server.problems import ApiError
from hins_memory.server.state import state_of

__all__ = ["router"]

_STATUSES: dict[type[HinsError], int] = {ConflictError: 409, UnknownRetrievalError: 404, QueueFullError: 429}
_TAGS = {"event", "events", "answer", "feedback"}


class _CaptureRoute(APIRoute):
    """Answers 422 to events that are not valid, and says which field of which event is wrong."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()

        async def checked(request: Request) -> Response:
            try:
                return await handle(request)
            except RequestValidationError as error:
                # Without the input, which is what users said.
                first = error.errors()[0]
                where = [str(part) for part in first["loc"] if part != "body" and part not in _TAGS]
                param = ".".join(where) or None
                said = str(first["msg"]).removeprefix("Value error, ")
                raise ApiError(422, f"{param or 'The body'}: {said}. Nothing was recorded.", param=param) from error

        return checked


router = APIRouter(prefix="/v1", tags=["capture"], route_class=_CaptureRoute)
_REFUSALS: dict[int | str, dict[str, Any]] = {
    404: {"description": "An outcome of a search that is not in the log"},
    409: {"description": "The id of another event"},
    422: {"description": "Not valid; says which field, and what to do"},
    429: {"description": "The log's writer is behind: send it again after Retry-After"},
}


def _recorded(request: Request, bodies: Sequence[EventBody]) -> Recorded:
    recording = state_of(request).recording
    events = [(body.event(), body.timed) for body in bodies]
    try:
        done = recording.record(events)
    except (ConflictError, UnknownRetrievalError, QueueFullError) as error:
        status = _STATUSES[type(error)]
        codes = {404: "unknown_retrieval", 409: "conflict", 429: "queue_full"}
        headers = {"Retry-After": "1"} if status == 429 else {}
        raise ApiError(status, str(error), code=codes[status], headers=headers) from error
    ids = [event.id for event, _ in events if hasattr(event, "id")]
    return Recorded(recorded=done.recorded, known=done.known, ids=ids, capture=recording.on)


@router.post("/retrievals", responses=_REFUSALS)
def retrievals(request: Request, body: Annotated[Batch[RetrievalBody], Body()]) -> Recorded:
    """Record searches. The same id again with the same content is known; with other content it is refused."""
    return _recorded(request, events_of(body))


@router.post("/memories", responses=_REFUSALS)
def memories(request: Request, body: Annotated[Batch[MemoryBody], Body()]) -> Recorded:
    """Record what the agent stored. The same id of the same owner again is an update."""
    return _recorded(request, events_of(body))


@router.post("/turns", responses=_REFUSALS)
def turns(request: Request, body: Annotated[Batch[TurnBody], Body()]) -> Recorded:
    """Record what was said. The same id again with the same content is known; with other content it is refused."""
    return _recorded(request, events_of(body))


@router.post("/outcomes", responses=_REFUSALS)
def outcomes(request: Request, body: Annotated[Batch[OutcomeBody], Body()]) -> Recorded:
    """Record answers and feedback. Each names its search, which has to be in the log."""
    return _recorded(request, events_of(body))


@router.post("/deletions", responses=_REFUSALS)
def deletions(request: Request, body: Annotated[Batch[DeletionBody], Body()]) -> Recorded:
    """Record that the agent deleted memories. They stay in the log, marked; `hins log purge` removes a person."""
    return _recorded(request, events_of(body))
