"""The data types that all stages share, as frozen dataclasses; standard library only."""

from __future__ import annotations

import time as _time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum
from typing import Literal
from urllib.parse import unquote

__all__ = [
    "FOLLOWUP_SECONDS",
    "SYNTHETIC_TENANT",
    "Answer",
    "Deletion",
    "Event",
    "Feedback",
    "Memory",
    "Negative",
    "Polarity",
    "Positive",
    "PositiveSource",
    "Progress",
    "RankedMemory",
    "Ratio",
    "Retrieval",
    "Role",
    "Scope",
    "ScopeLog",
    "Tier",
    "TieredExample",
    "Turn",
    "name_of",
    "new_id",
    "now",
    "synthetic_tenant",
]

#: The side of the search that a text stands on.
Role = Literal["query", "document"]
Polarity = Literal["POSITIVE", "NEGATIVE"]
#: Called while a stage runs: with its name, how much of it is done, and how much there is (0 where that is not known).
Progress = Callable[[str, int, int], None]
#: Where the belief that a (query, memory) pair is relevant comes from.
PositiveSource = Literal["feedback", "answer", "unretrieved", "synthesis", "replay"]


#: A search, or a turn, within this time after a search may say that what was found was wrong; assumed. Mining reads it
#: as a follow-up, and a retention that keeps a search with an outcome keeps it too.
FOLLOWUP_SECONDS = 300.0
#: The tenant of scopes that were synthesised, not captured; see also `synthetic_tenant`.
SYNTHETIC_TENANT = "hins-synthetic"


def synthetic_tenant(origin: str) -> str:
    """Return the tenant of what was synthesised from captured conversations of the tenant `origin` ("" for none)."""
    return f"{SYNTHETIC_TENANT}/{origin}"


def new_id() -> str:
    """Return a fresh random identifier of 32 hexadecimal digits."""
    return uuid.uuid4().hex


def now() -> float:
    """Return the current time in seconds since the Unix epoch (UTC)."""
    return _time.time()


def name_of(value: object) -> str | None:
    """Return an id of whatever type as a name for a `Scope`.

    Equal names are one owner, so two ids that a framework keeps apart must not become one name, and nothing is made
    up for what has none.

    Args:
        value: a string, or anything that a framework takes for one with `str`: a number, a UUID.

    Returns:
        The id as a plain string; "" for None, which means "not given"; None for what cannot be a name: the empty
        string, what has no text, and texts with NUL or half a surrogate pair, which no database holds as they are.
    """
    if value is None:
        return ""
    try:
        # A member of an Enum of strings is its value here; `str` of it is another text.
        text = str.__str__(value if isinstance(value, str) else str(value))
        text.encode("utf-8")
    except Exception:
        return None
    return text if text and "\x00" not in text else None


@dataclass(frozen=True, slots=True, order=True)
class Scope:
    """Whose data something is. Nothing crosses a scope except what the owner allows.

    Empty strings stand for "not given". `run` is one session of an owner; `owner` drops it. Parts of other types become
    strings as `name_of` says.

    Raises:
        ValueError: a part cannot be a name.
    """

    user: str = ""
    agent: str = ""
    run: str = ""
    tenant: str = ""

    def __post_init__(self) -> None:
        for part in ("user", "agent", "run", "tenant"):
            value = getattr(self, part)
            if type(value) is str:
                continue
            name = str.__str__(value) if isinstance(value, str) else name_of(value)
            if name is None:
                raise ValueError(
                    f"the {part} of a scope cannot be {value!r}; Scope.of gives None for what names no owner"
                )
            object.__setattr__(self, part, name)

    @classmethod
    def of(
        cls, *, user: object = None, agent: object = None, run: object = None, tenant: object = None
    ) -> Scope | None:
        """Return the scope of ids as `name_of` takes them.

        Returns:
            None when an id cannot be a name, and when no user, agent or run is given: no owner is named then, and what
            is recorded under an empty scope would be shared by all that have none.
        """
        parts = {"user": name_of(user), "agent": name_of(agent), "run": name_of(run), "tenant": name_of(tenant)}
        names = {part: name for part, name in parts.items() if name is not None}
        if len(names) < len(parts):
            return None
        scope = cls(**names)
        return scope if scope.user or scope.agent or scope.run else None

    @property
    def owner(self) -> Scope:
        """The same scope without its run: the unit that data never leaves by default.

        A session without a user or agent is its own owner: two sessions without a user or agent may be of two people.
        """
        if not (self.user or self.agent):
            return self
        return Scope(user=self.user, agent=self.agent, tenant=self.tenant)

    @classmethod
    def from_key(cls, key: str) -> Scope:
        """Return the scope that `key` was made from.

        Raises:
            ValueError: it was not made from a scope.
        """
        pairs = (part.split("=", 1) for part in key.split("&") if part)
        try:
            return cls(**{name: unquote(value) for name, value in pairs})
        except TypeError as error:
            raise ValueError(f"{key!r} does not name a scope") from error

    @property
    def levels(self) -> tuple[Scope, ...]:
        """Whose own encoder may serve searches of this scope, nearest first: the owner, its user, its tenant."""
        owner = self.owner
        user = Scope(user=owner.user, tenant=owner.tenant) if owner.user else owner
        return tuple(dict.fromkeys((owner, user, *([Scope(tenant=owner.tenant)] if owner.tenant else []))))

    @property
    def synthetic(self) -> bool:
        """Whether the data was synthesised, not captured."""
        return self.tenant == SYNTHETIC_TENANT or self.tenant.startswith(f"{SYNTHETIC_TENANT}/")

    @property
    def key(self) -> str:
        """A canonical text form, e.g. ``user=ann&agent=bot``; distinct scopes have distinct keys."""
        parts = (("tenant", self.tenant), ("user", self.user), ("agent", self.agent), ("run", self.run))
        return "&".join(f"{name}={_escape(value)}" for name, value in parts if value)


def _escape(value: str) -> str:
    return value.replace("%", "%25").replace("&", "%26").replace("=", "%3D")


@dataclass(frozen=True, slots=True)
class Turn:
    """One utterance. `time` is in seconds since the Unix epoch (UTC)."""

    scope: Scope
    conversation: str
    speaker: str
    text: str
    time: float = field(default_factory=now)
    id: str = field(default_factory=new_id)


@dataclass(frozen=True, slots=True)
class Memory:
    """A text that the agent stored, with its speaker and the turns it came from.

    `id` is the agent's own id. `speaker` is whom the memory is by or about ("" when unknown). `topic` is the
    framework's own topic label ("" when it has none). The same id recorded again is an update. `time` is in
    seconds since the Unix epoch (UTC).
    """

    id: str
    scope: Scope
    conversation: str
    text: str
    speaker: str = ""
    turn_ids: tuple[str, ...] = ()
    topic: str = ""
    time: float = field(default_factory=now)


@dataclass(frozen=True, slots=True)
class Deletion:
    """A memory, or (empty `memory_id`) every memory in the scope, was deleted from the agent.

    An empty part of the scope does not restrict, but a user, agent or run without a tenant is one outside of all
    tenants. A memory's id without any scope is enough where memories of one owner only have it.
    """

    scope: Scope
    memory_id: str = ""
    time: float = field(default_factory=now)


@dataclass(frozen=True, slots=True)
class RankedMemory:
    """One result of a retrieval; results are kept best first. `score` is the agent's own, higher is better."""

    memory_id: str
    text: str
    score: float


@dataclass(frozen=True, slots=True)
class Retrieval:
    """One search: the query, its scope, the ranked memories, and the encoder version that served it."""

    scope: Scope
    query: str
    results: tuple[RankedMemory, ...]
    encoder_version: str = ""
    time: float = field(default_factory=now)
    id: str = field(default_factory=new_id)


@dataclass(frozen=True, slots=True)
class Answer:
    """Outcome: the text that the agent answered after a retrieval."""

    retrieval_id: str
    text: str
    time: float = field(default_factory=now)


@dataclass(frozen=True, slots=True)
class Feedback:
    """Outcome: explicit feedback on a memory, for one retrieval ("" means the latest that returned it)."""

    memory_id: str
    polarity: Polarity
    retrieval_id: str = ""
    time: float = field(default_factory=now)


#: Everything that capture records.
Event = Turn | Memory | Deletion | Retrieval | Answer | Feedback


@dataclass(frozen=True, slots=True)
class ScopeLog:
    """Everything that the log holds of one owner (a scope without its run), in order of time.

    `memories` are the live ones, each in its latest text; `deleted` counts those deleted since.
    """

    scope: Scope
    turns: tuple[Turn, ...] = ()
    memories: tuple[Memory, ...] = ()
    retrievals: tuple[Retrieval, ...] = ()
    answers: tuple[Answer, ...] = ()
    feedback: tuple[Feedback, ...] = ()
    deleted: int = 0

    def conversations(self) -> dict[str, float]:
        """Return the time of the last turn or memory of each conversation, conversation -> seconds since the epoch."""
        events: tuple[Turn | Memory, ...] = (*self.turns, *self.memories)
        last: dict[str, float] = {}
        for event in events:
            last[event.conversation] = max(last.get(event.conversation, event.time), event.time)
        return last


class Tier(str, Enum):
    """How hard a negative is, by the rule of HiNS (arXiv 2601.14857), relative to the positive memory.

    HARD: same conversation, same topic, different speaker. MEDIUM: same conversation, different topic.
    EASY: another conversation.
    """

    EASY = "easy"
    MEDIUM = "medium"
    HARD = "hard"


@dataclass(frozen=True, slots=True)
class Ratio:
    """Share of each tier among a query's negatives; the three are >= 0 and sum to 1.

    `source` is "empirical" (counted from `count` ranked memories), "prior" or "given".
    """

    easy: float
    medium: float
    hard: float
    source: str = "given"
    count: int = 0

    def __post_init__(self) -> None:
        shares = (self.easy, self.medium, self.hard)
        if min(shares) < 0 or abs(sum(shares) - 1.0) > 1e-6:
            raise ValueError(f"a ratio needs three shares >= 0 that sum to 1, got {shares}")

    def share(self, tier: Tier) -> float:
        """Return the share of one tier, 0 to 1."""
        return {Tier.EASY: self.easy, Tier.MEDIUM: self.medium, Tier.HARD: self.hard}[tier]


@dataclass(frozen=True, slots=True)
class Positive:
    """A (query, memory) pair believed relevant. `confidence` is 0 to 1."""

    query: str
    memory_id: str
    text: str
    source: PositiveSource
    confidence: float
    retrieval_id: str = ""


@dataclass(frozen=True, slots=True)
class Negative:
    """A memory text that is not relevant to a query, with its tier. `score` is its cosine with the query."""

    memory_id: str
    text: str
    tier: Tier
    score: float = 0.0


@dataclass(frozen=True, slots=True)
class TieredExample:
    """One training example: a query, one positive memory text and its tiered negatives."""

    scope: Scope
    conversation: str
    positive: Positive
    negatives: tuple[Negative, ...]
