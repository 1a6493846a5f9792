"""A client of `hins serve` for agents in other processes: their searches, memories and outcomes into the log.

It imports the standard library only. A TypeScript client is among the examples.
"""

from __future__ import annotations

import asyncio
import json
import time
import urllib.error
import urllib.request
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hins_memory.errors import HinsError
from hins_memory.types import (
    Answer,
    Deletion,
    Event,
    Feedback,
    Memory,
    Polarity,
    RankedMemory,
    Retrieval,
    Scope,
)

__all__ = ["AsyncClient", "Client", "ClientError", "Receipt"]

# Events in one request; the server takes 500.
_BATCH = 200
_ATTEMPTS = 3
_WAIT_SECONDS = 0.5
_MOST_WAIT_SECONDS = 5.0
#: Statuses after which the same request may succeed: too many requests, and a server that is starting or ending.
_AGAIN = (429, 502, 503, 504)


class ClientError(HinsError):
    """The server refused a request, or did not answer.

    Attributes:
        status: of the answer, e.g. 409 for an id that is known with other content; 0 without an answer.
    """

    def __init__(self, problem: str, hint: str = "", status: int = 0) -> None:
        super().__init__(problem, hint)
        self.status = status


@dataclass(frozen=True, slots=True)
class Receipt:
    """How many events were recorded, and how many the log had already."""

    recorded: int
    known: int


class Client:
    """Records what an agent does in the log of a `hins serve`.

    Sending the same event again is harmless, so that a request without an answer is tried again. May be shared by
    threads.

    Args:
        url: of the server.
        key: what ``HINS_API_KEY`` is there; "" for a server without one.
        timeout: seconds that one request may take.

    Example:
        >>> client = Client("http://127.0.0.1:8620", key="...")  # doctest: +SKIP
        >>> found = [RankedMemory("m1", "Ann plays the oboe.", 0.8)]  # doctest: +SKIP
        >>> search = client.retrieved("Which instrument?", found, Scope(user="ann"))  # doctest: +SKIP
        >>> client.answered(search, "The oboe.")  # doctest: +SKIP
    """

    def __init__(self, url: str, key: str = "", timeout: float = 10.0) -> None:
        self._url = url.rstrip("/")
        self._key = key
        self._timeout = timeout

    def retrieved(self, query: str, results: Sequence[RankedMemory], scope: Scope, *, encoder_version: str = "") -> str:
        """Record a search and what it returned, best first; return its id, which outcomes name.

        Raises:
            ClientError: the server refused it, or did not answer.
        """
        event = Retrieval(scope, query, tuple(results), encoder_version)
        self.record([event])
        return event.id

    def answered(self, retrieval_id: str, text: str) -> None:
        """Record the answer that was given after a search.

        Raises:
            ClientError: the server refused it, or did not answer.
        """
        self.record([Answer(retrieval_id, text)])

    def feedback(self, retrieval_id: str, memory_id: str, polarity: Polarity) -> None:
        """Record feedback on a memory that a search returned.

        Raises:
            ClientError: the server refused it, or did not answer.
        """
        self.record([Feedback(memory_id, polarity, retrieval_id)])

    def record(self, events: Iterable[Event]) -> Receipt:
        """Record events, in their order.

        Raises:
            ClientError: the server refused some, or did not answer. Those before them are recorded.
        """
        recorded = known = 0
        for path, part in _requests(events):
            answer = self._post(path, part)
            recorded, known = recorded + int(answer["recorded"]), known + int(answer["known"])
        return Receipt(recorded, known)

    def _post(self, path: str, body: Any) -> Mapping[str, Any]:
        headers = {"content-type": "application/json"}
        if self._key:
            headers["authorization"] = f"Bearer {self._key}"
        data = json.dumps(body).encode()
        request = urllib.request.Request(f"{self._url}{path}", data, headers, method="POST")
        for attempt in range(1, _ATTEMPTS + 1):
            try:
                with urllib.request.urlopen(request, timeout=self._timeout) as response:
                    answer: Mapping[str, Any] = json.loads(response.read())
                    return answer
            except urllib.error.HTTPError as error:
                with error:
                    found = _refused(error)
                if error.code not in _AGAIN or attempt == _ATTEMPTS:
                    raise found from error
                wait = _seconds(error.headers.get("retry-after"), attempt)
            except (OSError, ValueError) as error:
                if attempt == _ATTEMPTS:
                    raise ClientError(f"{self._url} does not answer: {error}.", "Start `hins serve` there.") from error
                wait = _seconds(None, attempt)
            time.sleep(wait)
        raise AssertionError("unreachable")


class AsyncClient:
    """The same for asyncio: each request runs in a thread.

    Args:
        url: of the server.
        key: what ``HINS_API_KEY`` is there.
        timeout: seconds that one request may take.
    """

    def __init__(self, url: str, key: str = "", timeout: float = 10.0) -> None:
        self._client = Client(url, key, timeout)

    async def retrieved(
        self, query: str, results: Sequence[RankedMemory], scope: Scope, *, encoder_version: str = ""
    ) -> str:
        """Record a search; see `Client.retrieved`."""
        return await asyncio.to_thread(self._client.retrieved, query, results, scope, encoder_version=encoder_version)

    async def answered(self, retrieval_id: str, text: str) -> None:
        """Record an answer; see `Client.answered`."""
        await asyncio.to_thread(self._client.answered, retrieval_id, text)

    async def feedback(self, retrieval_id: str, memory_id: str, polarity: Polarity) -> None:
        """Record feedback; see `Client.feedback`."""
        await asyncio.to_thread(self._client.feedback, retrieval_id, memory_id, polarity)

    async def record(self, events: Iterable[Event]) -> Receipt:
        """Record events; see `Client.record`."""
        return await asyncio.to_thread(self._client.record, list(events))


def _requests(events: Iterable[Event]) -> Iterable[tuple[str, list[dict[str, Any]]]]:
    """Yield the path and body of each request; neighbours of one kind share one, so that the order stays."""
    path, part = "", list[dict[str, Any]]()
    for event in events:
        where, body = _body(event)
        if part and (where != path or len(part) == _BATCH):
            yield path, part
            part = []
        path = where
        part.append(body)
    if part:
        yield path, part


def _body(event: Event) -> tuple[str, dict[str, Any]]:
    if isinstance(event, Answer):
        body = {"type": "answer", "retrieval_id": event.retrieval_id, "text": event.text, "time": event.time}
        return "/v1/outcomes", body
    if isinstance(event, Feedback):
        body = {"type": "feedback", "retrieval_id": event.retrieval_id, "memory_id": event.memory_id}
        return "/v1/outcomes", {**body, "polarity": event.polarity, "time": event.time}
    names = ("user", "agent", "run", "tenant")
    common: dict[str, Any] = {"scope": {name: part for name in names if (part := getattr(event.scope, name))}}
    common["time"] = event.time
    if isinstance(event, Deletion):
        return "/v1/deletions", common | ({"memory_id": event.memory_id} if event.memory_id else {})
    common["id"] = event.id
    if isinstance(event, Retrieval):
        results = [{"memory_id": one.memory_id, "text": one.text, "score": one.score} for one in event.results]
        body = {"query": event.query, "results": results, "encoder_version": event.encoder_version}
        return "/v1/retrievals", common | body
    common |= {"conversation": event.conversation, "speaker": event.speaker, "text": event.text}
    if isinstance(event, Memory):
        return "/v1/memories", common | {"turn_ids": list(event.turn_ids), "topic": event.topic}
    return "/v1/turns", common


def _refused(error: urllib.error.HTTPError) -> ClientError:
    try:
        said = json.loads(error.read())
    except (OSError, ValueError):
        said = {}
    return ClientError(f"The server refused the request with {error.code}: {_message(said)}", status=error.code)


def _message(said: Any) -> str:
    error = said.get("error") if isinstance(said, dict) else None
    return str(error.get("message", "")) if isinstance(error, dict) else "it gave no reason"


def _seconds(after: str | None, attempt: int) -> float:
    """Return how long to wait before the next attempt: what the server says, within bounds."""
    try:
        asked = float(after) if after else _WAIT_SECONDS * 2 ** (attempt - 1)
    except ValueError:
        asked = _WAIT_SECONDS
    return min(max(asked, 0.0), _MOST_WAIT_SECONDS)
