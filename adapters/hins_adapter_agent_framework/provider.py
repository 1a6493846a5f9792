"""A context provider of Microsoft Agent Framework over a Mem0 memory that records its use."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from agent_framework import ContextProvider, Message

from hins_memory.sdk import checked_async

__all__ = ["HinsContextProvider"]

_PROMPT = "## Memories\nConsider the following memories when answering user questions:"


class HinsContextProvider(ContextProvider):  # type: ignore[misc]  # agent_framework is not read by mypy
    """Gives an agent what a user's memories say about a question, stores what was said, and records the answer.

    Args:
        memory: a `hins_memory.AsyncMemory`, or an attached `mem0.AsyncMemory`.
        user: whose memories: an id, or a function of the session that returns one; without an id nothing is found
            or stored.
        application: the application's name, which becomes Mem0's ``agent_id``; "" for none.
        limit: how many memories an agent gets at most.
        infer: whether Mem0's language model makes memories of what was said, as `mem0.AsyncMemory.add` takes it.
        prompt: what comes before the memories.
        source_id: the provider's name in the framework.

    Raises:
        AgentError: the memory is not one of those.

    Example:
        provider = HinsContextProvider(hins_memory.AsyncMemory(), user=lambda session: session.state["user"])
        agent = Agent(client, context_providers=[provider])
    """

    def __init__(
        self,
        memory: Any,
        user: str | Callable[[Any], str | None],
        *,
        application: str = "",
        limit: int = 10,
        infer: bool = True,
        prompt: str = _PROMPT,
        source_id: str = "hins",
    ) -> None:
        super().__init__(source_id)
        #: the memory
        self.memory = checked_async(memory)
        self._user = user
        self._application = application
        self._limit, self._infer, self._prompt = limit, infer, prompt

    async def before_run(self, *, agent: Any, session: Any, context: Any, state: dict[str, Any]) -> None:
        """Search for what is asked, and put what is found before it."""
        owner, query = self._owner(session), "\n".join(_texts(context.input_messages))
        if not owner or not query:
            return
        found = await self.memory.search(query, filters=owner, top_k=self._limit)
        context.metadata[self.source_id] = found["retrieval_id"]
        if lines := [item["memory"] for item in found["results"]]:
            context.extend_messages(self, [Message("user", ["\n".join([self._prompt, *lines])])])

    async def after_run(self, *, agent: Any, session: Any, context: Any, state: dict[str, Any]) -> None:
        """Record the answer of the search, and store what was said."""
        replies = context.response.messages if context.response is not None else []
        if answer := "\n".join(_texts(message for message in replies if message.role == "assistant")):
            self.memory.answered(context.metadata.get(self.source_id, ""), answer)
        said = [
            {"role": str(message.role), "content": message.text}
            for message in (*context.input_messages, *replies)
            if message.role in ("user", "assistant") and message.text.strip()
        ]
        if said and (owner := self._owner(session)):
            await self.memory.add(said, infer=self._infer, **owner)

    def _owner(self, session: Any) -> Mapping[str, str]:
        """Return Mem0's ids of whose memories a session is about; none where no user is named."""
        user = self._user(session) if callable(self._user) else self._user
        if not user:
            return {}
        return {"user_id": user, "agent_id": self._application} if self._application else {"user_id": user}


def _texts(messages: Any) -> list[str]:
    return [message.text for message in messages if message.text.strip()]
