"""The whole loop through a real agent framework: the packaged conversations, and its own search before and after.

    python benchmarks/frameworks.py --agent langgraph --json result.json

Every conversation is stored through the framework. The questions of all but the last three are asked and answered, and
what was recorded of that is trained on. The questions of the last three are searched with the framework's own search,
by the encoder that the store began with, and by the one that was swapped in.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, Protocol

import numpy as np

import hins_memory
from hins_memory.config import Settings
from hins_memory.data.sample_conversations import SampleConversation, load_sample
from hins_memory.errors import ConfigError
from hins_memory.evaluation import paired_bootstrap
from hins_memory.evaluation.gate import GateSettings
from hins_memory.evaluation.metrics import ndcg
from hins_memory.loop.pipeline import LoopSettings, Pipeline
from hins_memory.training import TrainSettings
from parts.common.command import base_parser, exit_status
from parts.common.results import write_result
from parts.common.screen import show_table, stage

_UNSEEN, _TOP = 3, 10


class Player(Protocol):
    """A framework that conversations are played through."""

    @property
    def memory(self) -> Any:
        """What the pipeline swaps."""

    def add(self, conversation: SampleConversation) -> None:
        """Store every turn of a conversation."""

    def search(self, conversation: SampleConversation, query: str) -> list[str]:
        """Return the ids of the turns that a search finds, best first."""

    def ask(self, conversation: SampleConversation) -> None:
        """Ask every question of a conversation, and answer it."""


def _langgraph(settings: Settings, base: str) -> Player:
    from parts.agents.langgraph import LangGraphPlayer

    return LangGraphPlayer(settings, base)


def _llamaindex(settings: Settings, base: str) -> Player:
    from parts.agents.llamaindex import LlamaIndexPlayer

    return LlamaIndexPlayer(settings, base)


def _crewai(settings: Settings, base: str) -> Player:
    from parts.agents.crewai import CrewAIPlayer

    return CrewAIPlayer(settings, base)


#: How each framework's player is made, and the packages whose versions are written.
AGENTS: Mapping[str, tuple[Callable[[Settings, str], Player], tuple[str, ...]]] = {
    "crewai": (_crewai, ("crewai", "lancedb")),
    "langgraph": (_langgraph, ("langgraph", "langgraph-checkpoint")),
    "llamaindex": (_llamaindex, ("llama-index-core", "llama-index-vector-stores-chroma")),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmark and return the exit status."""
    parser = base_parser("The loop through a real agent framework, by its own search before and after.")
    parser.add_argument("--agent", choices=sorted(AGENTS), default="langgraph", help="the framework")
    parser.add_argument("--base", default="stock", help="the encoder to begin with, a folder or name (default stock)")
    parser.add_argument("--mode", default="tower", help="what is trained, as for hins train (default tower)")
    return exit_status(lambda: _run(parser.parse_args(argv)))


def _run(arguments: argparse.Namespace) -> None:
    make, packages = AGENTS[arguments.agent]
    conversations = load_sample()[: _UNSEEN + 2 if arguments.quick else None]
    recorded, unseen = conversations[:-_UNSEEN], conversations[-_UNSEEN:]
    with tempfile.TemporaryDirectory(prefix="hins-frameworks-") as folder:
        settings = Settings(home=Path(folder), project="benchmark", log_url="")
        player = make(settings, arguments.base)
        stage(f"playing {len(recorded)} conversations through {arguments.agent}")
        for conversation in conversations:
            player.add(conversation)
        for conversation in recorded:
            player.ask(conversation)
        before = _scores(player, unseen)
        stage("training on what was recorded")
        train = TrainSettings(mode=arguments.mode, seed=arguments.seed)
        gate = GateSettings(min_queries=5)
        pipeline = Pipeline(settings, player.memory, loop=LoopSettings(train=train, gate=gate, deep="never"))
        report = pipeline.run()
        if not report.swapped:
            stage("the gate did not let it pass; it is swapped in all the same, to be measured")
            pipeline.swap(report.version, force=True)
        after = _scores(player, unseen)
        hins_memory.detach(player.memory)
    gain = paired_bootstrap(after, before, seed=arguments.seed)
    figures = {
        "ndcg_before": float(before.mean()),
        "ndcg_after": float(after.mean()),
        "gain": gain.difference,
        "gain_low": gain.low,
        "gain_high": gain.high,
        "questions": len(before),
        "gate_passed": float(report.swapped),
    }
    title = "nDCG@10 in percent by the framework's own search, of conversations that nothing was asked of before"
    percent = [100 * figures[name] for name in ("ndcg_before", "ndcg_after", "gain", "gain_low", "gain_high")]
    show_table(title, ["agent", "before", "after", "gain", "from", "to"], [[arguments.agent, *percent]])
    chosen = {"agent": arguments.agent, "base": arguments.base, "mode": arguments.mode, "seed": arguments.seed}
    versions = {name: version(name) for name in packages}
    write_result(arguments.json, figures, [], {**chosen, **versions})


def _scores(player: Player, conversations: Sequence[SampleConversation]) -> Any:
    """Return the nDCG@10 of every question, of shape (questions,)."""
    rows = []
    for conversation in conversations:
        for asked in conversation.questions:
            found = player.search(conversation, asked.question)[:_TOP]
            gains = [float(id_ in asked.evidence) for id_ in found]
            if len(gains) < _TOP:
                raise ConfigError(f"{len(gains)} memories were found for {asked.question!r}.", "Ask for at least 10.")
            ideal = [1.0] * min(_TOP, len(asked.evidence)) + [0.0] * max(0, _TOP - len(asked.evidence))
            rows.append(float(ndcg([gains], [ideal], _TOP)[0]))
    return np.asarray(rows)


if __name__ == "__main__":
    sys.exit(main())
