"""Real memory agents that data sets are told to: Mem0, MemoryOS, and the proxy that keeps their model's replies.

In: conversations or histories, an encoder, settings. Out: what each search found, best first; the log, if recorded.
"""

__all__ = ["alone", "histories", "llm_proxy", "mem0", "mem0_extraction", "memoryos"]
