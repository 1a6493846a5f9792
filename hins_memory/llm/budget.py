"""The use of a language model, counted and limited: tokens and cost in total."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace

from hins_memory.errors import HinsError
from hins_memory.llm.settings import LlmSettings

__all__ = ["Budget", "BudgetError", "LlmError", "Usage"]


class LlmError(HinsError):
    """A language model did not answer, or not in the form that was asked for.

    Attributes:
        refused: whether the endpoint refuses every such request, e.g. for a wrong key; asking again is pointless.
    """

    def __init__(self, problem: str, hint: str = "", *, refused: bool = False) -> None:
        super().__init__(problem, hint)
        self.refused = refused


class BudgetError(LlmError):
    """Asking would exceed the budget; cached replies are still given."""


@dataclass(frozen=True, slots=True)
class Usage:
    """What was used so far.

    Attributes:
        requests: requests sent, each try counted.
        retries: of those, tries after the first.
        cached: replies that came from the cache and cost nothing.
        failures: questions that got no usable reply.
        prompt_tokens: as the endpoint counts them; estimated where it gives no count.
        completion_tokens: likewise.
        kept_prompt_tokens: what the cached replies had used when they were first asked for.
        kept_completion_tokens: likewise.
        cost: by the settings' prices.
        full_cost: what it would have cost without the cache.
    """

    requests: int = 0
    retries: int = 0
    cached: int = 0
    failures: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    kept_prompt_tokens: int = 0
    kept_completion_tokens: int = 0
    cost: float = 0.0
    full_cost: float = 0.0

    def since(self, earlier: Usage) -> Usage:
        """Return what was used since an earlier moment."""
        return Usage(*(getattr(self, field.name) - getattr(earlier, field.name) for field in fields(self)))


class Budget:
    """Counts usage, and keeps it within the totals of the settings; for many threads.

    Args:
        settings: prices and limits.

    Attributes:
        usage: what was used so far.
    """

    def __init__(self, settings: LlmSettings) -> None:
        self.usage = Usage()
        self._settings = settings
        self._reserved = (0, 0)
        self._lock = threading.Lock()

    def count(self, **more: int) -> None:
        """Add to counters of `Usage`, by their names."""
        with self._lock:
            new = replace(self.usage, **{name: getattr(self.usage, name) + n for name, n in more.items()})
            cost = self._cost(new.prompt_tokens, new.completion_tokens)
            kept = self._cost(new.kept_prompt_tokens, new.kept_completion_tokens)
            self.usage = replace(new, cost=cost, full_cost=cost + kept)

    @contextmanager
    def reserved(self, prompt: int, completion: int) -> Iterator[None]:
        """Reserve the tokens that a question may use, so that questions asked at the same time stay within the total.

        Raises:
            BudgetError: they do not fit.
        """
        settings = self._settings
        with self._lock:
            prompts = self.usage.prompt_tokens + self._reserved[0] + prompt
            completions = self.usage.completion_tokens + self._reserved[1] + completion
            too_many = settings.max_total_tokens and prompts + completions > settings.max_total_tokens
            if too_many or (settings.max_cost and self._cost(prompts, completions) > settings.max_cost):
                self.usage = replace(self.usage, failures=self.usage.failures + 1)
                limit = f"{settings.max_total_tokens} tokens" if too_many else f"{settings.max_cost:g}"
                raise BudgetError(
                    f"The budget of {limit} for {settings.model!r} is spent.",
                    "Raise it and start again: cached replies cost nothing.",
                )
            self._reserved = (self._reserved[0] + prompt, self._reserved[1] + completion)
        try:
            yield
        finally:
            with self._lock:
                self._reserved = (self._reserved[0] - prompt, self._reserved[1] - completion)

    def _cost(self, prompts: int, completions: int) -> float:
        return (prompts * self._settings.input_price + completions * self._settings.output_price) / 1_000_000
