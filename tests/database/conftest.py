"""The fixtures of a log per test."""

from log_fixtures import engine, log_url

__all__ = ["engine", "log_url"]
