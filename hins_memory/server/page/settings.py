"""What the page may show and do."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from hins_memory.errors import ConfigError

__all__ = ["PageSettings"]


@dataclass(frozen=True, slots=True)
class PageSettings:
    """What the page may show and do; by default it shows no text of a user and changes nothing.

    Args:
        show_text: whether it shows memories, and reports that hold queries and memories.
        agent: the framework whose store is swapped and rolled back from the page, "" for none.
        agent_config: the JSON file that it is opened with; None opens its store under the project's folder.
        auto_rollback: whether the agent is rolled back when recent searches went worse than the gate measured.

    Raises:
        ConfigError: there is nothing to roll back.
    """

    show_text: bool = False
    agent: str = ""
    agent_config: Path | None = None
    auto_rollback: bool = False

    def __post_init__(self) -> None:
        if (self.auto_rollback or self.agent_config) and not self.agent:
            raise ConfigError("--auto-rollback and --agent-config need --agent.", "Name the framework, e.g. mem0.")
