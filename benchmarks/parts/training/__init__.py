"""Trainings that are compared: modes, trainers, and a cold start without any traffic.

In: conversations or persona chats, settings, seeds. Out: encoders, scores of every question, what each one cost.
"""

__all__ = ["cold_start", "modes", "trainers"]
