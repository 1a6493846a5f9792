"""The interaction log: events in, events out.

In: turns, memories, retrievals and outcomes of agents. Out: one `ScopeLog` an owner.
"""

from hins_memory.log.capture import Capture
from hins_memory.log.reader import LogReader
from hins_memory.log.writer import LogWriter

__all__ = [
    "Capture",
    "LogReader",
    "LogWriter",
]
