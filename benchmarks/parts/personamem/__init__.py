"""The choice among PERSONAMEM's four options, and its figures.

In: questions, what an agent found, a reader. Out: letters, accuracies and intervals.
"""

__all__ = ["choice", "report"]
