"""Servers of embeddings, asked by many clients at once; one of them while its versions change.

In: a project with a model, and its exports. Out: requests a second, latencies, processor time, and what was wrong.
"""
