"""What a server takes at most, and who may ask it."""

from __future__ import annotations

import os
from dataclasses import dataclass, field

from hins_memory.errors import ConfigError
from hins_memory.registry.onnx_exports import Engine
from hins_memory.server.page.settings import PageSettings

__all__ = ["ServeSettings", "keys_from_environment"]


@dataclass(frozen=True, slots=True)
class ServeSettings:
    """The bounds of a server, and its keys.

    Args:
        keys: any of them lets a request in; without one, all are let in that name a loopback address as the host.
        max_loaded: encoders in memory at a time.
        max_inputs: texts of one request.
        max_input_chars: characters of one text; a model itself reads the first few hundred words.
        max_body_bytes: of one request.
        max_bodies_bytes: of all requests that are in the server at a time.
        max_waiting: texts that wait for one encoder.
        max_batch: texts that go through an encoder at a time.
        page: what the page may show and do.
        engine: what embeds: exports to ONNX where there are any, always, or never; see `OnnxExports.load`.

    Raises:
        ConfigError: a bound is below 1.
    """

    # Not shown: they are secrets.
    keys: tuple[str, ...] = field(default=(), repr=False)
    max_loaded: int = 4
    max_inputs: int = 2048
    max_input_chars: int = 100_000
    max_body_bytes: int = 4 * 2**20
    max_bodies_bytes: int = 64 * 2**20
    max_waiting: int = 8192
    max_batch: int = 64
    engine: Engine = "auto"
    page: PageSettings = field(default_factory=PageSettings)

    def __post_init__(self) -> None:
        for name in self.__slots__:
            if name.startswith("max_") and getattr(self, name) < 1:
                raise ConfigError(f"{name} is {getattr(self, name)}.", "Use at least 1.")


def keys_from_environment() -> tuple[str, ...]:
    """Return the keys in ``HINS_API_KEY``, which are separated by commas."""
    return tuple(key for one in os.environ.get("HINS_API_KEY", "").split(",") if (key := one.strip()))
