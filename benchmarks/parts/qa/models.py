"""The options about readers and language models that benchmarks share, and what they stand for."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from hins_memory.config import Settings
from hins_memory.errors import ConfigError
from hins_memory.llm import ChatClient, LlmSettings, ReplyCache, Usage
from parts.qa.extractive import DEFAULT_EXTRACTIVE, ExtractiveReader
from parts.qa.readers import ANSWER_INSTRUCTION, ChatReader, Reader

__all__ = ["Models"]


class Models:
    """The language models of one run, made from its arguments; a model that is named twice is one client.

    Args:
        arguments: as added by `add_arguments`.
    """

    def __init__(self, arguments: argparse.Namespace) -> None:
        self._arguments = arguments
        self._clients: dict[str, ChatClient] = {}
        self.cache_folder: Path = arguments.cache or Settings().home / "benchmarks" / "replies"

    @staticmethod
    def add_arguments(parser: argparse.ArgumentParser, *, reader: bool = True) -> None:
        """Add the options about readers and language models; without `reader` those about an endpoint's use alone."""
        group = parser.add_argument_group("language models", "the key is read from $OPENAI_API_KEY")
        add = group.add_argument
        if reader:
            add(
                "--reader",
                default="none",
                help=f"none (default), extractive[:DIR_OR_NAME] ({DEFAULT_EXTRACTIVE}) or openai:MODEL",
            )
            add("--base-url", default=os.environ.get("OPENAI_BASE_URL", ""), metavar="URL",
                help="an OpenAI-compatible endpoint (default $OPENAI_BASE_URL, else OpenAI's)")  # fmt: skip
        add("--workers", type=int, default=8, help="questions asked at once (default 8)")
        add("--timeout", type=float, default=60.0, metavar="SECONDS", help="until a request is given up (default 60)")
        add("--tries", type=int, default=5, help="tries of a request (default 5)")
        add("--price", action="append", default=[], metavar="MODEL=IN,OUT",
            help="price of a million prompt and completion tokens of a model; may be repeated")  # fmt: skip
        add("--max-cost", type=float, default=0.0, metavar="COST", help="what each model may cost; needs --price")
        add("--max-total-tokens", type=int, default=0, metavar="N", help="tokens that each model may use")
        add("--cache", type=Path, metavar="DIR", help="where replies are kept (default $HINS_HOME/benchmarks/replies)")

    def client(self, model: str) -> ChatClient:
        """Return the client of a model, after asking it something.

        Raises:
            ConfigError: an option is out of range, or the endpoint needs a key.
            LlmError: it does not answer.
        """
        if model not in self._clients:
            given = self._arguments
            priced = self._prices().get(model, (0.0, 0.0))
            self._clients[model] = ChatClient(
                LlmSettings(
                    model,
                    base_url=given.base_url,
                    timeout=given.timeout,
                    tries=given.tries,
                    cache=self.cache_folder,
                    input_price=priced[0],
                    output_price=priced[1],
                    max_cost=given.max_cost,
                    max_total_tokens=given.max_total_tokens,
                )
            )
            # The reply is kept like any other, so that a run whose replies are all kept needs no endpoint.
            self._clients[model].chat([{"role": "user", "content": "Say yes."}])
        return self._clients[model]

    def reader(self, instruction: str = ANSWER_INSTRUCTION) -> Reader | None:
        """Return the reader that was asked for; None means no reader.

        Raises:
            ConfigError: there is no such reader.
        """
        kind, _, name = self._arguments.reader.partition(":")
        if kind == "none" and not name:
            return None
        if kind == "openai" and name:
            if self._arguments.workers < 1:
                raise ConfigError(f"--workers is {self._arguments.workers}.", "Use at least 1.")
            return ChatReader(self.client(name), instruction, self._arguments.workers)
        if kind == "extractive":
            return ExtractiveReader(name or DEFAULT_EXTRACTIVE, ReplyCache(self.cache_folder))
        raise ConfigError(
            f"{self._arguments.reader!r} is not a reader.", "Use none, extractive, extractive:NAME or openai:MODEL."
        )

    def usage(self) -> dict[str, Usage]:
        """Return what each model was used for so far."""
        return {model: client.usage for model, client in self._clients.items()}

    def close(self) -> None:
        """Close all connections."""
        for client in self._clients.values():
            client.close()

    def _prices(self) -> dict[str, tuple[float, float]]:
        found = {}
        for entry in self._arguments.price:
            model, _, prices = entry.rpartition("=")
            try:
                first, second = (float(part) for part in prices.split(","))
            except ValueError as error:
                raise ConfigError(f"--price {entry!r} is not MODEL=IN,OUT.", "E.g. gpt-4.1-mini=0.4,1.6.") from error
            found[model] = (first, second)
        return found
