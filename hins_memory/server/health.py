"""`/health`: whether the server lives, and whether it can answer at once. These routes alone need no key."""

from __future__ import annotations

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse

from hins_memory.server.state import state_of

__all__ = ["router"]

router = APIRouter(tags=["health"])


@router.get("/health/live")
def live() -> dict[str, str]:
    """Say that the process runs."""
    return {"status": "live"}


@router.get("/health")
@router.get("/health/ready")
def ready(request: Request) -> JSONResponse:
    """Say whether the encoder that serves is loaded; 503 until it is."""
    is_ready = state_of(request).ready
    return JSONResponse({"status": "ready" if is_ready else "loading"}, status_code=200 if is_ready else 503)
