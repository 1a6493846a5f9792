"""The global options, and opening an agent by name through the installed plugins."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hins_memory.cli.screen import Bars
from hins_memory.config import Settings
from hins_memory.errors import AgentError, ConfigError
from hins_memory.plugins.manager import broken_plugins, get_plugin_manager
from hins_memory.types import Scope

if TYPE_CHECKING:
    from hins_memory.swapping import Scale

__all__ = [
    "AgentConfig",
    "AgentName",
    "EncodeRate",
    "Options",
    "OwnerName",
    "ScaleAt",
    "TenantName",
    "WriteRate",
    "check_agent",
    "check_alone",
    "opened_agent",
    "scale_of",
    "scope_of",
    "settings_of",
]

AgentName = Annotated[str, typer.Option("--agent", help="The agent framework whose store is worked on.")]
AgentConfig = Annotated[
    Path | None,
    typer.Option(
        "--agent-config",
        metavar="FILE.json",
        help="The configuration that the agent is opened with; its store under the project's folder by default.",
    ),
]


OwnerName = Annotated[
    str | None,
    typer.Option(
        "--owner",
        metavar="NAME",
        help="Only this user's log and searches: a name, or a scope as `hins log show` has it (user=ann&agent=bot).",
    ),
]
TenantName = Annotated[
    str | None,
    typer.Option("--tenant", metavar="NAME", help="Only this tenant; with --owner, the user of this tenant."),
]
ScaleAt = Annotated[
    float | None,
    typer.Option(
        "--at",
        metavar="N",
        help="With --dry-run: what N memories take, e.g. 1e9. Writes 256 records beside the store and drops them.",
    ),
]
EncodeRate = Annotated[
    float | None,
    typer.Option("--encode-rate", metavar="N", help="With --at: records a second of one device; else measured here."),
]
WriteRate = Annotated[
    float | None,
    typer.Option("--write-rate", metavar="N", help="With --at: records a second of one writer; else measured here."),
]


def scale_of(at: float | None, encode_rate: float | None, write_rate: float | None, dry_run: bool) -> Scale | None:
    """Return the size that options plan for; None for the store's own.

    Raises:
        ConfigError: they are not all above 0, or it is not a dry run.
    """
    from hins_memory.swapping import Scale

    given = [value for value in (at, encode_rate, write_rate) if value is not None]
    if not given:
        return None
    if at is None or not dry_run:
        raise ConfigError("--at, --encode-rate and --write-rate plan for another size.", "Give --dry-run and --at.")
    if not all(0 < value < float("inf") for value in given):
        raise ConfigError("A size and rates are numbers above 0.", "Write e.g. --at 1e9.")
    return Scale(at, encode_rate, write_rate)


def scope_of(owner: str | None, tenant: str | None) -> Scope | None:
    """Return the scope that options name; None for everyone.

    Raises:
        ConfigError: they do not name one.
    """
    if owner is None and tenant is None:
        return None
    try:
        scope = Scope.from_key(owner) if owner and "=" in owner else Scope(user=owner or "")
        scope = replace(scope, tenant=tenant) if tenant else scope
    except ValueError as error:
        raise ConfigError(
            f"{owner!r} is not an owner: {error}.", "Write a user's name, or user=ann&agent=bot."
        ) from error
    if scope.key != scope.owner.key or not scope.key:
        raise ConfigError("No owner and no tenant is named.", "Write a user's name, or user=ann&agent=bot.")
    return scope


@dataclass(frozen=True)
class Options:
    """The options that stand before the command."""

    home: Path | None = None
    project: str | None = None


def settings_of(context: typer.Context) -> Settings:
    """Return the project's settings: the options, else the environment, else the defaults.

    Raises:
        ConfigError: one of them is not valid.
    """
    options = context.find_object(Options) or Options()
    given: dict[str, Any] = {"home": options.home, "project": options.project}
    return Settings(**{name: value for name, value in given.items() if value is not None})


@contextlib.contextmanager
def opened_agent(settings: Settings, name: str, config: Path | None, bars: Bars) -> Iterator[Any]:
    """Open an agent through its plugin, and close it at the end.

    Args:
        settings: the project.
        name: the framework's name.
        config: a JSON file that the framework's configuration is read from.
        bars: shows that it takes a while.

    Raises:
        ConfigError: no plugin knows the framework, or the file cannot be read.
        AgentError: the plugin cannot open it.
    """
    content = _read_config(config)
    check_agent(name)
    bars.waiting(f"opening {name}")
    memory = get_plugin_manager().hook.hins_open_agent(name=name, settings=settings, config=content)
    if memory is None:
        raise AgentError(
            f"{name} cannot be opened from the command line.",
            "Do it in your own program, with the live object: Pipeline(settings, memory). `hins train` and `hins gate` "
            "need no agent.",
        )
    try:
        yield memory
    finally:
        close = getattr(memory, "close", None)
        if callable(close):
            close()


def check_agent(name: str) -> None:
    """Check that a plugin knows a framework by its name.

    Raises:
        ConfigError: none does.
    """
    names = sorted(known for found in get_plugin_manager().hook.hins_agent_names() for known in found)
    if name not in names:
        raise _unknown_agent(name, names)


def _read_config(path: Path | None) -> dict[str, Any] | None:
    if path is None:
        return None
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"{path} cannot be read as JSON: {error}.", "Check the file given to --agent-config."
        ) from error
    if not isinstance(content, dict):
        raise ConfigError(f"{path} does not hold a JSON object.", "Check the file given to --agent-config.")
    return content


def _unknown_agent(name: str, names: list[str]) -> ConfigError:
    broken = broken_plugins()
    if name in broken:
        return ConfigError(f"The plugin {name!r} is broken: {broken[name]}.", "Run `hins doctor`.")
    return ConfigError(f"No installed plugin knows the agent {name!r}.", f"Known agents: {', '.join(names) or 'none'}.")


def check_alone(context: typer.Context, names: tuple[str, ...]) -> None:
    """Refuse options that a training to be continued has its own values of."""
    given = [name for name in names if getattr(context.get_parameter_source(name), "name", "") == "COMMANDLINE"]
    if given:
        options = ", ".join(f"--{name.replace('_', '-')}" for name in given)
        raise ConfigError(
            f"--resume continues with the run's own settings, so {options} cannot be given.", "Leave out."
        )
