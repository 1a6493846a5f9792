"""Exceptions: one base class, a few children, each saying what was wrong and what to do about it."""

from __future__ import annotations

__all__ = [
    "AgentError",
    "ConfigError",
    "EncoderError",
    "GateError",
    "HinsError",
    "LogError",
    "NotEnoughDataError",
    "SwapError",
    "TrainingError",
]


class HinsError(Exception):
    """Base of every error that hins-memory raises on purpose.

    Args:
        problem: what was wrong, as a sentence.
        hint: what the reader can do about it, as a sentence; may be empty.
    """

    #: exit status of the command line for this kind of error
    exit_code = 1

    def __init__(self, problem: str, hint: str = "") -> None:
        super().__init__(f"{problem} {hint}".strip())
        self.problem = problem
        self.hint = hint


class ConfigError(HinsError):
    """A setting, an argument or a name is not valid."""

    exit_code = 2


class NotEnoughDataError(HinsError):
    """The interaction log holds too little for the stage that was asked for."""

    exit_code = 3


class GateError(HinsError):
    """The gate refused a candidate encoder."""

    exit_code = 4


class LogError(HinsError):
    """The interaction log cannot be opened, read or written."""

    exit_code = 5


class EncoderError(HinsError):
    """An encoder cannot be found, verified or loaded."""

    exit_code = 6


class TrainingError(HinsError):
    """Training cannot start or did not end well."""

    exit_code = 7


class SwapError(HinsError):
    """A swap or a rollback cannot start, or did not verify."""

    exit_code = 8


class AgentError(HinsError):
    """A memory agent cannot be opened, attached to or read."""

    exit_code = 9
