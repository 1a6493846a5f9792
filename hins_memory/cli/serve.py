"""`hins serve`: the project's encoders behind HTTP."""

from __future__ import annotations

import logging
from enum import Enum
from typing import Annotated

import typer

from hins_memory.cli.options import AgentConfig, check_agent, settings_of
from hins_memory.cli.screen import Result, command
from hins_memory.cli.terminal import PrintableFormatter
from hins_memory.common.json_log import JsonFormatter
from hins_memory.errors import ConfigError

__all__ = ["serve"]

_LINE = "%(asctime)s %(levelname)s %(message)s"


class _Engine(str, Enum):
    AUTO = "auto"
    ONNX = "onnx"
    TORCH = "torch"


class _LogFormat(str, Enum):
    TEXT = "text"
    JSON = "json"


@command
def serve(
    context: typer.Context,
    host: Annotated[str, typer.Option("--host", help="The address; other than loopback needs HINS_API_KEY.")] = (
        "127.0.0.1"
    ),
    port: Annotated[int, typer.Option("--port", min=0, max=65535, help="The port; 0 takes any that is free.")] = 8620,
    engine: Annotated[
        _Engine,
        typer.Option("--engine", help="ONNX exports where there are any (auto), nothing but them, or torch alone."),
    ] = _Engine.AUTO,
    log_format: Annotated[
        _LogFormat, typer.Option("--log-format", help="How requests and errors are logged on stderr.")
    ] = _LogFormat.TEXT,
    show_text: Annotated[
        bool, typer.Option("--show-text", help="Show memories, and reports that hold queries, on the page.")
    ] = False,
    agent: Annotated[
        str, typer.Option("--agent", help="The framework whose store the page may swap and roll back; needs a key.")
    ] = "",
    agent_config: AgentConfig = None,
    auto_rollback: Annotated[
        bool,
        typer.Option("--auto-rollback", help="Roll the agent back when searches go worse than the gate measured."),
    ] = False,
) -> Result:
    """Serve the project's encoders over HTTP, as OpenAI's and TEI's clients speak it, until SIGTERM or SIGINT."""
    try:
        from hins_memory.server.page.settings import PageSettings
        from hins_memory.server.run import run_server
    except ImportError as error:
        raise ConfigError(f"{error.name} is not installed.", 'pip install "hins-memory[serve]"') from error
    # A line for each request: rich takes longer to lay one out than the server to answer.
    handler = logging.StreamHandler()
    handler.setFormatter(JsonFormatter() if log_format is _LogFormat.JSON else PrintableFormatter(_LINE))
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    for name in ("hins_memory", "uvicorn"):
        logging.getLogger(name).setLevel(logging.INFO)
    if agent:
        check_agent(agent)
    page = PageSettings(show_text, agent, agent_config, auto_rollback)
    run_server(settings_of(context), host, port, page, engine.value)
    return Result()
