"""The loop: capture, mine, train, gate and swap, joined. The only room that knows all the stages.

In: settings and, if there is one, a live agent. Out: a `RunReport`.
"""

from hins_memory.loop.deep import DeepAdvice
from hins_memory.loop.pipeline import LoopSettings, Pipeline, RunReport, Status
from hins_memory.loop.scoped import ScopedPipeline

__all__ = [
    "DeepAdvice",
    "LoopSettings",
    "Pipeline",
    "RunReport",
    "ScopedPipeline",
    "Status",
]
