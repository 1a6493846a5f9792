"""Settings of a chat client: where the model is, what it costs, limits of cost, where replies are cached."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path

from hins_memory.errors import ConfigError

__all__ = ["LlmSettings"]

_OPENAI = "https://api.openai.com/v1"


def _default_url() -> str:
    return os.environ.get("OPENAI_BASE_URL") or _OPENAI


def _default_key() -> str:
    return os.environ.get("OPENAI_API_KEY") or ""


@dataclass(frozen=True, slots=True)
class LlmSettings:
    """Settings of a `ChatClient`.

    Args:
        model: the model's name at the endpoint.
        base_url: the endpoint, up to and with ``/v1``; empty means ``OPENAI_BASE_URL``, else OpenAI's.
        api_key: empty means ``OPENAI_API_KEY``; an endpoint of one's own may need none.
        timeout: seconds until a request is given up.
        tries: how often a request is sent at most while the endpoint is busy or fails, after growing pauses or those
            that it asks for (Retry-After); also how often an unreadable reply is asked for again.
        cache: the folder of cached replies, shared by any number of processes; None caches nothing.
        input_price: price of a million prompt tokens, in any currency.
        output_price: price of a million completion tokens.
        max_cost: what all requests may cost together, in that currency; 0 means no limit.
        max_total_tokens: what all requests may use together; 0 means no limit.

    Raises:
        ConfigError: a value is out of range, a limit of cost comes without prices, OpenAI's endpoint without a key, or
            a password in the address.
    """

    model: str
    base_url: str = ""
    api_key: str = field(default="", repr=False)
    timeout: float = 60.0
    tries: int = 5
    cache: Path | None = None
    input_price: float = 0.0
    output_price: float = 0.0
    max_cost: float = 0.0
    max_total_tokens: int = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "base_url", (self.base_url or _default_url()).rstrip("/"))
        object.__setattr__(self, "api_key", (self.api_key or _default_key()).strip())
        if not self.model:
            raise ConfigError("No language model is named.", "Give the name that the endpoint knows it by.")
        if not self.base_url.startswith(("http://", "https://")):
            raise ConfigError(f"{self.base_url!r} is not an address.", "Give one like http://localhost:8000/v1.")
        if "@" in self.base_url:
            raise ConfigError("The address of the language model holds a password.", "Pass it as api_key.")
        if not (self.api_key.isascii() and self.api_key.isprintable()):
            # It could not be sent, and the error of the HTTP library would show it.
            raise ConfigError("The key of the language model holds characters that no key has.", "Copy it again.")
        if not self.api_key and self.base_url == _OPENAI:
            raise ConfigError("OpenAI's endpoint needs a key.", "Pass api_key, set OPENAI_API_KEY, or pass base_url.")
        if self.timeout <= 0 or self.tries < 1:
            raise ConfigError("timeout and tries are positive.", "Use e.g. 60 and 5.")
        if min(self.max_cost, self.max_total_tokens, self.input_price, self.output_price) < 0:
            raise ConfigError("A limit or a price of the language model is negative.", "Use 0 for none.")
        if self.max_cost and not (self.input_price or self.output_price):
            raise ConfigError("A limit of cost needs prices.", "Give the price of a million tokens, or limit tokens.")

    @property
    def name(self) -> str:
        """The model and its endpoint, without the key; reports and stored states name the model by this."""
        return f"{self.model} at {self.base_url}"
