"""`/embed` and `/info` of Hugging Face's Text Embeddings Inference, for its clients.

Its protocol has no field for a model, because one of its servers has one. Here the model is in the base URL:
``http://localhost:8620/tei/MODEL``.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from fastapi import APIRouter, Request, Response

import hins_memory
from hins_memory.server.bodies import json_object, texts_in
from hins_memory.server.embeddings import header_of, write_vectors
from hins_memory.server.problems import ApiError
from hins_memory.server.roles import role_of, split_role
from hins_memory.server.state import state_of

__all__ = ["router"]

router = APIRouter(tags=["TEI"])


@router.post("/tei/{name:path}/embed")
async def embed(request: Request, name: str) -> Response:
    """Embed texts: an array of vectors. `prompt_name` may say query or document."""
    state = state_of(request)
    body = await json_object(request)
    if body.get("normalize") is False:
        raise ApiError(400, "All vectors are unit vectors: leave normalize out.", param="normalize")
    texts = texts_in(body.get("inputs"), "inputs", state.options)
    role = role_of(body.get("prompt_name"), "prompt_name")
    target = await state.target(name, role, partial(header_of, request))
    embedded = await state.embed(request, target, texts)
    content = b"[%s]" % b", ".join(await write_vectors(embedded.vectors))
    headers = {"X-Hins-Version": target.model.version}
    return Response(content, media_type="application/json", headers=headers)


@router.get("/tei/{name:path}/info")
async def info(request: Request, name: str) -> dict[str, Any]:
    """Describe the model of a base URL."""
    state = state_of(request)
    await state.refreshed()
    model = state.catalog.find(split_role(name)[0])
    return {
        "model_id": model.id,
        "model_sha": model.version,
        "model_dtype": "float32",
        "max_client_batch_size": state.options.max_inputs,
        "max_batch_requests": state.options.max_batch,
        "auto_truncate": True,
        "version": hins_memory.__version__,
    }


@router.post("/embed")
@router.get("/info")
async def without_model() -> None:
    """Refuse: this base URL names no model."""
    raise ApiError(400, "Which model? Make the base URL end in /tei/MODEL; GET /v1/models lists them.", param="model")
