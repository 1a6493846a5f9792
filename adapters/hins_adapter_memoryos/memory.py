"""`Memoryos`: MemoryOS's own class, embedding with the project's encoder, saving safely, recording its use."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import memoryos

from hins_adapter_memoryos.attached import Attached
from hins_adapter_memoryos.attaching import check_ids, install
from hins_memory.config import Settings
from hins_memory.sdk.attachment import attached_class
from hins_memory.sdk.options import AttachOptions

__all__ = ["Memoryos"]


class Memoryos(attached_class(memoryos.Memoryos, Attached)):  # type: ignore[misc]  # made when this is imported
    """`memoryos.Memoryos` that embeds with the project's encoder and records how it is used.

    Args:
        arguments: what `memoryos.Memoryos` takes: user_id, openai_api_key, data_storage_path, ...
        embedder: ``hins`` serves with the version that the store was last swapped to; a new store starts with
            `model`, else the project's current version, else the starter. ``stock`` is the plain base, and
            None MemoryOS's own, only captured.
        reembed: re-embed what another encoder stored.
        project: the project's name.
        settings: where the log and the encoders live; the environment's settings by default.
        capture: whether its use is recorded.
        model: a sentence-transformers folder or name to start from.
        options: what `memoryos.Memoryos` takes by keyword.

    Raises:
        AgentError: the store holds vectors of another encoder and `reembed` is false.
        ConfigError: an argument is not valid.
        EncoderError: the encoder cannot be loaded.

    Example:
        memory = Memoryos("ann", api_key, "./memoryos", openai_base_url=url, embedder="hins")
        memory.add_memory(user_input="I play the cello.", agent_response="How lovely!")
        memory.get_response("Which instrument do I play?")
    """

    def __init__(
        self,
        *arguments: Any,
        embedder: str | None = "hins",
        reembed: bool = False,
        project: str | None = None,
        settings: Settings | None = None,
        capture: bool = True,
        model: str | Path | None = None,
        **options: Any,
    ) -> None:
        given = inspect.signature(memoryos.Memoryos).bind_partial(*arguments, **options).arguments
        # Before MemoryOS makes their folders.
        check_ids(given.get("user_id"), given.get("assistant_id"))
        super().__init__(*arguments, **options)
        install(self, AttachOptions(embedder, reembed, capture, project, settings, model), original=None)
