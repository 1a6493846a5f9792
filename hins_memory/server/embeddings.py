"""`/v1/embeddings` and `/v1/models`, as OpenAI's clients speak them."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request

from hins_memory.server.state import state_of

__all__ = ["router"]

router = APIRouter(prefix="/v1", tags=["embeddings"])


@router.get("/models")
def models(request: Request) -> dict[str, Any]:
    """List the models that can be asked for."""
    versions = state_of(request).registry.versions()
    data = [{"id": f"hins-{version.id}", "object": "model", "owned_by": "hins"} for version in versions]
    return {"object": "list", "data": data}
