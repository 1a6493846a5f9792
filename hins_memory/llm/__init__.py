"""Language models behind any OpenAI-compatible endpoint: cache, rate limits, retries, budgets, typed replies."""

from hins_memory.llm.budget import BudgetError, LlmError, Usage
from hins_memory.llm.cache import ReplyCache, clear_cache
from hins_memory.llm.client import ChatClient, Reply
from hins_memory.llm.settings import LlmSettings

__all__ = ["BudgetError", "ChatClient", "LlmError", "LlmSettings", "Reply", "ReplyCache", "Usage", "clear_cache"]
