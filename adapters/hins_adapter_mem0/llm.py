"""A language model that is built on first use, so that what needs none works without an API key."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import Any

from mem0.llms.base import LLMBase
from mem0.utils.factory import LlmFactory

from hins_memory.common.secrets import masked, secrets_in
from hins_memory.errors import AgentError

__all__ = ["LAZY_PROVIDER", "LazyLLM", "LazyLLMConfig", "register_lazy_llm"]

LAZY_PROVIDER = "hins_lazy"


@dataclass(frozen=True)
class LazyLLMConfig:
    """Which of Mem0's providers to build, and with what, once an LLM is needed."""

    provider: str = "openai"
    # Not shown: it may hold an API key.
    config: dict[str, Any] = field(default_factory=dict, repr=False)
    model: str | None = None


class LazyLLM(LLMBase):  # type: ignore[misc]  # mem0 has no type information
    """Stands for the configured LLM until it is used; then builds it once and forwards to it."""

    def __init__(self, config: LazyLLMConfig) -> None:
        super().__init__(config)
        self._settings = config
        self._real: Any = None
        self._lock = threading.Lock()

    @property
    def real(self) -> Any:
        """The LLM itself.

        Raises:
            AgentError: it cannot be built, for instance because its API key is missing.
        """
        with self._lock:
            if self._real is None:
                try:
                    self._real = LlmFactory.create(self._settings.provider, dict(self._settings.config))
                except Exception as error:
                    problem = masked(str(error), secrets_in(self._settings.config))
                else:
                    return self._real
                # Without its cause, which may repeat the API key.
                raise AgentError(
                    f"Mem0 needs its language model ({self._settings.provider}) for this, and it could not be "
                    f"set up: {problem}",
                    "Give its API key (for OpenAI: OPENAI_API_KEY) or an `llm` in the config; "
                    "add(..., infer=False) stores messages as they are and needs no language model.",
                )
            return self._real

    def generate_response(self, *args: Any, **kwargs: Any) -> Any:
        """Answer with the real LLM; the arguments are Mem0's."""
        return self.real.generate_response(*args, **kwargs)


def register_lazy_llm() -> None:
    """Make the lazy LLM a provider of Mem0's LLM factory."""
    LlmFactory.register_provider(LAZY_PROVIDER, f"{__name__}.{LazyLLM.__name__}", LazyLLMConfig)
