"""MTEB's own task code and scorer, beside this project's.

In: an encoder, evaluation sets or names of tasks. Out: scores by task and group.
"""

__all__ = ["mteb_tasks"]
