"""Swaps: re-embed a live agent's stores into shadow indexes, verify them, flip, and keep a way back.

In: an agent, an encoder version and the registry. Out: a `SwapReport`; the agent serves with that version.
"""

from hins_memory.swapping.swap import (
    IndexPlan,
    IndexReport,
    Progress,
    SwapPlan,
    SwapReport,
    abandon_swap,
    plan_swap,
    retire_agent,
    rollback_agent,
    swap_agent,
)

__all__ = [
    "IndexPlan",
    "IndexReport",
    "Progress",
    "SwapPlan",
    "SwapReport",
    "abandon_swap",
    "plan_swap",
    "retire_agent",
    "rollback_agent",
    "swap_agent",
]
