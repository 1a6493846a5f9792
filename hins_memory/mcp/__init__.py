"""`hins mcp`: a proxy between an agent and an MCP memory server, over stdio.

In: the lines of JSON-RPC that both write, and a mapping of the server's tools. Out: the same lines, and events for the
log.
"""

__all__: list[str] = []
