"""Building blocks for adapters: what every agent framework's adapter does in the same way.

In: a framework's store as `TrackedIndex`es, and its calls. Out: an `Agent` that can be swapped, and recorded events.
"""

from hins_memory.sdk.agents import AgentTable
from hins_memory.sdk.captures import join_capture, leave_capture
from hins_memory.sdk.dual_write import DualWriter, TrackedIndex, WriteTracker
from hins_memory.sdk.retry import with_retries
from hins_memory.sdk.store_agent import Binding, StoreAgent

__all__ = [
    "AgentTable",
    "Binding",
    "DualWriter",
    "StoreAgent",
    "TrackedIndex",
    "WriteTracker",
    "join_capture",
    "leave_capture",
    "with_retries",
]
