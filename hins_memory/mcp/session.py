"""Records what the calls of one session mean, and what the agent says became of them; raises nothing."""

from __future__ import annotations

import hashlib
import json
import logging
import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any

from hins_memory.config import Settings
from hins_memory.database.engine import open_database
from hins_memory.log.capture import Capture, make_feedback, never_raises
from hins_memory.log.reader import LogReader
from hins_memory.mcp.mapping import Mapped, Template, ToolMap
from hins_memory.types import Answer, Deletion, Memory, RankedMemory, Retrieval, Scope, new_id

__all__ = ["Session"]

logger = logging.getLogger(__name__)

#: Searches whose results feedback may name.
_REMEMBERED = 100
_CLOSE_SECONDS = 5.0


class Session:
    """The calls of one agent to one server, as events in the log.

    What is searched and stored in a session is one conversation of the log.

    Args:
        settings: the project.
        mapping: what the server's tools mean.
        scope: parts of the scope of all calls, e.g. ``{"user": "ann"}``; they win over the mapping's.
    """

    def __init__(self, settings: Settings, mapping: Mapped, scope: Mapping[str, str]) -> None:
        self.tools = mapping.tools
        self.on = settings.capture
        self._settings = settings
        self._mapping = mapping
        self._scope = {"run": new_id(), **scope}
        self._capture = Capture(settings)
        self._unanswered: list[str] = []
        self._found: deque[Retrieval] = deque(maxlen=_REMEMBERED)
        self._warned: set[str] = set()
        self._later: list[threading.Thread] = []

    @never_raises(None)
    def called(self, name: str, arguments: Mapping[str, Any], result: Mapping[str, Any]) -> None:
        """Record a call of one of the mapping's tools, which the server answered without an error."""
        tool = self.tools[name]
        call = {"arguments": arguments, "result": _content(result)}
        scope = self._scope_of(call)
        if scope is None:
            self._warn(f"Calls of {name} that name no user, agent or run are not recorded: give --user")
            return
        try:
            if tool.does == "search":
                self._searched(tool, call, scope)
            elif tool.does == "add":
                self._added(tool, call, scope)
            else:
                self._deleted(tool, call, scope)
        except LookupError as error:
            self._warn(f"The mapping does not fit what the server answers to {name}: {error.args[0]}")

    @never_raises(None)
    def offered(self, tools: list[Any]) -> None:
        """Warn of tools of the mapping, and arguments that it reads, which the server does not have.

        Args:
            tools: all tools that the server listed.
        """
        schemas = {tool["name"]: tool.get("inputSchema") or {} for tool in tools}
        for name, tool in self.tools.items():
            known = schemas.get(name, {}).get("properties")
            if name not in schemas:
                self._warn(f"The server has no tool {name}, which the mapping names")
            elif missing := sorted(tool.arguments - (known or {}).keys()):
                self._warn(f"The tool {name} has no argument {missing[0]}, which the mapping reads")

    def answered(self, text: Any) -> tuple[str, bool]:
        """Record an answer to every search since the last one; return what to tell the agent, and if it is recorded."""
        if not isinstance(text, str) or not text.strip():
            return "The answer is missing.", False
        waiting, self._unanswered = self._unanswered, []
        for retrieval_id in waiting:
            self._capture.record(Answer(retrieval_id, text))
        return ("Recorded.", True) if waiting else ("Not recorded: no search came before this answer.", False)

    def feedback(self, memory: Any, helpful: Any) -> tuple[str, bool]:
        """Record feedback on a memory that a search of this session returned.

        Args:
            memory: its id or its text, or a part of them.
            helpful: whether it helped.

        Returns:
            What to tell the agent, and whether it was recorded.
        """
        if not isinstance(memory, str) or not memory.strip() or not isinstance(helpful, bool):
            return "Give memory as a text, and helpful as true or false.", False
        for retrieval in reversed(self._found):
            matches = _matches(retrieval, memory)
            if len(matches) == 1:
                polarity = "POSITIVE" if helpful else "NEGATIVE"
                self._capture.record(make_feedback(matches.pop(), polarity, retrieval.id))
                return "Recorded.", True
            if matches:
                return f"Not recorded: {len(matches)} memories have that text. Give more of it.", False
        return "Not recorded: no search of this session returned that memory.", False

    @never_raises(None)
    def close(self) -> None:
        """Write what waits."""
        for thread in self._later:
            thread.join(_CLOSE_SECONDS)
        self._capture.close()

    def _scope_of(self, call: Mapping[str, Any]) -> Scope | None:
        named = {part: template.fill(call) or None for part, template in self._mapping.scope.items()}
        parts: dict[str, Any] = named | self._scope
        # A session alone names no owner here: the next one could not learn from it.
        return Scope.of(**parts) if parts.get("user") or parts.get("agent") else None

    def _searched(self, tool: ToolMap, call: Mapping[str, Any], scope: Scope) -> None:
        query = tool.fields["query"].fill(call)
        results = [RankedMemory(id_, text, _score(tool, one)) for one, id_, text in _memories(tool, call)]
        if not query:
            return
        event = Retrieval(scope, query, tuple(results))
        if "text" in tool.fields:
            self._capture.record(event)
        else:
            self._do_later(self._record_with_texts, event)
        self._found.append(event)
        self._unanswered.append(event.id)

    def _added(self, tool: ToolMap, call: Mapping[str, Any], scope: Scope) -> None:
        for one, id_, text in _memories(tool, call):
            speaker, topic = (tool.fields.get(name, Template("")).fill(one) for name in ("speaker", "topic"))
            self._capture.record(Memory(id_, scope, scope.key, text, speaker, topic=topic))

    def _deleted(self, tool: ToolMap, call: Mapping[str, Any], scope: Scope) -> None:
        if "speaker" not in tool.fields:
            for _, id_, _ in _memories(tool, call):
                self._capture.record(Deletion(scope.owner, id_))
            return
        names = {tool.fields["speaker"].fill(one) for one in tool.items.of(call)} - {""}
        self._do_later(self._delete_about, scope.owner, names)

    def _do_later(self, function: Callable[..., None], *args: Any) -> None:
        """Call in a thread what reads the log: a database may be slow, and the agent does not wait for it."""
        thread = threading.Thread(target=function, args=args, daemon=True)
        self._later = [one for one in self._later if one.is_alive()] + [thread]
        thread.start()

    @never_raises(None)
    def _record_with_texts(self, event: Retrieval) -> None:
        """Record a search whose results came without texts, with those that the log has under their ids."""
        known = {one.id: one.text for one in self._stored(event.scope, {one.memory_id for one in event.results})}
        results = (replace(one, text=known.get(one.memory_id, "")) for one in event.results)
        self._capture.record(replace(event, results=tuple(results)))

    @never_raises(None)
    def _delete_about(self, owner: Scope, names: set[str]) -> None:
        """Record that the memories about these names are gone."""
        for memory in self._stored(owner):
            if memory.speaker in names:
                self._capture.record(Deletion(owner, memory.id))

    def _stored(self, owner: Scope, ids: set[str] | None = None) -> list[Memory]:
        self._capture.flush()
        return LogReader(open_database(self._settings.database_url)).memories_of(owner, ids)

    def _warn(self, text: str) -> None:
        if text not in self._warned:
            self._warned.add(text)
            logger.warning("%s", text)


def _memories(tool: ToolMap, call: Mapping[str, Any]) -> Iterator[tuple[Mapping[str, Any], str, str]]:
    """Yield (values, id, text) of each memory of a call; those without an id of the server's have one by their text."""
    for one in tool.items.of(call):
        text = tool.fields["text"].fill(one) if "text" in tool.fields else ""
        if "id" in tool.fields:
            id_ = tool.fields["id"].fill(one)
        else:
            id_ = text and hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:32]
        if id_ and (text or "text" not in tool.fields):
            yield one, id_, text


def _score(tool: ToolMap, values: Mapping[str, Any]) -> float:
    try:
        return float(tool.fields["score"].fill(values)) if "score" in tool.fields else 0.0
    except ValueError:
        return 0.0


def _matches(retrieval: Retrieval, memory: str) -> set[str]:
    exact = {one.memory_id for one in retrieval.results if memory.strip() in (one.memory_id, one.text)}
    part = memory.strip().casefold()
    return exact or {one.memory_id for one in retrieval.results if part in f"{one.memory_id}\n{one.text}".casefold()}


def _content(result: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return what a tool returned: its structured content, else its texts, which often are JSON.

    What is not an object is under the name ``result``, as servers made with the MCP package have it too.
    """
    found = result.get("structuredContent")
    if found is None:
        blocks = result.get("content")
        texts = [one["text"] for one in blocks or () if isinstance(one, dict) and isinstance(one.get("text"), str)]
        values = [_parsed(text) for text in texts]
        found = values[0] if len(values) == 1 else values
    return found if isinstance(found, Mapping) else {"result": found}


def _parsed(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text
