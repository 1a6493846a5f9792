"""The fixtures of the swap's tests, for those here that break it from outside."""

import sys
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parents[1] / "swapping")]

from swap_fixtures import other_folder, shared_model, small_encoder, world  # noqa: E402, F401
