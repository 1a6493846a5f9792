"""Logs that the miner is measured on: with evidence labels, or synthetic and of any size.

In: conversations or persona chats. Out: logs by owner, what is right in them, fitted attribution, seconds and memory.
"""

__all__ = ["attribution_fit", "evidence_logs", "synthetic"]
