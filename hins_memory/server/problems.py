"""Errors as OpenAI's clients know them: ``{"error": {"message", "type", "param", "code"}}``."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from hins_memory.errors import ConfigError, HinsError

__all__ = ["ApiError", "add_handlers", "error_body"]

logger = logging.getLogger(__name__)

_CODES = {
    401: "invalid_api_key",
    403: "forbidden",
    404: "not_found",
    405: "method_not_allowed",
    408: "timeout",
    413: "request_too_large",
    415: "unsupported_media_type",
    421: "wrong_host",
    429: "queue_full",
    503: "not_ready",
}


class ApiError(Exception):
    """A request that is refused.

    Args:
        status: of HTTP.
        message: what was wrong and what to do, as sentences.
        param: which field of the request was wrong, if one was.
        code: for programs; if left out that of the status.
        headers: of the response.
    """

    def __init__(
        self, status: int, message: str, *, param: str | None = None, code: str = "", headers: Mapping[str, str] = {}
    ) -> None:
        super().__init__(message)
        self.status, self.message, self.param = status, message, param
        self.code = code or _CODES.get(status, "invalid_request")
        self.headers = dict(headers)


def error_body(status: int, message: str, param: str | None = None, code: str = "") -> dict[str, Any]:
    """Return the body of a response that refuses."""
    kind = "invalid_request_error" if status < 500 else "server_error"
    if status in (401, 429):
        kind = {401: "authentication_error", 429: "rate_limit_error"}[status]
    code = code or _CODES.get(status, "invalid_request" if status < 500 else "internal_error")
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}


def _refused(status: int, message: str, param: str | None = None, code: str = "") -> JSONResponse:
    return JSONResponse(error_body(status, message, param, code), status_code=status)


def add_handlers(app: FastAPI) -> None:
    """Have every error of an app answered in this form; the middleware answers unexpected ones."""

    @app.exception_handler(ApiError)
    async def refused(request: Request, error: ApiError) -> JSONResponse:
        request.app.state.server.metrics.refused.labels(error.code).inc()
        body = error_body(error.status, error.message, error.param, error.code)
        return JSONResponse(body, status_code=error.status, headers=error.headers)

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> JSONResponse:
        # Without the input, which may be what a user said.
        first = error.errors()[0]
        param = ".".join(str(part) for part in first["loc"] if part != "body") or None
        return _refused(400, f"{param or 'The request'}: {first['msg']}.", param)

    @app.exception_handler(HTTPException)
    async def http(request: Request, error: HTTPException) -> JSONResponse:
        body = error_body(error.status_code, str(error.detail))
        return JSONResponse(body, status_code=error.status_code, headers=error.headers)

    @app.exception_handler(HinsError)
    async def expected(request: Request, error: HinsError) -> JSONResponse:
        if isinstance(error, ConfigError):
            return _refused(400, str(error))
        logger.error("%s could not be answered: %s", request.url.path, error)
        return _refused(503, str(error), code="unavailable")
