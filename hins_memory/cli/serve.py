"""`hins serve`: the project's encoders behind HTTP."""

from __future__ import annotations

from typing import Annotated

import typer

from hins_memory.cli.options import settings_of
from hins_memory.cli.screen import Result, command
from hins_memory.errors import ConfigError

__all__ = ["serve"]


@command
def serve(
    context: typer.Context,
    host: Annotated[str, typer.Option("--host", help="The address; other than loopback needs a key.")] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", min=0, max=65535, help="The port.")] = 8620,
) -> Result:
    """Serve the project's encoders over HTTP, as OpenAI's and TEI's clients speak it, until SIGTERM or SIGINT."""
    try:
        from hins_memory.server.run import run_server
    except ImportError as error:
        raise ConfigError(f"{error.name} is not installed.", 'pip install "hins-memory[serve]"') from error

    run_server(settings_of(context), host, port)
    return Result()
