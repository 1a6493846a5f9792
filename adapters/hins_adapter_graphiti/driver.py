"""Kuzu's driver of an attached `Graphiti`: it reads and writes the vectors of the encoder that serves."""

from __future__ import annotations

import asyncio
import copy
import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from hins_adapter_graphiti.index import FIELDS, is_kuzu
from hins_memory.sdk import name_beside

if TYPE_CHECKING:
    from hins_memory.sdk import Binding

__all__ = ["serving_driver"]

# A vector in a statement, and one that is written; a parameter of the same name has a $ before it, not a dot.
_VECTOR = re.compile(r"\.((?:name|fact)_embedding)\b")
_WRITTEN = re.compile(r"\.(name|fact)_embedding\s*=\s*\$")


def serving_driver(own: Any, binding: Callable[[], Binding]) -> Any:
    """Return a driver over the same database, for the encoder that serves; of other databases than Kuzu the same one.

    Args:
        own: the driver that the `Graphiti` was made with.
        binding: returns what serves.
    """
    if not is_kuzu(own):
        return own

    async def execute_query(cypher_query_: str, **parameters: Any) -> Any:
        serving = binding()
        query = _VECTOR.sub(lambda match: f".{name_beside(match[1], serving.suffix)}", cypher_query_)
        written = _WRITTEN.search(cypher_query_)
        if written is None or "uuid" not in parameters:
            return await own.execute_query(query, **parameters)
        kind = "memories" if written[1] == "fact" else "communities" if ":Community" in cypher_query_ else "entities"
        _, text, vector = FIELDS[kind]
        if serving.version:
            # Made again, of what is cached: a swap may have come between the embedding and its writing.
            (made,) = await asyncio.to_thread(serving.encoder.encode, [parameters[text]], role="document")
            parameters[vector] = made.tolist()
        (index,) = (index for index in serving.indexes() if index.kind == kind)
        async with index.writes.tracked_async([parameters["uuid"]]):
            return await own.execute_query(query, **parameters)

    driver = copy.copy(own)
    driver.execute_query = execute_query
    return driver
