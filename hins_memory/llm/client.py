"""A chat client for any OpenAI-compatible endpoint, for many threads at once: the openai SDK with a cache of replies.

A question that was answered before is answered from disk. The SDK asks a busy or failing endpoint again. A reply that
does not validate is sent back to the model with what is wrong. If that fails too, only that question fails.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from hins_memory.llm.budget import Budget, LlmError, Usage
from hins_memory.llm.cache import ReplyCache, package
from hins_memory.llm.settings import LlmSettings

if TYPE_CHECKING:
    from pydantic import BaseModel
    from typing_extensions import Self

__all__ = ["ChatClient", "Reply"]

M = TypeVar("M", bound="BaseModel")
Messages = Sequence[Mapping[str, str]]

# Statuses of an endpoint that refuses every request: no key, a wrong one, no such address or model.
_REFUSED = frozenset({401, 403, 404})
# Statuses of an endpoint that may accept the request later; the SDK tries again by itself.
_BUSY = frozenset({408, 409, 429})
_CHARS_A_TOKEN = 4
# Reserved in the budget for a reply whose length is not limited.
_REPLY_TOKENS = 512
_SHOWN = 200


@dataclass(frozen=True, slots=True)
class Reply:
    """What the model replied.

    Attributes:
        text: the reply.
        finish_reason: ``stop``, or ``length`` where it was cut off.
        prompt_tokens: as the endpoint counted them when it was asked.
        completion_tokens: likewise.
        cached: whether it came from the cache, and so cost nothing.
    """

    text: str
    finish_reason: str
    prompt_tokens: int
    completion_tokens: int
    cached: bool = False


class ChatClient:
    """Asks one language model; a context manager, usable from many threads at once.

    Args:
        settings: the model, its endpoint, limits, prices and the folder of cached replies.

    Raises:
        ConfigError: the packages openai or diskcache are not installed.

    Example:
        with ChatClient(LlmSettings("gpt-4.1-mini", cache=Path("replies"))) as client:
            print(client.chat([{"role": "user", "content": "Who are you?"}]).text)
    """

    def __init__(self, settings: LlmSettings) -> None:
        openai = package("openai")
        self.settings = settings
        self._cache = ReplyCache(settings.cache) if settings.cache is not None else None
        self._budget = Budget(settings)
        self._sdk = openai.OpenAI(
            base_url=settings.base_url,
            api_key=settings.api_key or "none",
            timeout=settings.timeout,
            max_retries=settings.tries - 1,
            http_client=openai.DefaultHttpxClient(event_hooks={"request": [self._count_request]}),
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._sdk.close()

    @property
    def usage(self) -> Usage:
        """What was used so far, by this client."""
        return self._budget.usage

    def chat(self, messages: Messages, **options: Any) -> Reply:
        """Return the model's reply.

        Args:
            messages: ``{"role": ..., "content": ...}`` each.
            options: more of the request's body, e.g. ``max_tokens`` or ``seed``; the temperature is 0 unless given. If
                there is a ``response_format``, a reply without JSON counts as unreadable, and is asked for again.

        Raises:
            LlmError: no usable reply; the message says why.
            BudgetError: asking would exceed the budget.
        """
        body = self._body(messages, options)
        return self._cached(body) or self._store(body, self._ask_until_usable(body))

    def structured(self, messages: Messages, schema: type[M], *, repairs: int = 2, **options: Any) -> M:
        """Return the model's reply as an object of a pydantic class.

        The class's JSON schema is added to the instruction, which every endpoint understands. A reply that does not
        validate goes back to the model with what is wrong. Only replies that validate are kept.

        Args:
            messages: ``{"role": ..., "content": ...}`` each.
            schema: the class.
            repairs: how often the model may correct itself.
            options: as of `chat`.

        Raises:
            LlmError: no reply validated.
            BudgetError: asking would exceed the budget.
        """
        from pydantic import ValidationError

        form = json.dumps(schema.model_json_schema())
        instruction = f"Reply with one JSON object and nothing else. It follows this JSON schema: {form}"
        # In the last message, because not every model takes a system message.
        history = [*messages[:-1], {**messages[-1], "content": f"{messages[-1]['content']}\n\n{instruction}"}]
        first = body = self._body(history, options)
        for _ in range(repairs + 1):
            reply = self._cached(body) or self._ask_until_usable(body)
            try:
                value = schema.model_validate_json(_json_in(reply.text))
            except ValidationError as error:
                problem = "; ".join(f"{'.'.join(map(str, item['loc']))}: {item['msg']}" for item in error.errors()[:5])
                repair = f"That is not valid: {problem}. Reply with the JSON object alone."
                history = [*history, {"role": "assistant", "content": reply.text}, {"role": "user", "content": repair}]
                body = self._body(history, options)
            else:
                # Cached under the first question, so that a rerun needs no repair.
                if not reply.cached:
                    self._store(first, reply)
                return value
        raise self._failure(
            f"{self.settings.model!r} gave no valid {schema.__name__} in {repairs + 1} replies: {problem}.",
            "Use a model that follows the instruction, or allow longer replies.",
        )

    def complete(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """Answer the body of a chat request with a body like the endpoint's; for programs that have their own client.

        Where the body has no model or temperature, the settings' model and 0 are used.

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
        body = {"model": self.settings.model, "messages": list(messages), "temperature": 0, **options}
        # Without lone surrogates, which cannot be sent.
        return dict(json.loads(json.dumps(body, ensure_ascii=False).encode("utf-8", "replace")))

    def _cached(self, body: Mapping[str, Any]) -> Reply | None:
        # Two endpoints may serve different models by the same name.
        stored = self._cache.get({"base_url": self.settings.base_url, **body}) if self._cache is not None else None
        try:
            reply = Reply(**{**(stored or {}), "cached": True})
            self._budget.count(
                cached=1, kept_prompt_tokens=reply.prompt_tokens, kept_completion_tokens=reply.completion_tokens
            )
        except TypeError:  # none, or a damaged one
            return None
        return reply

    def _store(self, body: Mapping[str, Any], reply: Reply) -> Reply:
        if self._cache is not None:
            self._cache.put({"base_url": self.settings.base_url, **body}, asdict(reply))
        return reply

    def _ask_until_usable(self, body: Mapping[str, Any]) -> Reply:
        """Return the endpoint's reply; one that cannot be used is asked for again."""
        problem = ""
        with self._budget.reserved(*_expected_tokens(body)):
            for number in range(self.settings.tries):
                self._budget.count(retries=int(number > 0))
                text = self._request(body)
                try:
                    reply = _parse_reply(text, body)
                    self._budget.count(prompt_tokens=reply.prompt_tokens, completion_tokens=reply.completion_tokens)
                    if body.get("response_format") or not reply.text.strip():
                        json.loads(_json_in(reply.text), strict=False)
                except (LookupError, TypeError, ValueError) as error:
                    problem = f"the reply cannot be read ({type(error).__name__}: {error})"
                else:
                    return reply
        raise self._failure(f"{self.settings.name} did not answer in {self.settings.tries} tries: {problem}.")

    def _request(self, body: Mapping[str, Any]) -> str:
        """Return the body of the endpoint's answer, after the SDK's retries."""
        openai = package("openai")
        raw = self._sdk.chat.completions.with_raw_response
        try:
            # As extra_body, because an endpoint may know options that the SDK does not.
            answer = raw.create(model=body["model"], messages=body["messages"], extra_body=dict(body))
        except openai.APIStatusError as error:
            status = error.status_code
            if status not in _BUSY and status < 500:
                reason = error.response.text[:_SHOWN]
                problem = f"{self.settings.name} refused the request with status {status}: {reason}."
                hint = "Check the model's name, the key and the address."
                raise self._failure(problem, hint, refused=status in _REFUSED) from None
            problem, tries = f"status {status}", 1 + int(error.request.headers.get("x-stainless-retry-count", 0))
        except openai.OpenAIError as error:
            cause = error.__cause__ or error
            problem, tries = f"{type(cause).__name__} {cause}".strip(), self.settings.tries
        else:
            return str(answer.http_response.text)
        raise self._failure(f"{self.settings.name} did not answer in {tries} tries: {problem}.")

    def _count_request(self, request: Any) -> None:
        """Count a request, each try of the SDK."""
        if not self.settings.api_key:
            request.headers.pop("authorization", None)
        self._budget.count(requests=1, retries=int(request.headers.get("x-stainless-retry-count", "0") != "0"))

    def _failure(self, problem: str, hint: str = "", *, refused: bool = False) -> LlmError:
        """Count a failure and return its error; without the key, which some endpoints send back."""
        self._budget.count(failures=1)
        hidden = problem.replace(self.settings.api_key, "(key)") if self.settings.api_key else problem
        return LlmError(hidden, hint or "Check the endpoint, or allow more time or tries.", refused=refused)


def _expected_tokens(body: Mapping[str, Any]) -> tuple[int, int]:
    """Return the (prompt, completion) tokens that a request may use."""
    longest = body.get("max_tokens") or body.get("max_completion_tokens") or _REPLY_TOKENS
    return len(json.dumps(body)) // _CHARS_A_TOKEN, int(longest)


def _parse_reply(text: str, body: Mapping[str, Any]) -> Reply:
    content = json.loads(text)
    choice = content["choices"][0]
    reply_text = str(choice["message"]["content"] or "")
    used, expected = content.get("usage") or {}, (_expected_tokens(body)[0], len(reply_text) // _CHARS_A_TOKEN)
    prompt, completion = used.get("prompt_tokens") or expected[0], used.get("completion_tokens") or expected[1]
    return Reply(reply_text, str(choice.get("finish_reason") or "stop"), int(prompt), int(completion))


def _json_in(text: str) -> str:
    """Return the JSON object in a reply, whatever is around it."""
    start, end = text.find("{"), text.rfind("}")
    return text[start : end + 1] if 0 <= start < end else text
