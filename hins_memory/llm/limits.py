"""What is counted and limited of a language model's use: requests and tokens a minute, tokens and cost in all."""

from __future__ import annotations

import threading
import time
from collections import deque
from dataclasses import dataclass, fields, replace

from hins_memory.errors import HinsError
from hins_memory.llm.settings import LlmSettings

__all__ = ["BudgetError", "LlmError", "Meter", "RateLimit", "Usage"]


class LlmError(HinsError):
    """A language model did not answer, or not in the form that was asked for.

    Attributes:
        refused: whether the endpoint refuses every request of the kind, e.g. for a wrong key; asking on is no use.
    """

    def __init__(self, problem: str, hint: str = "", *, refused: bool = False) -> None:
        super().__init__(problem, hint)
        self.refused = refused


class BudgetError(LlmError):
    """Asking would exceed the budget; replies that are kept are still given."""


@dataclass(frozen=True, slots=True)
class Usage:
    """What was used so far.

    Attributes:
        requests: requests sent, each try counted.
        retries: of those, tries after the first.
        cached: replies that were kept already and cost nothing.
        failures: questions that got no usable reply.
        prompt_tokens: as the endpoint counts them; estimated where it says nothing.
        completion_tokens: likewise.
        kept_prompt_tokens: what the kept replies had used when they were asked for.
        kept_completion_tokens: likewise.
        cost: by the settings' prices.
        full_cost: what it would have cost had nothing been kept.
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
        return Usage(*(getattr(self, one.name) - getattr(earlier, one.name) for one in fields(self)))


class RateLimit:
    """Makes callers wait so that amounts within any period stay under a limit; for many threads.

    Args:
        limit: the sum of amounts in a period; 0 means no limit.
        seconds: the period.
    """

    def __init__(self, limit: int, seconds: float = 60.0) -> None:
        self._limit = limit
        self._seconds = seconds
        self._taken: deque[tuple[float, int]] = deque()
        self._sum = 0
        self._lock = threading.Lock()

    def take(self, amount: int) -> None:
        """Return as soon as `amount` fits; one that is over the limit by itself waits for an idle period."""
        if not self._limit:
            return
        while (pause := self._try(amount)) > 0:
            time.sleep(pause)

    def _try(self, amount: int) -> float:
        """Take the amount and return 0, or return the seconds after which to try again."""
        with self._lock:
            now = time.monotonic()
            while self._taken and self._taken[0][0] <= now - self._seconds:
                self._sum -= self._taken.popleft()[1]
            if self._taken and self._sum + amount > self._limit:
                return max(self._taken[0][0] + self._seconds - now, 0.001)
            self._taken.append((now, amount))
            self._sum += amount
            return 0.0


class Meter:
    """Counts usage and keeps it within the budget; for many threads.

    Args:
        settings: prices and limits.
    """

    def __init__(self, settings: LlmSettings) -> None:
        self._settings = settings
        self._usage = Usage()
        self._reserved = (0, 0)
        self._lock = threading.Lock()

    @property
    def usage(self) -> Usage:
        """What was used so far."""
        with self._lock:
            return self._usage

    def count(self, **more: int) -> None:
        """Add to counters of `Usage`, by their names."""
        with self._lock:
            self._update(**{name: getattr(self._usage, name) + n for name, n in more.items()})

    def reserve(self, prompt: int, completion: int) -> None:
        """Set aside the tokens that a request may use, so that requests under way at once stay within the budget.

        Raises:
            BudgetError: they do not fit.
        """
        settings = self._settings
        with self._lock:
            prompts = self._usage.prompt_tokens + self._reserved[0] + prompt
            completions = self._usage.completion_tokens + self._reserved[1] + completion
            if settings.max_total_tokens and prompts + completions > settings.max_total_tokens:
                raise BudgetError(
                    f"The budget of {settings.max_total_tokens} tokens for {settings.model!r} is spent.",
                    "Raise it and start again: replies that are kept cost nothing.",
                )
            if settings.max_cost and self._cost(prompts, completions) > settings.max_cost:
                raise BudgetError(
                    f"The budget of {settings.max_cost} for {settings.model!r} is spent.",
                    "Raise it and start again: replies that are kept cost nothing.",
                )
            self._reserved = (self._reserved[0] + prompt, self._reserved[1] + completion)

    def settle(self, reserved: tuple[int, int], used: tuple[int, int]) -> None:
        """Replace (prompt, completion) tokens that were set aside by those that were used."""
        with self._lock:
            self._reserved = (self._reserved[0] - reserved[0], self._reserved[1] - reserved[1])
            self._update(
                prompt_tokens=self._usage.prompt_tokens + used[0],
                completion_tokens=self._usage.completion_tokens + used[1],
            )

    def _update(self, **values: int) -> None:
        new = replace(self._usage, **values)
        cost = self._cost(new.prompt_tokens, new.completion_tokens)
        kept = self._cost(new.kept_prompt_tokens, new.kept_completion_tokens)
        self._usage = replace(new, cost=cost, full_cost=cost + kept)

    def _cost(self, prompts: int, completions: int) -> float:
        return (prompts * self._settings.input_price + completions * self._settings.output_price) / 1_000_000
