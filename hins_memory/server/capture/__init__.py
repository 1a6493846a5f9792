"""Capture over HTTP: what agents in other processes and languages search, store, say and answer, into the log."""
