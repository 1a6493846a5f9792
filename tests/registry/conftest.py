"""The project on two hosts is the one of the schedule's tests."""

import sys
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parents[1] / "loop")]
