"""The fixtures of a log per test, and of an object store."""

from log_fixtures import engine, log_url
from object_store import s3

__all__ = ["engine", "log_url", "s3"]
