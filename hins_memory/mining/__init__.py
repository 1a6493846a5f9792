"""From captured interactions to tiered training examples."""

from hins_memory.data.examples import read_examples
from hins_memory.mining.miner import MineResult, mine
from hins_memory.mining.render import render
from hins_memory.mining.report import MineReport
from hins_memory.mining.settings import MineSettings
from hins_memory.mining.storage.parquet import mine_to_parquet

__all__ = [
    "MineReport",
    "MineResult",
    "MineSettings",
    "mine",
    "mine_to_parquet",
    "read_examples",
    "render",
]
