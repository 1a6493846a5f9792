"""What every command shares: its arguments, data files, the screen and the JSON result.

In: arguments, a data source, rows and figures. Out: an exit status, a checked file, tables, one result file.
"""

__all__ = ["command", "files", "results", "screen"]
