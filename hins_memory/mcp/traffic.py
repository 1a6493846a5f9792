"""The messages of JSON-RPC between an agent and a server: which calls are recorded, and which are answered here."""

from __future__ import annotations

import json
import logging
import threading
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from hins_memory.mcp.session import Session

__all__ = ["ANSWERED", "FEEDBACK", "Traffic"]

logger = logging.getLogger(__name__)

ANSWERED, FEEDBACK = "hins_answered", "hins_feedback"
# Requests without an answer that are remembered; the oldest are given up.
_MOST_WAITING = 10_000

_TOOLS: list[dict[str, Any]] = [
    {
        "name": ANSWERED,
        "title": "Report the answer",
        "description": (
            "Call this once for each reply that used a memory search, with the answer that you give the user. The "
            "memory search learns from it which memories were useful. Nothing is stored as a memory."
        ),
        "inputSchema": {
            "type": "object",
            "properties": {"answer": {"type": "string", "description": "The answer, as the user gets it"}},
            "required": ["answer"],
        },
        "annotations": {"readOnlyHint": False, "destructiveHint": False, "openWorldHint": False},
    },
    {
        "name": FEEDBACK,
        "title": "Report whether a memory helped",
        "description": (
            "Call this when it is clear that a memory which a search returned did help, or was wrong or beside the "
            "point, e.g. because the user says so. The memory itself does not change."
        ),
        "inputSchema": {
            "type": "object",
            "properties": {
                "memory": {"type": "string", "description": "The memory's id or text, as the search returned it"},
                "helpful": {"type": "boolean", "description": "Whether it helped"},
            },
            "required": ["memory", "helpful"],
        },
        "annotations": {"readOnlyHint": False, "destructiveHint": False, "openWorldHint": False},
    },
]


@dataclass(frozen=True, slots=True)
class _Request:
    """A request whose answer is of interest: a call of a mapped tool, or the list of tools where `tool` is empty."""

    tool: str
    arguments: Mapping[str, Any]
    cursor: Any = None


class Traffic:
    """Looks at each line of both directions before it is passed on; both may be looked at at the same time.

    Whatever fails here leaves the line as it is.

    Args:
        session: records the calls; one that is off records nothing, and no tools are offered.
    """

    def __init__(self, session: Session) -> None:
        self._session = session
        self._own = {ANSWERED, FEEDBACK}
        self._waiting: OrderedDict[Any, _Request] = OrderedDict()
        self._lock = threading.Lock()

    def from_agent(self, line: bytes) -> tuple[bytes, bytes]:
        """Return what goes on to the server, and what the agent gets at once; each a line, or nothing."""
        if not self._session.on:
            return line, b""
        try:
            content = json.loads(line)
        except (ValueError, RecursionError):
            return line, b""
        try:
            with self._lock:
                return self._split(line, content)
        except Exception:
            logger.warning("A message of the agent could not be looked at", exc_info=True)
            return line, b""

    def from_server(self, line: bytes) -> bytes:
        """Return what goes on to the agent."""
        if not self._waiting:
            return line
        try:
            content = json.loads(line)
        except (ValueError, RecursionError):
            return line
        try:
            with self._lock:
                # A list: a batch of JSON-RPC, which revision 2025-03-26 of the protocol allows.
                changed = [self._answered(one) for one in (content if isinstance(content, list) else [content])]
            return _line(content) if any(changed) else line
        except Exception:
            logger.warning("A message of the server could not be looked at", exc_info=True)
            return line

    def _split(self, line: bytes, content: Any) -> tuple[bytes, bytes]:
        if not isinstance(content, list):
            self._note(content)
            return (b"", self._reply(content)) if self._is_own(content) else (line, b"")
        own = [one for one in content if self._is_own(one)]
        others = [one for one in content if not self._is_own(one)]
        for one in others:
            self._note(one)
        if not own:
            return line, b""
        return _line(others) if others else b"", b"".join(map(self._reply, own))

    def _is_own(self, message: Any) -> bool:
        name = _params(message).get("name")
        return name in (ANSWERED, FEEDBACK) and name in self._own and message.get("method") == "tools/call"

    def _note(self, message: Any) -> None:
        """Remember a request whose answer is of interest."""
        params = _params(message)
        method = message.get("method") if isinstance(message, dict) else None
        if method == "tools/list":
            request = _Request("", {}, params.get("cursor"))
        elif method == "tools/call" and str(params.get("name")) in self._session.tools:
            request = _Request(params["name"], params.get("arguments") or {})
        else:
            if method == "notifications/cancelled":
                self._cancel(params.get("requestId"))
            return
        if isinstance(message.get("id"), (str, int, float)):
            self._waiting[message["id"]] = request
            if len(self._waiting) > _MOST_WAITING:
                self._waiting.popitem(last=False)

    def _cancel(self, id_: Any) -> None:
        """Forget a search: the agent does not read its answer. What was to be stored may be stored all the same."""
        request = self._waiting.get(id_) if isinstance(id_, (str, int, float)) else None
        if request and request.tool and self._session.tools[request.tool].does == "search":
            del self._waiting[id_]

    def _reply(self, message: Mapping[str, Any]) -> bytes:
        """Return the answer to a call of one of the proxy's own tools."""
        arguments = _params(message).get("arguments")
        given = arguments if isinstance(arguments, dict) else {}
        if _params(message)["name"] == ANSWERED:
            text, done = self._session.answered(given.get("answer"))
        else:
            text, done = self._session.feedback(given.get("memory"), given.get("helpful"))
        if "id" not in message:
            return b""
        content = [{"type": "text", "text": text}]
        # resultType is of the protocol's revision 2026-07-28; earlier ones pass it over.
        result = {"content": content, "isError": not done, "resultType": "complete"}
        return _line({"jsonrpc": "2.0", "id": message["id"], "result": result})

    def _answered(self, message: Any) -> bool:
        """Record what a request of interest came to; return whether the message was changed."""
        if not isinstance(message, dict) or "method" in message or not isinstance(message.get("id"), (str, int, float)):
            return False
        request = self._waiting.pop(message["id"], None)
        result = message.get("result")
        if request is None or not isinstance(result, dict):
            return False
        if not request.tool:
            return self._offer(request, result)
        # A result that asks for input is followed by another call with it.
        if not result.get("isError") and result.get("resultType", "complete") == "complete":
            self._session.called(request.tool, request.arguments, result)
        return False

    def _offer(self, request: _Request, result: dict[str, Any]) -> bool:
        """Put the proxy's own tools onto the first page of a list of tools."""
        tools = result["tools"]
        first = request.cursor is None
        if first and not result.get("nextCursor"):
            self._session.offered(tools)
        # The server's own tools of these names stay its own: another proxy may be behind this one.
        self._own -= {tool["name"] for tool in tools}
        ours = [tool for tool in _TOOLS if tool["name"] in self._own]
        if first:
            tools.extend(ours)
        return first and bool(ours)


def _params(message: Any) -> Mapping[str, Any]:
    params = message.get("params") if isinstance(message, dict) else None
    return params if isinstance(params, dict) else {}


def _line(content: Any) -> bytes:
    return json.dumps(content, allow_nan=False, separators=(",", ":")).encode("ascii") + b"\n"
