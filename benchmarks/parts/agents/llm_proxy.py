"""An OpenAI-compatible endpoint on loopback that stands before the real one: agents ask it, their replies are kept.

Memory agents bring their own client, without a cache, a budget or a count. Through this one, an agent's questions go
the way that the readers' go, and a second run of a benchmark costs nothing.
"""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Mapping
from datetime import date
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

from hins_memory.llm import BudgetError, ChatClient, LlmError

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["LlmProxy"]

# Mem0 writes today's date there, whatever the time of the messages.
_MEM0_DATES = re.compile(r"(## (?:Observation|Current) Date\n)\d{4}-\d{2}-\d{2}")


class LlmProxy:
    """Answers chat requests with a `ChatClient`; a context manager.

    Args:
        client: the model; it answers under whatever name the agent asks.

    Attributes:
        day: the day that Mem0's prompts are dated, None leaves them alone. Mem0 has no way to be told the time of what
            it extracts from, so relative dates would be read from today, and no reply could be kept for another day.
        stopped: the error after which more requests are useless, e.g. a budget that is used up.
    """

    def __init__(self, client: ChatClient) -> None:
        self.client = client
        self.day: date | None = None
        self.stopped: LlmError | None = None
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True

    @property
    def base_url(self) -> str:
        """The address that the agent is given."""
        return f"http://127.0.0.1:{self._server.server_address[1]}/v1"

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def answer(self, body: Mapping[str, Any]) -> tuple[int, dict[str, Any]]:
        """Return the status and the body of the reply to a request's body."""
        try:
            return 200, self.client.complete({**body, **self._named(body)})
        except LlmError as error:
            if error.refused or isinstance(error, BudgetError):
                self.stopped = error
            # 400 is what clients do not try again: that was done here.
            return 400, {"error": {"message": str(error), "type": "invalid_request_error"}}

    def _named(self, body: Mapping[str, Any]) -> dict[str, Any]:
        messages = body.get("messages") or ()
        return {"model": self.client.settings.model, "messages": [self._dated(message) for message in messages]}

    def _dated(self, message: Mapping[str, Any]) -> dict[str, Any]:
        content = message.get("content")
        if self.day is None or not isinstance(content, str):
            return dict(message)
        return {**message, "content": _MEM0_DATES.sub(rf"\g<1>{self.day.isoformat()}", content)}

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                try:
                    body = json.loads(self.rfile.read(int(self.headers.get("content-length", 0))))
                    status, content = proxy.answer(body)
                except ValueError as error:
                    status, content = 400, {"error": {"message": str(error)}}
                data = json.dumps(content).encode()
                self.send_response(status)
                self.send_header("content-type", "application/json")
                self.send_header("content-length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, format: str, *args: Any) -> None:
                """Requests are counted by the client."""

        return Handler
