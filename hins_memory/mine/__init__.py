"""From captured interactions to tiered training examples."""

from hins_memory.mine.miner import MineResult, mine
from hins_memory.mine.parquet import mine_to_parquet, read_examples
from hins_memory.mine.render import render
from hins_memory.mine.report import MineReport
from hins_memory.mine.settings import MineSettings

__all__ = [
    "MineReport",
    "MineResult",
    "MineSettings",
    "mine",
    "mine_to_parquet",
    "read_examples",
    "render",
]
