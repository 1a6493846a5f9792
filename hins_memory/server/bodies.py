"""The JSON of a request's body, and the texts in it."""

from __future__ import annotations

import json
from typing import Any, NoReturn

from fastapi import Request

from hins_memory.server.problems import ApiError
from hins_memory.server.settings import ServeSettings

__all__ = ["json_object", "texts_in"]

_TOKEN_IDS = (
    "Token ids mean something to one tokenizer alone, and this encoder has another: send texts. LangChain's "
    "OpenAIEmbeddings does with check_embedding_ctx_length=False."
)


async def json_object(request: Request) -> dict[str, Any]:
    """Return the object in a body; half a surrogate pair, as from a cut emoji, is let through.

    Raises:
        ApiError: it is not an object of JSON.
    """
    try:
        found = json.loads((await request.body()).decode("utf-8"), parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise ApiError(400, "The body is not JSON, or is nested too deeply.", code="invalid_json") from error
    if not isinstance(found, dict):
        raise ApiError(400, "The body is not a JSON object.", code="invalid_json")
    return found


def texts_in(value: object, param: str, options: ServeSettings) -> list[str]:
    """Return the texts of a request: one, or a list of them.

    Raises:
        ApiError: there is none, one is empty or too long, there are too many, or they are something else than texts.
    """
    if isinstance(value, str):
        value = [value]
    if not isinstance(value, list):
        raise ApiError(400, f"{param} has to be a string or a list of strings.", param=param)
    if not value:
        raise ApiError(400, f"{param} is empty: send at least one text.", param=param)
    if len(value) > options.max_inputs:
        raise ApiError(400, f"{param} has {len(value)} texts; at most {options.max_inputs} at a time.", param=param)
    for position, text in enumerate(value):
        _check(text, f"{param}[{position}]", options)
    return value


def _check(text: object, place: str, options: ServeSettings) -> None:
    if isinstance(text, (int, list)) and not isinstance(text, bool):
        raise ApiError(400, _TOKEN_IDS, param=place.partition("[")[0], code="token_ids_not_supported")
    if not isinstance(text, str):
        raise ApiError(400, f"{place} is not a string.", param=place)
    if not text:
        raise ApiError(400, f"{place} is an empty string.", param=place)
    if len(text) > options.max_input_chars:
        message = f"{place} has {len(text)} characters; at most {options.max_input_chars}: send it in pieces."
        raise ApiError(400, message, param=place, code="input_too_long")


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")
