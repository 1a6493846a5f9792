"""`hins mcp`: an MCP memory server behind a proxy that records its use."""

from __future__ import annotations

from typing import Annotated

import typer

from hins_memory.cli.options import settings_of
from hins_memory.cli.screen import Result, command
from hins_memory.errors import ConfigError

__all__ = ["mcp"]


@command
def mcp(
    context: typer.Context,
    server: Annotated[list[str], typer.Argument(metavar="COMMAND...", help="The server's command.")],
    mapping: Annotated[
        str,
        typer.Option(
            "--mapping",
            metavar="NAME|FILE.toml",
            help="What the server's tools mean: memory, basic-memory, mcp-memory-service, or a file of yours.",
        ),
    ],
    user: Annotated[str | None, typer.Option("--user", metavar="NAME", help="Whose memories they are.")] = None,
    agent: Annotated[str | None, typer.Option("--agent", metavar="NAME", help="The agent that they belong to.")] = None,
    tenant: Annotated[str | None, typer.Option("--tenant", metavar="NAME", help="The tenant.")] = None,
) -> Result:
    """Run an MCP memory server over stdio, as it is, and record its searches and memories for training."""
    from hins_memory.mcp.mapping import read_mapping
    from hins_memory.mcp.proxy import run_proxy
    from hins_memory.mcp.session import Session
    from hins_memory.mcp.traffic import Traffic

    settings = settings_of(context)
    mapped = read_mapping(mapping)
    if not (user or agent or {"user", "agent"} & mapped.scope.keys()):
        raise ConfigError("Nothing says whose memories these are.", "Give --user NAME or --agent NAME.")
    given = {"user": user, "agent": agent, "tenant": tenant}
    session = Session(settings, mapped, {part: name for part, name in given.items() if name})
    try:
        return Result(exit_code=run_proxy(server, Traffic(session)))
    finally:
        session.close()
