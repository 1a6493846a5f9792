"""Swaps and rollbacks that the page or the drift watch asks for: one at a time, in a thread."""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from hins_memory.errors import AgentError, ConfigError, HinsError
from hins_memory.types import now

if TYPE_CHECKING:
    from hins_memory.config import Settings
    from hins_memory.loop.pipeline import Pipeline
    from hins_memory.server.page.settings import PageSettings

__all__ = ["Job", "Operator"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Job:
    """The last swap or rollback: what it is, since when, how it stands, and what was said at its end."""

    what: str
    since: float
    state: Literal["running", "done", "failed"] = "running"
    said: str = ""


class Operator:
    """Swaps and rolls back the project's agent. Safe with several threads.

    Args:
        settings: the project.
        page: which agent, and how it is opened.
    """

    def __init__(self, settings: Settings, page: PageSettings) -> None:
        self._settings = settings
        self._page = page
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        #: the last one; None before the first
        self.job: Job | None = None

    @property
    def can_change(self) -> bool:
        """Whether there is an agent to swap and roll back."""
        return bool(self._page.agent)

    def swap(self, version: str) -> bool:
        """Start to swap the agent to a version, if the gate lets it pass; return whether it was started.

        False means that another one is running.
        """
        return self._start(f"swap to {version}", lambda pipeline: pipeline.swap(version))

    def rollback(self, why: str = "") -> bool:
        """Start to roll the agent back; return whether it was started."""
        return self._start(f"rollback{f', because {why}' if why else ''}", lambda pipeline: pipeline.rollback())

    def wait(self, seconds: float) -> None:
        """Wait until the running one has ended, at most so long."""
        if self._thread is not None:
            self._thread.join(seconds)

    def _start(self, what: str, work: Callable[[Pipeline], Any]) -> bool:
        with self._lock:
            if not self.can_change or (self.job is not None and self.job.state == "running"):
                return False
            started = now()
            self.job = Job(what, started)
            self._thread = threading.Thread(target=self._run, args=(what, started, work), name="hins-operator")
            self._thread.start()
            return True

    def _run(self, what: str, started: float, work: Callable[[Pipeline], Any]) -> None:
        logger.warning("Started: %s", what)
        try:
            report = self._done(work)
            self.job = Job(what, started, "done", f"{report.version} serves now, {report.previous} before.")
        except HinsError as error:
            self.job = Job(what, started, "failed", str(error))
        except Exception as error:
            logger.exception("Not done: %s", what)
            self.job = Job(what, started, "failed", f"{type(error).__name__}; the server's log says more.")
        logger.warning("%s: %s. %s", self.job.state.capitalize(), what, self.job.said)

    def _done(self, work: Callable[[Pipeline], Any]) -> Any:
        from hins_memory.loop.pipeline import Pipeline
        from hins_memory.plugins.manager import get_plugin_manager

        hook, name = get_plugin_manager().hook, self._page.agent
        memory = hook.hins_open_agent(name=name, settings=self._settings, config=self._config())
        if memory is None:
            raise AgentError(f"No plugin opens {name!r}.", "Run `hins doctor`.")
        try:
            return work(Pipeline(self._settings, memory))
        finally:
            if callable(close := getattr(memory, "close", None)):
                close()

    def _config(self) -> dict[str, Any] | None:
        path = self._page.agent_config
        if path is None:
            return None
        try:
            found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise ConfigError(f"{path} cannot be read as JSON: {error}.", "Check --agent-config.") from error
        return found
