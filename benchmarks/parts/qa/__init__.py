"""Answers: readers that give them, a judge, and the scores that the papers use.

In: questions with the memories that were found, a model's endpoint. Out: answers, verdicts, scores, tokens and cost.
"""

__all__ = ["extractive", "judge", "models", "readers", "scores"]
