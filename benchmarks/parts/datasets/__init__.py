"""The data sets: LoCoMo with its known label errors, and PERSONAMEM with histories of our own in its format.

In: the authors' files, or the packaged sample. Out: frozen dataclasses and evaluation sets.
"""

__all__ = ["locomo", "locomo_audit", "personamem", "personamem_tiny"]
