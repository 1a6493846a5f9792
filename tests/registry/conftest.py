"""The fixture of an object store."""

from object_store import s3

__all__ = ["s3"]
