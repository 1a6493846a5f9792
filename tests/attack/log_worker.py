"""A process that uses the log as it is told, for the machine of test_attack_log.py; it can be killed and can fork."""

from __future__ import annotations

import os
from multiprocessing.connection import Client, Connection
from pathlib import Path
from typing import Any

from hins_memory.config import Settings
from hins_memory.database.engine import open_database
from hins_memory.log.capture import Capture
from hins_memory.log.reader import LogReader
from hins_memory.log.writer import LogWriter
from hins_memory.types import Event, Scope, Turn


def work(address: str, home: str) -> None:
    """Connect, say who this is, and do what is asked until the end."""
    worker = Worker(Settings(home=Path(home), project="p", log_url="", capture=True))
    channel = _connected(address)
    while True:
        name, arguments = channel.recv()
        try:
            if name == "fork":
                if os.fork() == 0:
                    channel.close()
                    channel = _connected(address)
                    continue
                answer: Any = None
            else:
                answer = getattr(worker, name)(*arguments)
        except BaseException as error:
            answer = error
        channel.send(answer)
        if name == "end":
            os._exit(0)


def _connected(address: str) -> Connection:
    channel = Client(address, "AF_UNIX")
    channel.send(os.getpid())
    return channel


class Worker:
    """What a process can do with the log; whatever it returns is acknowledged."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._engines = [open_database(settings.database_url)]
        self._capture: Capture | None = None

    def write(self, events: list[Event]) -> None:
        """Write events through the engine that was opened last."""
        assert LogWriter(self._engines[-1]).write(events) == []

    def record(self, events: list[Event], flush: bool) -> bool:
        """Give events to a capture; True when they are known to be written."""
        if self._capture is None:
            self._capture = Capture(self._settings)
        for event in events:
            self._capture.record(event)
        return flush and self._capture.flush(60)

    def open_again(self) -> None:
        """Open the log once more, as a second Memory of the process does."""
        self._engines.append(open_database(self._settings.database_url))

    def let_go(self) -> None:
        """Close what this process has open; it is opened again when needed."""
        self._engines[-1].dispose()

    def read(self) -> tuple[set[str], dict[str, str]]:
        """Return the ids of all turns, and the texts of all live memories by their ids."""
        logs = list(LogReader(self._engines[-1]).scope_logs())
        turns = {turn.id for log in logs for turn in log.turns}
        return turns, {memory.id: memory.text for log in logs for memory in log.memories}

    def purge(self, user: str) -> None:
        """Remove a user."""
        LogWriter(self._engines[-1]).purge(user)

    def fork_in_transaction(self, user: str, turn_id: str) -> None:
        """Fork a child in the middle of a transaction; the child tries to use the database, and ends."""
        engine = self._engines[-1]
        statement = (
            "INSERT INTO turns (id, owner, user, conversation, speaker, text, time) VALUES (?, ?, ?, '', '', '', 1)"
        )
        with engine.begin() as connection:
            connection.exec_driver_sql(statement, (turn_id, Scope(user=user).key, user))
            child = os.fork()
            if child == 0:
                status = 1
                try:
                    connection.exec_driver_sql(statement, (f"{turn_id} child", "", user))
                    connection.commit()
                except Exception:
                    status = 0
                try:
                    self.write([Turn(Scope(user=user), "", "", "", id=f"{turn_id} child")])
                    status = 1
                except Exception:
                    pass
                os._exit(status)
            _, status = os.waitpid(child, 0)
        assert status == 0, "the child wrote through a connection of its parent"

    def end(self) -> None:
        """Close everything cleanly, before the process ends."""
        if self._capture is not None:
            self._capture.close(60)
            assert self._capture.dropped == 0
        for engine in self._engines:
            engine.dispose()
