"""The command line ``hins``."""

from hins_memory.cli.app import app

__all__ = ["app", "main"]


def main() -> None:
    """Run the command line and exit with its status."""
    app()
