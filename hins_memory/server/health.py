"""`/health`: whether the server lives, and whether it can answer. The only route that needs no key."""

from __future__ import annotations

from fastapi import APIRouter

__all__ = ["router"]

router = APIRouter(tags=["health"])


@router.get("/health")
def health() -> dict[str, str]:
    """Say that the server can answer."""
    return {"status": "ok"}
