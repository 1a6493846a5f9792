"""A loopback server that speaks the OpenAI chat API and answers by what the prompt contains."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any


@dataclass(frozen=True)
class Raw:
    """A reply that is sent as it is, after `delay` seconds: what a bad provider does."""

    body: bytes = b""
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    delay: float = 0.0


class LLMServer:
    """Answers POST /v1/chat/completions with the reply of the first rule whose key is in the prompt.

    Args:
        replies: text that a prompt may contain -> the reply, or a function that makes it from the prompt; a reply
            that is not a string is sent as JSON, a `Raw` one as it is.
        default: the reply when no rule matches.
        status: the HTTP status of every reply; an error status sends an error body instead.

    Example:
        with LLMServer({"cello": {"memory": [{"text": "Ann plays the cello"}]}}) as server:
            config = server.mem0_config()
    """

    def __init__(self, replies: Mapping[str, Any] | None = None, default: Any = "{}", status: int = 200) -> None:
        self.replies = dict(replies or {})
        self.default = default
        self.status = status
        #: the bodies of all requests so far
        self.requests: list[dict[str, Any]] = []
        #: and their headers
        self.headers: list[Mapping[str, str]] = []
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}/v1"

    def mem0_config(self) -> dict[str, Any]:
        """The `llm` part of a Mem0 configuration."""
        options = {"api_key": "loopback", "openai_base_url": self.base_url, "model": "loopback"}
        return {"provider": "openai", "config": options}

    def reply_to(self, prompt: str) -> str | Raw:
        found = next((reply for key, reply in self.replies.items() if key in prompt), self.default)
        found = found(prompt) if callable(found) else found
        return found if isinstance(found, (str, Raw)) else json.dumps(found, ensure_ascii=False)

    def __enter__(self) -> LLMServer:
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers.get("content-length", 0))))
                server.requests.append(body)
                server.headers.append(self.headers)
                if not self.path.endswith("/chat/completions"):
                    self._send(404, {"error": {"message": f"no {self.path} here"}})
                elif server.status != 200:
                    self._send(server.status, {"error": {"message": "the server was told to fail"}})
                else:
                    reply = server._completion(body)
                    if isinstance(reply, Raw):
                        time.sleep(reply.delay)
                        self._send_bytes(reply.status, reply.body, reply.headers)
                    else:
                        self._send(200, reply)

            def _send(self, status: int, content: dict[str, Any]) -> None:
                self._send_bytes(status, json.dumps(content).encode(), {})

            def _send_bytes(self, status: int, data: bytes, headers: Mapping[str, str]) -> None:
                self.send_response(status)
                if status != 200 and not headers:
                    # The openai SDK pauses for half a second and more where it is told nothing.
                    headers = {"retry-after-ms": "1"}
                for name, value in headers.items():
                    self.send_header(name, value)
                self.send_header("content-type", "application/json")
                self.send_header("content-length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, format: str, *args: Any) -> None:
                """Keep the tests' output clean."""

        return Handler

    def _completion(self, body: dict[str, Any]) -> dict[str, Any] | Raw:
        prompt = "\n".join(str(message.get("content", "")) for message in body.get("messages", ()))
        reply = self.reply_to(prompt)
        if isinstance(reply, Raw):
            return reply
        message = {"role": "assistant", "content": reply}
        return {
            "id": f"chatcmpl-{len(self.requests)}",
            "object": "chat.completion",
            "created": int(time.time()),
            "model": body.get("model", "loopback"),
            "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
            "usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2},
        }
