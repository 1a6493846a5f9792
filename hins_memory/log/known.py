"""Whether the log has an event already: the same one, or another under its id. For capture from other processes."""

from __future__ import annotations

from collections.abc import Collection
from typing import Literal

import sqlalchemy as sa

from hins_memory.database.engine import database_errors, reading
from hins_memory.database.tables import answers, feedback, retrieval_results, retrievals, turns
from hins_memory.log import rows
from hins_memory.types import Answer, Deletion, Event, Feedback, Memory, Retrieval, Turn

__all__ = ["Known", "KnownEvents"]

#: ``new``: the log does not have it. ``same``: it has. ``other``: it has another event under the same id.
Known = Literal["new", "same", "other"]
# Ids looked up in one statement; SQLite allows a limited number of parameters.
_LOOKUP = 500
# Columns that are not part of what a client sent.
_OWN = {"seq", "owner"}


class KnownEvents:
    """Looks up events in a log opened by `open_database`.

    Turns and retrievals have ids of their own. An answer is the same if it has the text of one to the same retrieval,
    and feedback if it says the same as the latest on that memory for that retrieval. A memory's id, written again, is
    an update, and a deletion changes nothing the second time: both are always new.
    """

    def __init__(self, engine: sa.Engine) -> None:
        self._engine = reading(engine)

    def retrievals(self, ids: Collection[str]) -> set[str]:
        """Return those of the ids that are retrievals in the log.

        Raises:
            LogError: the database cannot be read.
        """
        wanted = sorted(set(ids))
        found: set[str] = set()
        with database_errors(self._engine.url), self._engine.connect() as connection:
            for start in range(0, len(wanted), _LOOKUP):
                part = retrievals.c.id.in_(wanted[start : start + _LOOKUP])
                found.update(connection.execute(sa.select(retrievals.c.id).where(part)).scalars())
        return found

    def find(self, event: Event, *, timed: bool, texts: bool = True) -> Known:
        """Tell whether the log has an event.

        Args:
            event: the event.
            timed: whether its time is part of it; False where it was only filled in.
            texts: whether what it says is compared; False where redaction may have changed what was written.

        Raises:
            EventRefusedError: it can never be written.
            LogError: the database cannot be read.
        """
        if isinstance(event, (Memory, Deletion)):
            return "new"
        with database_errors(self._engine.url), self._engine.connect() as connection:
            if isinstance(event, Answer):
                return _find_answer(connection, event, timed)
            if isinstance(event, Feedback):
                return _find_feedback(connection, event, timed)
            return _find_by_id(connection, event, timed, texts)


def _find_by_id(connection: sa.Connection, event: Turn | Retrieval, timed: bool, texts: bool) -> Known:
    table, wanted = (
        (turns, rows.turn_row(event)) if isinstance(event, Turn) else (retrievals, rows.retrieval_row(event))
    )
    stored = connection.execute(sa.select(table).where(table.c.id == wanted["id"])).mappings().first()
    if stored is None:
        return "new"
    if not texts:
        return "same"
    names = wanted.keys() - _OWN - (set() if timed else {"time"})
    if any(stored[name] != wanted[name] for name in names):
        return "other"
    if isinstance(event, Retrieval):
        query = sa.select(retrieval_results).where(retrieval_results.c.retrieval_id == wanted["id"])
        results = connection.execute(query.order_by(retrieval_results.c.rank)).mappings()
        if [dict(result) for result in results] != rows.result_rows(event):
            return "other"
    return "same"


def _find_answer(connection: sa.Connection, event: Answer, timed: bool) -> Known:
    wanted = rows.answer_row(event)
    names = ("retrieval_id", "text", *(("time",) if timed else ()))
    query = sa.select(answers.c.id).where(*(answers.c[name] == wanted[name] for name in names)).limit(1)
    return "new" if connection.execute(query).first() is None else "same"


def _find_feedback(connection: sa.Connection, event: Feedback, timed: bool) -> Known:
    wanted = rows.feedback_row(event)
    names = ("retrieval_id", "memory_id", *(("time",) if timed else ()))
    same = [feedback.c[name] == wanted[name] for name in names]
    latest = sa.select(feedback.c.polarity).where(*same).order_by(feedback.c.time.desc(), feedback.c.seq.desc())
    return "same" if connection.execute(latest.limit(1)).scalar() == wanted["polarity"] else "new"
