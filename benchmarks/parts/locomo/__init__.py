"""The protocols over LoCoMo: before and after training on captured traffic, encoders, and answers, side by side.

In: conversations, a plan, encoders, a reader. Out: scores of every question, rows, tables and the HTML page.
"""

__all__ = [
    "answers",
    "answers_report",
    "deployment",
    "deployment_report",
    "side_by_side",
    "side_by_side_page",
    "side_by_side_report",
]
