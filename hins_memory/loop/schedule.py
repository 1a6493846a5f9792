"""When a new round of the loop is worth it: "200 new outcomes or 7 days", and the rounds that there were."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import sqlalchemy as sa

from hins_memory.database.engine import database_errors, reading
from hins_memory.database.leases import Clock, database_clock
from hins_memory.database.tables import answers, feedback, retrievals, rounds
from hins_memory.errors import ConfigError, NotEnoughDataError
from hins_memory.loop.split import conversation_digest
from hins_memory.types import Scope

__all__ = ["Decision", "Round", "Rounds", "Term", "When", "parse_when"]

_EXAMPLE = 'Write for example "200 new outcomes or 7 days", or "50 answers and 12 hours".'
_TERM = re.compile(r"(\d+(?:\.\d+)?)\s+(?:new\s+)?(outcome|answer|feedback|hour|day|week)s?", re.IGNORECASE)
_SECONDS = {"hour": 3600.0, "day": 86400.0, "week": 7 * 86400.0}
# A round that failed is tried again after so long, not with every call: training takes minutes.
_RETRY_SECONDS = 3600.0
# A round with one of these outcomes is over: what came before it is not new any more.
_OVER = ("swapped", "refused", "too little")


@dataclass(frozen=True, slots=True)
class Term:
    """One amount that has to be reached, e.g. 200 outcomes or 7 days, since the last round."""

    amount: float
    unit: str

    def __str__(self) -> str:
        plural = "" if self.unit == "feedback" or self.amount == 1 else "s"
        return f"{self.amount:g} {'' if self.unit in _SECONDS else 'new '}{self.unit}{plural}"


@dataclass(frozen=True, slots=True)
class When:
    """A condition: any of the groups, of which each term has to hold."""

    groups: tuple[tuple[Term, ...], ...]

    def __str__(self) -> str:
        return " or ".join(" and ".join(map(str, group)) for group in self.groups)


@dataclass(frozen=True, slots=True)
class Decision:
    """Whether a new round is worth it.

    Attributes:
        due: whether it is.
        why: the reason in words.
        when: the condition, as it was understood.
        new: what came since the last round: answers, feedback, outcomes (both together), and days as far as known.
    """

    due: bool
    why: str
    when: str
    new: dict[str, float | None]

    def to_dict(self) -> dict[str, Any]:
        """Return the decision as JSON-able values."""
        return asdict(self)


def round_name(agent: str, scope: Scope | None) -> str:
    """Return what rounds of an agent are recorded under; a scope's without its name, which a purge would miss."""
    return agent if scope is None else f"{agent} {conversation_digest(scope, '')}"


class Round:
    """A round that runs; `end` says how it ended before the block of `Rounds.record` does."""

    def __init__(self) -> None:
        self.outcome = "failed"
        self.version = ""

    def end(self, swapped: bool, version: str) -> None:
        """Note that the round came to its end: with a swap, or with a refusal of the gate."""
        self.outcome = "swapped" if swapped else "refused"
        self.version = version


def parse_when(text: str) -> When:
    """Read a condition: amounts of ``outcomes``, ``answers``, ``feedback``, ``hours``, ``days`` or ``weeks``.

    They are joined by ``and`` and ``or``; ``and`` binds closer. ``new`` may stand before what is counted.

    Raises:
        ConfigError: it cannot be read.

    Example:
        >>> str(parse_when("200 New outcomes or 7 days and 20 answers"))
        '200 new outcomes or 7 days and 20 new answers'
    """
    groups = []
    for group in re.split(r"\s+or\s+", text.strip(), flags=re.IGNORECASE):
        terms = []
        for part in re.split(r"\s+and\s+", group, flags=re.IGNORECASE):
            match = _TERM.fullmatch(part.strip())
            if match is None or float(match.group(1)) <= 0:
                raise ConfigError(f"{part.strip()!r} is not an amount of anything that a schedule counts.", _EXAMPLE)
            terms.append(Term(float(match.group(1)), match.group(2).lower()))
        groups.append(tuple(terms))
    return When(tuple(groups))


class Rounds:
    """The rounds of a project. What is new is counted by the order of writing, so that no clock decides it.

    Args:
        engine: the project's database, opened by `open_database`.
        clock: tells the time, by default that of the database.
    """

    def __init__(self, engine: sa.Engine, clock: Clock = database_clock) -> None:
        self._engine = engine
        self._clock = clock

    def decide(self, when: When, agent: str, scope: Scope | None = None) -> Decision:
        """Say whether a new round is worth it for an agent, and why.

        Args:
            when: the condition.
            agent: the framework's name, as `record` is given it.
            scope: whose rounds and outcomes count; None means everyone's.

        Raises:
            LogError: the database cannot be read.
        """
        agent = round_name(agent, scope)
        with database_errors(self._engine.url), reading(self._engine).connect() as connection:
            time = self._clock(connection)
            last = connection.execute(_rounds_of(agent)).first()
            over = connection.execute(_rounds_of(agent).where(rounds.c.outcome.in_(_OVER))).first()
            new: dict[str, float | None] = {
                table.name: connection.execute(_count_after(table, getattr(over, column, 0), scope)).scalar_one()
                for table, column in ((answers, "answers"), (feedback, "feedback"))
            }
        new["outcomes"] = (new["answers"] or 0) + (new["feedback"] or 0)
        new["days"] = None if over is None else (time - over.started) / _SECONDS["day"]
        if last is not None and last.outcome not in _OVER:
            tried = last.finished if last.finished is not None else last.started
            # A time that is yet to come says that the clock went back, and nothing else.
            if 0 <= time - tried < _RETRY_SECONDS:
                how = "failed" if last.finished is not None else "did not come to its end"
                why = f"The last round {how} {(time - tried) / 60:.0f} minutes ago; it is tried again after an hour."
                return Decision(False, why, str(when), new)
        return _decided(when, new)

    @contextlib.contextmanager
    def record(self, agent: str, scope: Scope | None = None) -> Iterator[Round]:
        """Record the round that runs in the block. One that is not ended in it is recorded as failed.

        Args:
            agent: the framework's name.
            scope: whose round it is; None means everyone's.

        Raises:
            LogError: the database cannot be written.
        """
        with database_errors(self._engine.url), self._engine.begin() as connection:
            values = {"agent": round_name(agent, scope), "started": self._clock(connection)}
            values |= {table.name: connection.execute(_last(table)).scalar_one() for table in (answers, feedback)}
            number = connection.execute(sa.insert(rounds).values(**values).returning(rounds.c.seq)).scalar_one()
        this = Round()
        try:
            yield this
        except NotEnoughDataError:
            this.outcome = "too little"
            raise
        finally:
            with database_errors(self._engine.url), self._engine.begin() as connection:
                ended = {"finished": self._clock(connection), "outcome": this.outcome, "version": this.version}
                connection.execute(sa.update(rounds).where(rounds.c.seq == number).values(**ended))


def _decided(when: When, new: dict[str, float | None]) -> Decision:
    missing = []
    for group in when.groups:
        reasons = [_reached(term, new) for term in group]
        if all(holds for holds, _ in reasons):
            return Decision(True, f"{_sentence(reason for _, reason in reasons)}.", str(when), new)
        missing.append(_sentence(reason for holds, reason in reasons if not holds))
    return Decision(False, f"{'; '.join(missing)}.", str(when), new)


def _sentence(reasons: Iterator[str]) -> str:
    return ", ".join(reasons)


def _reached(term: Term, new: dict[str, float | None]) -> tuple[bool, str]:
    """Return whether a term holds, and a phrase that says why."""
    if term.unit not in _SECONDS:
        count = new["feedback" if term.unit == "feedback" else f"{term.unit}s"] or 0
        return count >= term.amount, f"{count:g} of {term}"
    days = new["days"]
    if days is None:
        return True, "there was no round yet"
    wanted = term.amount * _SECONDS[term.unit] / _SECONDS["day"]
    if days < -wanted:
        # Waiting for the clock to come back there could take forever.
        return True, "the last round is dated in the future, so that the clock was set back"
    passed = max(days, 0.0) * _SECONDS["day"] / _SECONDS[term.unit]
    return days >= wanted, f"{passed:.1f} of {term} since the last round"


def _rounds_of(agent: str) -> sa.Select[Any]:
    return sa.select(rounds).where(rounds.c.agent == agent).order_by(rounds.c.seq.desc()).limit(1)


def _last(table: sa.Table) -> sa.Select[Any]:
    return sa.select(sa.func.coalesce(sa.func.max(table.c.seq), 0))


def _count_after(table: sa.Table, seq: int, scope: Scope | None) -> sa.Select[Any]:
    query = sa.select(sa.func.count()).where(table.c.seq > seq)
    if scope is None:
        return query.select_from(table)
    # Of a tenant all users, of a user all agents: see `Scope.levels`.
    of = {"tenant": scope.tenant}
    of |= {"user": scope.user} if scope.user or scope.agent else {}
    of |= {"agent": scope.agent} if scope.agent else {}
    joined = table.join(retrievals, retrievals.c.id == table.c.retrieval_id)
    return query.select_from(joined).where(*(retrievals.c[name] == value for name, value in of.items()))
