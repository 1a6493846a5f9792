"""A chat client for any OpenAI-compatible endpoint, for many threads at once.

A question that was answered before is answered from disk. A busy or failing endpoint is asked again after a pause, a
reply that does not validate is handed back to the model with what is wrong; what fails then costs that question only.
"""

from __future__ import annotations

import email.utils
import json
import logging
import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from hins_memory.llm.cache import ReplyCache
from hins_memory.llm.limits import LlmError, Meter, RateLimit, Usage
from hins_memory.llm.settings import LlmSettings

if TYPE_CHECKING:
    import httpx
    from pydantic import BaseModel
    from typing_extensions import Self

__all__ = ["ChatClient", "Reply"]

T = TypeVar("T")
M = TypeVar("M", bound="BaseModel")
Messages = Sequence[Mapping[str, str]]

logger = logging.getLogger(__name__)

# What the endpoint may allow later: too early, too many requests, conflict, request timeout.
_BUSY = frozenset({408, 409, 425, 429})
# What it refuses whatever is asked: no key, a wrong one, no such address or model.
_REFUSED = frozenset({401, 403, 404})
_FIRST_PAUSE = 0.5
_CHARS_A_TOKEN = 4
# Set aside for a reply whose length is not limited.
_REPLY_TOKENS = 512
_SHOWN = 200
_KEPT = ("text", "finish_reason", "prompt_tokens", "completion_tokens")


@dataclass(frozen=True, slots=True)
class Reply:
    """What the model replied.

    Attributes:
        text: the reply.
        finish_reason: ``stop``, or ``length`` where it was cut off.
        prompt_tokens: as the endpoint counted them when it was asked.
        completion_tokens: likewise.
        cached: whether it was kept from an earlier request, and so cost nothing.
    """

    text: str
    finish_reason: str
    prompt_tokens: int
    completion_tokens: int
    cached: bool = False


class ChatClient:
    """Asks one language model; a context manager, usable from many threads at once.

    Args:
        settings: the model, its endpoint, limits, prices and the folder of replies kept.

    Example:
        with ChatClient(LlmSettings("gpt-4.1-mini", cache=Path("replies"))) as client:
            print(client.chat([{"role": "user", "content": "Who are you?"}]).text)
    """

    def __init__(self, settings: LlmSettings) -> None:
        import httpx

        self.settings = settings
        headers = {"authorization": f"Bearer {settings.api_key}"} if settings.api_key else {}
        self._client = httpx.Client(base_url=settings.base_url, headers=headers, timeout=settings.timeout)
        self._cache = ReplyCache(settings.cache) if settings.cache is not None else None
        self._meter = Meter(settings)
        self._requests = RateLimit(settings.requests_per_minute)
        self._tokens = RateLimit(settings.tokens_per_minute)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    @property
    def usage(self) -> Usage:
        """What was used so far, by this client."""
        return self._meter.usage

    def chat(self, messages: Messages, **options: Any) -> Reply:
        """Return the model's reply.

        Args:
            messages: ``{"role": ..., "content": ...}`` each.
            options: more of the request's body, e.g. ``max_tokens`` or ``seed``; the temperature is 0 unless given. To
                a request with a ``response_format``, a reply without JSON is none, and is asked for again.

        Raises:
            LlmError: no usable reply; the message says why.
            BudgetError: asking would exceed the budget.
        """
        body = self._body(messages, options)
        return self._counted(lambda: self._kept(body) or self._keep(body, self._ask(body)))

    def structured(self, messages: Messages, schema: type[M], *, repairs: int = 2, **options: Any) -> M:
        """Return the model's reply as an object of a pydantic class.

        The class's JSON schema is added to the instruction. A reply that does not validate goes back to the model with
        what is wrong. Only replies that validate are kept.

        Args:
            messages: ``{"role": ..., "content": ...}`` each.
            schema: the class.
            repairs: how often the model may correct itself.
            options: as of `chat`.

        Raises:
            LlmError: no reply validated.
            BudgetError: asking would exceed the budget.
        """
        form = json.dumps(schema.model_json_schema())
        instruction = f"Reply with one JSON object and nothing else. It follows this JSON schema: {form}"
        # In the last message, because not every model takes an instruction of its own.
        talk = [*messages[:-1], {**messages[-1], "content": f"{messages[-1]['content']}\n\n{instruction}"}]
        return self._counted(lambda: self._validated(talk, schema, repairs, options))

    def _validated(self, talk: list[Mapping[str, str]], schema: type[M], repairs: int, options: Mapping[str, Any]) -> M:
        from pydantic import ValidationError

        first = body = self._body(talk, options)
        problem = ""
        for _ in range(repairs + 1):
            reply = self._kept(body) or self._ask(body)
            try:
                found = schema.model_validate_json(_json_in(reply.text))
            except ValidationError as error:
                problem = "; ".join(f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in error.errors()[:5])
                repair = f"That is not valid: {problem}. Reply with the JSON object alone."
                talk = [*talk, {"role": "assistant", "content": reply.text}, {"role": "user", "content": repair}]
                body = self._body(talk, options)
            else:
                # Under the first question, so that a rerun needs no repair either.
                if not reply.cached:
                    self._keep(first, reply)
                return found
        raise LlmError(
            f"{self.settings.model!r} gave no valid {schema.__name__} in {repairs + 1} replies: {problem}.",
            "Use a model that follows the instruction, or allow longer replies.",
        )

    def complete(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """Answer the whole body of a chat request as the endpoint would; for programs that bring their own client.

        The settings' model and the temperature 0 stand in for the body's where it has none.

        Raises:
            LlmError: no usable reply.
            BudgetError: asking would exceed the budget.
        """
        options = {name: value for name, value in body.items() if name not in ("messages", "stream")}
        reply = self.chat(body.get("messages", ()), **options)
        message = {"role": "assistant", "content": reply.text}
        return {
            "id": "chatcmpl-hins",
            "object": "chat.completion",
            "created": int(time.time()),
            "model": options.get("model", self.settings.model),
            "choices": [{"index": 0, "message": message, "finish_reason": reply.finish_reason}],
            "usage": {
                "prompt_tokens": reply.prompt_tokens,
                "completion_tokens": reply.completion_tokens,
                "total_tokens": reply.prompt_tokens + reply.completion_tokens,
            },
        }

    def _body(self, messages: Messages, options: Mapping[str, Any]) -> dict[str, Any]:
        return {
            "model": self.settings.model,
            "messages": [dict(message) for message in messages],
            "temperature": 0,
            **options,
        }

    def _counted(self, ask: Callable[[], T]) -> T:
        try:
            return ask()
        except LlmError:
            self._meter.count(failures=1)
            raise

    def _question(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """What a kept reply is found by: two endpoints may serve different models by the same name."""
        return {"base_url": self.settings.base_url, **body}

    def _kept(self, body: Mapping[str, Any]) -> Reply | None:
        found = self._cache.get(self._question(body)) if self._cache is not None else None
        if found is None:
            return None
        try:
            reply = Reply(
                str(found["text"]),
                str(found["finish_reason"]),
                int(found["prompt_tokens"]),
                int(found["completion_tokens"]),
                cached=True,
            )
        except (LookupError, TypeError, ValueError):
            return None
        self._meter.count(
            cached=1, kept_prompt_tokens=reply.prompt_tokens, kept_completion_tokens=reply.completion_tokens
        )
        return reply

    def _keep(self, body: Mapping[str, Any], reply: Reply) -> Reply:
        if self._cache is not None:
            kept = {name: getattr(reply, name) for name in _KEPT}
            self._cache.put(self._question(body), kept)
        return reply

    def _ask(self, body: Mapping[str, Any]) -> Reply:
        """Send a request, again after a pause where that may help, within the limits and the budget."""
        problem, pause = "", 0.0
        for number in range(self.settings.tries):
            if number:
                time.sleep(min(pause, self.settings.longest_pause))
                self._meter.count(retries=1)
            sent = self._send(body)
            if isinstance(sent, Reply):
                return sent
            problem = sent.problem
            # The jitter keeps readers that failed together from coming back together.
            backoff = _FIRST_PAUSE * 2**number * random.uniform(0.75, 1.25)
            pause = backoff if sent.retry_after is None else max(sent.retry_after, 0.0)
            logger.debug("%s: %s", self.settings.name, problem)
        raise LlmError(
            f"{self.settings.name} did not answer in {self.settings.tries} tries: {problem}.",
            "Check the endpoint, or allow more time or tries.",
        )

    def _send(self, body: Mapping[str, Any]) -> Reply | _Failed:
        """Send one request; return what came of it, unless it is refused."""
        import httpx

        content = json.dumps(body).encode()
        reserved = (len(content) // _CHARS_A_TOKEN, int(body.get("max_tokens") or _REPLY_TOKENS))
        self._meter.reserve(*reserved)
        used = (0, 0)
        try:
            self._requests.take(1)
            self._tokens.take(sum(reserved))
            self._meter.count(requests=1)
            answer = self._client.post(
                "/chat/completions", content=content, headers={"content-type": "application/json"}
            )
            if answer.status_code in _BUSY or answer.status_code >= 500:
                return _Failed(f"status {answer.status_code}", _retry_after(answer))
            if answer.status_code != httpx.codes.OK:
                raise LlmError(
                    f"{self.settings.name} refused the request with status {answer.status_code}: "
                    f"{answer.text[:_SHOWN]}.",
                    "Check the model's name, the key and the address.",
                    refused=answer.status_code in _REFUSED,
                )
            reply = _read(answer, reserved[0])
            used = (reply.prompt_tokens, reply.completion_tokens)
        except httpx.HTTPError as error:
            return _Failed(f"{type(error).__name__} {error}".strip())
        except (LookupError, TypeError, ValueError) as error:
            return _Failed(f"the reply cannot be read ({type(error).__name__}: {error})")
        finally:
            self._meter.settle(reserved, used)
        if not reply.text.strip():
            return _Failed(f"the reply is empty (finish_reason {reply.finish_reason})")
        if body.get("response_format") and not _is_json(reply.text):
            return _Failed(f"the reply is no JSON (finish_reason {reply.finish_reason})")
        return reply


@dataclass(frozen=True, slots=True)
class _Failed:
    """A try that came to nothing, and the seconds that the endpoint asks to wait."""

    problem: str
    retry_after: float | None = None


def _read(answer: httpx.Response, prompt_estimate: int) -> Reply:
    content = answer.json()
    choice = content["choices"][0]
    text = choice["message"]["content"]
    text = "" if text is None else str(text)
    usage = content.get("usage") or {}
    return Reply(
        text,
        str(choice.get("finish_reason") or "stop"),
        int(usage.get("prompt_tokens") or prompt_estimate),
        int(usage.get("completion_tokens") or len(text) // _CHARS_A_TOKEN),
    )


def _retry_after(answer: httpx.Response) -> float | None:
    """Return the seconds of the Retry-After header, which may be a date."""
    value = answer.headers.get("retry-after", "")
    try:
        return float(value)
    except ValueError:
        pass
    try:
        return email.utils.parsedate_to_datetime(value).timestamp() - time.time()
    except (ValueError, TypeError):
        return None


def _is_json(text: str) -> bool:
    try:
        json.loads(_json_in(text), strict=False)
    except ValueError:
        return False
    return True


def _json_in(text: str) -> str:
    """Return the JSON object in a reply, whatever is around it."""
    start, end = text.find("{"), text.rfind("}")
    return text[start : end + 1] if 0 <= start < end else text
