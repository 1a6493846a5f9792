"""`hins run --when`: one round at a time over all hosts, and only when a condition holds."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Annotated

import typer

from hins_memory.config import Settings
from hins_memory.loop.schedule import Decision, Rounds, parse_when
from hins_memory.types import Scope

__all__ = ["WhenOption", "one_round"]

WhenOption = Annotated[
    str | None,
    typer.Option(
        "--when",
        metavar="CONDITION",
        help='Only if it is worth it, e.g. "200 new outcomes or 7 days"; exit status 0 if it is not.',
    ),
]
_LEASE = "round"


@contextlib.contextmanager
def one_round(
    settings: Settings, when: str | None, agent: str, scope: Scope | None = None
) -> Iterator[Decision | None]:
    """Hold the project's lease of a round; yield whether the condition asks for a round, None without a condition.

    With a scope it is about the rounds and the outcomes of that scope.

    Raises:
        ConfigError: the condition cannot be read.
        LeaseHeldError: another round runs, and no condition was given.
    """
    from hins_memory.database.engine import open_database
    from hins_memory.database.leases import LeaseHeldError, Leases

    condition = None if when is None else parse_when(when)
    engine = open_database(settings.database_url)
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(Leases(engine, settings.root / "locks").hold(_LEASE))
        except LeaseHeldError as error:
            if condition is None:
                raise
            yield Decision(False, f"Another round runs: {error.holder}.", str(condition), {})
            return
        yield None if condition is None else Rounds(engine).decide(condition, agent, scope)
