"""The fixture of an object store; and the project on two hosts is the one of the schedule's tests."""

import sys
from pathlib import Path

from object_store import s3

__all__ = ["s3"]

sys.path[:0] = [str(Path(__file__).parents[1] / "loop")]
