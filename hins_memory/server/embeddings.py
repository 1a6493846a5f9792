"""`/v1/embeddings` and `/v1/models`, as OpenAI's clients speak them."""

from __future__ import annotations

import asyncio
import base64
import json
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson
from fastapi import APIRouter, Request, Response

from hins_memory.encoders.model_files import truncated_dims
from hins_memory.server.bodies import json_object, texts_in
from hins_memory.server.catalog import Model
from hins_memory.server.problems import ApiError
from hins_memory.server.roles import role_of, split_role
from hins_memory.server.state import state_of

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["header_of", "router", "write_vectors"]

# Vectors that are written as JSON at a time, before other requests have their turn: about a millisecond.
_AT_A_TIME = 64
_BODY = {
    "type": "object",
    "required": ["input", "model"],
    "properties": {
        "input": {"oneOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}, "minItems": 1}]},
        "model": {"type": "string", "description": "The id of a version, with :query or :document after it if wanted."},
        "input_type": {"type": "string", "description": "query or document (also passage, search_query, ...)."},
        "encoding_format": {"enum": ["float", "base64"], "default": "float"},
        "dimensions": {"type": "integer", "description": "Only of models that were trained for shorter vectors."},
    },
}

router = APIRouter(prefix="/v1", tags=["embeddings"])


@router.post("/embeddings", openapi_extra={"requestBody": {"content": {"application/json": {"schema": _BODY}}}})
async def embeddings(request: Request) -> Response:
    """Embed texts with the version that the model's id names."""
    state = state_of(request)
    body = await json_object(request)
    name = body.get("model")
    if not isinstance(name, str) or not name:
        raise ApiError(400, "model has to be the id of a model; GET /v1/models lists them.", param="model")
    as_floats = body.get("encoding_format") in (None, "float")
    if not as_floats and body["encoding_format"] != "base64":
        raise ApiError(400, "encoding_format has to be float or base64.", param="encoding_format")
    texts = texts_in(body.get("input"), "input", state.options)
    target = await state.target(name, role_of(body.get("input_type")), partial(header_of, request))
    embedded = await state.embed(request, target, texts)
    vectors = _shortened(embedded.vectors, body.get("dimensions"), target.model)
    usage = {"prompt_tokens": embedded.tokens, "total_tokens": embedded.tokens}
    head = json.dumps({"object": "list", "model": target.model.id, "usage": usage}).encode()
    written = await write_vectors(vectors, as_floats)
    rows = (b'{"object": "embedding", "index": %d, "embedding": %s}' % one for one in enumerate(written))
    content = b'%s, "data": [%s]}' % (head[:-1], b", ".join(rows))
    headers = {"X-Hins-Version": target.model.version, **target.headers}
    return Response(content, media_type="application/json", headers=headers)


@router.get("/models")
async def models(request: Request) -> dict[str, Any]:
    """List the models that can be asked for."""
    state = state_of(request)
    await state.refreshed()
    return {"object": "list", "data": [_described(one) for one in state.catalog.models()]}


@router.get("/models/{name:path}")
async def model(request: Request, name: str) -> dict[str, Any]:
    """Describe one model."""
    state = state_of(request)
    await state.refreshed()
    return _described(state.catalog.find(split_role(name)[0]))


def header_of(request: Request, name: str) -> str:
    """Return a header, "" where it is not there. Names of stores may hold any character."""
    # Headers are decoded as Latin-1.
    return request.headers.get(name, "").encode("latin-1").decode("utf-8", "replace")


def _described(model: Model) -> dict[str, Any]:
    return {
        "id": model.id,
        "object": "model",
        "created": int(model.created),
        "owned_by": "hins-memory",
        # Beside what OpenAI's clients know:
        "version": model.version,
        "document_space": model.space,
        "needs_role": model.needs_role,
        "scope": model.scope or None,
    }


def _shortened(vectors: NDArray[np.float32], dim: object, model: Model) -> NDArray[np.float32]:
    """Return the first entries of vectors, as unit vectors again.

    Raises:
        ApiError: the model was not trained for it.
    """
    import numpy as np

    whole = vectors.shape[1]
    if dim is None or (type(dim) is int and dim == whole):
        return vectors
    folder = Path(model.source)
    # Of a model with two sides it is not known whether the shortened ones still fit each other.
    allowed = truncated_dims(folder, whole) if folder.is_dir() and not model.needs_role else ()
    if type(dim) is not int or dim not in allowed:
        few = ", ".join(map(str, allowed[-8:]))
        rest = f"; it can be cut to others, e.g. {few}." if few else " and was not trained to be cut: leave it out."
        message = f"{model.id} has {whole} dimensions{rest}"
        raise ApiError(400, message, param="dimensions", code="dimensions_not_supported")
    cut = vectors[:, :dim]
    shortened: NDArray[np.float32] = cut / np.maximum(np.linalg.norm(cut, axis=1, keepdims=True), 1e-12)
    return shortened


async def write_vectors(vectors: NDArray[np.float32], as_floats: bool = True) -> list[bytes]:
    """Return each vector as JSON: an array, or a string of base64 of float32, the lowest byte first.

    Numbers of an array have as many digits as tell float32 apart: read as float32, they are the vector's own.
    """
    import numpy as np

    written = []
    for row, vector in enumerate(np.ascontiguousarray(vectors, dtype=np.float32)):
        if row % _AT_A_TIME == _AT_A_TIME - 1:
            await asyncio.sleep(0)
        if as_floats:
            written.append(orjson.dumps(vector, option=orjson.OPT_SERIALIZE_NUMPY))
        else:
            written.append(b'"%s"' % base64.b64encode(vector.astype("<f4").tobytes()))
    return written
