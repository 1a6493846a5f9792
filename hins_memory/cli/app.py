"""The command line's root: global options and the list of commands."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hins_memory.cli import loop
from hins_memory.cli.demo import demo
from hins_memory.cli.doctor import doctor
from hins_memory.cli.encoders import encoders
from hins_memory.cli.evaluate import evaluate
from hins_memory.cli.log import log
from hins_memory.cli.mcp import mcp
from hins_memory.cli.options import Options
from hins_memory.cli.screen import say_version
from hins_memory.cli.serve import serve
from hins_memory.cli.synthesize import synthesize
from hins_memory.cli.terminal import set_up_logging

__all__ = ["app"]

_EPILOG = (
    "Exit status: 0 done; 1 something else failed; 2 a wrong option, argument or setting; 3 too little data in the "
    "log; 4 the gate refused; 5 the log; 6 the encoder; 7 training; 8 swap or rollback; 9 the agent."
)

app = typer.Typer(
    name="hins",
    help="Train a memory agent's encoder on its own traffic, prove that it is better, and swap it in.",
    epilog=_EPILOG,
    no_args_is_help=True,
    # A traceback with the values of local variables would show what users said.
    pretty_exceptions_enable=False,
)


def _version(wanted: bool) -> None:
    if wanted:
        import hins_memory

        say_version(hins_memory.__version__)
        raise typer.Exit


@app.callback()
def root(
    context: typer.Context,
    home: Annotated[
        Path | None, typer.Option("--home", metavar="DIR", help="Folder of all projects (HINS_HOME, else ~/.hins).")
    ] = None,
    project: Annotated[str | None, typer.Option("--project", help="The project (HINS_PROJECT, else default).")] = None,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Log to stderr what is being done.")] = False,
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Show it.")] = False,
) -> None:
    """Options that stand before the command."""
    set_up_logging(verbose)
    context.obj = Options(home, project)


app.command()(loop.status)
app.command()(loop.mine)
app.command()(loop.train)
app.command()(loop.gate)
app.command()(evaluate)
app.command()(loop.swap)
app.command()(loop.rollback)
app.command()(loop.run)
app.command()(serve)
# What follows the command of the server is its own.
app.command(context_settings={"allow_interspersed_args": False})(mcp)
app.add_typer(encoders, name="encoders")
app.add_typer(log, name="log")
app.command()(synthesize)
app.command()(doctor)
app.command()(demo)
