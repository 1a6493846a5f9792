"""Swaps: re-embed a live agent's stores into shadow indexes, verify them, flip, and keep a way back.

In: an agent, an encoder version and the registry. Out: a `SwapReport`; the agent serves with that version.
"""

from hins_memory.swapping.plan import IndexPlan, SwapPlan, plan_swap
from hins_memory.swapping.projection import Scale, SwapProjection, project_swap
from hins_memory.swapping.scoped import roll_back_scope, serve_scope
from hins_memory.swapping.swap import SwapReport, abandon_swap, retire_agent, rollback_agent, swap_agent
from hins_memory.swapping.sync import IndexReport, Progress

__all__ = [
    "IndexPlan",
    "IndexReport",
    "Progress",
    "Scale",
    "SwapPlan",
    "SwapProjection",
    "SwapReport",
    "abandon_swap",
    "plan_swap",
    "project_swap",
    "retire_agent",
    "roll_back_scope",
    "rollback_agent",
    "serve_scope",
    "swap_agent",
]
