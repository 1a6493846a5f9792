"""What happens to every request: it gets an id, is let in or not, is bounded, logged and counted.

Plain ASGI, because Starlette's base class for middleware hides from a route that its client went away.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import ipaddress
import json
import logging
import re
import time
import uuid
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import anyio
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from hins_memory.server.metrics import Metrics
from hins_memory.server.problems import error_body
from hins_memory.server.settings import ServeSettings

__all__ = ["OPEN_PATHS", "Gatekeeper", "Journal", "is_loopback"]

logger = logging.getLogger("hins_memory.server.requests")

#: What needs no key.
OPEN_PATHS = frozenset({"/health", "/health/live", "/health/ready"})
_ID_HEADER = "X-Request-ID"
_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")
# The time that a body may take to come.
_BODY_SECONDS = 60.0
_FORBIDDEN = "A page of another origin asked: this server answers pages of its own only."


class Journal:
    """Gives every request an id, in ``X-Request-ID``; logs it, without texts, and counts it when it is answered."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        given = Headers(scope=scope).get(_ID_HEADER, "")
        request_id = given if _ID.fullmatch(given) else uuid.uuid4().hex
        noted: dict[str, Any] = scope.setdefault("state", {})
        noted["request_id"] = request_id
        started, status = time.perf_counter(), 0

        async def answer(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                MutableHeaders(scope=message)[_ID_HEADER] = request_id
            await send(message)

        try:
            await self._app(scope, receive, answer)
        except Exception:
            logger.exception("The request %s failed", request_id, extra={"details": {"request_id": request_id}})
            if status:
                # What was sent of the response cannot be taken back: the connection is closed.
                raise
            error = error_body(500, f"The server failed; its log says why, under the request id {request_id}.")
            await _send_refusal(answer, 500, error, {})
        finally:
            self._note(scope, status, time.perf_counter() - started)

    def _note(self, scope: Scope, status: int, seconds: float) -> None:
        # No response: the client went away first.
        status = status or 499
        route = getattr(scope.get("route"), "path", None) or "other"
        self._metrics.requests.labels(route, str(status)).inc()
        self._metrics.request_seconds.labels(route).observe(seconds)
        details = {
            "request_id": scope["state"]["request_id"],
            "method": scope["method"],
            "route": route,
            "status": status,
            "milliseconds": round(1000 * seconds, 1),
        }
        logger.info("%(method)s %(route)s %(status)s %(milliseconds)s ms", details, extra={"details": details})


class Gatekeeper:
    """Lets in who has a key, and bodies that are not too long, not too many at a time, and not too slow.

    Pages of other origins are refused, whose requests a browser sends with the password that it knows. Without keys
    only requests to a loopback name are let in, so that a page in a browser cannot ask through a name of
    its own that leads here (DNS rebinding), and bodies have to be JSON, which a page of another origin may not send.
    """

    def __init__(self, app: ASGIApp, options: ServeSettings, metrics: Metrics) -> None:
        self._app = app
        self._options = options
        self._metrics = metrics
        # Digests are of one length, whatever the keys are.
        self._keys = [hashlib.sha256(key.encode()).digest() for key in options.keys]
        self._held = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or refuse it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        if refusal := self._refusal(scope, headers):
            await self._refuse(send, *refusal)
            return
        await self._bounded(scope, headers, receive, send)

    def _refusal(self, scope: Scope, headers: Headers) -> tuple[int, str] | None:
        if scope["path"] in OPEN_PATHS:
            return None
        if scope["method"] not in ("GET", "HEAD", "OPTIONS") and _from_elsewhere(headers):
            return 403, _FORBIDDEN
        if self._keys:
            if not self._known(headers.get("authorization", "")):
                return 401, "No valid key: send one of HINS_API_KEY as `Authorization: Bearer KEY`."
            return None
        if not is_loopback(_host_of(headers.get("host", ""))):
            return 421, "A server without HINS_API_KEY answers only to localhost: ask it by that name, or set a key."
        return None

    def _known(self, authorization: str) -> bool:
        given = hashlib.sha256(_key_in(authorization)).digest()
        # All are compared, so that the time says nothing.
        return bool(sum(hmac.compare_digest(given, key) for key in self._keys))

    async def _bounded(self, scope: Scope, headers: Headers, receive: Receive, send: Send) -> None:
        limit, held = self._options.max_body_bytes, 0
        if (length := headers.get("content-length", "")).isdecimal() and int(length[:20]) > limit:
            await self._refuse(send, 413, _too_long(limit))
            return
        body: list[bytes] = []
        more, deadline = True, anyio.current_time() + _BODY_SECONDS
        try:
            while more:
                # Unlike asyncio's `wait_for`, it makes no task of its own for each message.
                with anyio.CancelScope(deadline=deadline) as timed:
                    message = await receive()
                if timed.cancelled_caught:
                    await self._refuse(send, 408, f"The body did not come within {_BODY_SECONDS:.0f} seconds.")
                    return
                if message["type"] == "http.disconnect":
                    return
                body.append(message.get("body", b""))
                held += len(body[-1])
                self._held += len(body[-1])
                more = message.get("more_body", False)
                if held > limit:
                    await self._refuse(send, 413, _too_long(limit))
                    return
                if self._held > self._options.max_bodies_bytes:
                    await self._refuse(send, 429, "Too many requests at a time: try again.", {"Retry-After": "1"})
                    return
            if held and not self._keys and not _is_json(headers.get("content-type", "")):
                await self._refuse(send, 415, "Send JSON, with `Content-Type: application/json`.")
                return
            await self._app(scope, _replayed(b"".join(body), receive), send)
        finally:
            self._held -= held

    async def _refuse(
        self, send: Send, status: int, message: str, headers: Mapping[str, str] = MappingProxyType({})
    ) -> None:
        error = error_body(status, message)
        self._metrics.refused.labels(error["error"]["code"]).inc()
        await _send_refusal(send, status, error, headers)


def is_loopback(host: str) -> bool:
    """Tell whether a host's name or address is this machine's own."""
    if host.lower().rstrip(".") == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def _host_of(header: str) -> str:
    """Return the host of a ``Host`` header, without the port."""
    return header.rpartition("]")[0] + "]" if header.startswith("[") else header.partition(":")[0]


def _from_elsewhere(headers: Headers) -> bool:
    """Tell whether a browser says that a page of another origin asks; it sends the password of its user along."""
    if site := headers.get("sec-fetch-site", ""):
        return site not in ("same-origin", "none")
    origin = headers.get("origin", "")
    return bool(origin) and origin.partition("://")[2] != headers.get("host", "")


def _is_json(content_type: str) -> bool:
    kind = content_type.partition(";")[0].strip().lower()
    return kind == "application/json" or kind.endswith("+json")


def _key_in(authorization: str) -> bytes:
    scheme, _, value = authorization.partition(" ")
    # Headers are decoded as Latin-1.
    given = value.strip().encode("latin-1", "replace")
    if scheme.lower() == "bearer":
        return given
    if scheme.lower() == "basic":
        # Browsers ask for a password by themselves; any name goes with it.
        try:
            return base64.b64decode(given, validate=True).partition(b":")[2]
        except ValueError:
            return b""
    return b""


def _too_long(limit: int) -> str:
    return f"The body is longer than {limit} bytes: send fewer texts at a time."


def _replayed(body: bytes, receive: Receive) -> Receive:
    """Return a `receive` that gives a body that was read already, and after that what comes."""
    given = False

    async def replay() -> Message:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return replay


async def _send_refusal(send: Send, status: int, error: Mapping[str, Any], headers: Mapping[str, str]) -> None:
    body = json.dumps(error).encode()
    sent = {"content-type": "application/json", "content-length": str(len(body)), **headers}
    if status == 401:
        sent["www-authenticate"] = 'Basic realm="hins", charset="UTF-8"'
    raw = [(name.lower().encode(), value.encode("latin-1")) for name, value in sent.items()]
    await send({"type": "http.response.start", "status": status, "headers": raw})
    await send({"type": "http.response.body", "body": body})
