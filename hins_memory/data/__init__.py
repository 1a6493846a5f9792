"""Packaged data, read through importlib.resources: `sample/` holds the conversations of `hins_memory.sample`."""
