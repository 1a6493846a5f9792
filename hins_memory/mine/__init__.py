"""From captured interactions to tiered training examples."""

from hins_memory.mine.miner import MineResult, mine
from hins_memory.mine.report import MineReport
from hins_memory.mine.settings import MineSettings

__all__ = ["MineReport", "MineResult", "MineSettings", "mine"]
