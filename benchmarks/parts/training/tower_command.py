"""What the commands about towers share: their options, their conversations, and the encoder of the documents."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from hins_memory.encoders.encoder import Encoder
from parts.common.command import base_parser
from parts.common.files import resolve_data
from parts.datasets.locomo import LOCOMO, Conversation, documents, load_locomo, sample_conversations
from parts.training.modes import Traffic, play

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

__all__ = ["conversations_of", "played", "tower_parser"]


def tower_parser(description: str, seeds: int) -> argparse.ArgumentParser:
    """Return a parser of the shared options; `seeds` is how many seeds there are by default."""
    parser = base_parser(description)
    parser.add_argument("--data", metavar="FILE", help="locomo10.json or a file of its format, or 'sample'")
    parser.add_argument(
        "--work", type=Path, metavar="DIR", help="keeps traffic and results; resumes (default: kept nowhere)"
    )
    parser.add_argument("--memories", choices=["turns", "facts"], default="turns", help="what is stored")
    parser.add_argument("--base", choices=["stock", "starter"], default="stock", help="the encoder of the documents")
    parser.add_argument("--share", type=float, default=0.5, help="of the questions that is learned from (default 0.5)")
    parser.add_argument("--seeds", type=int, default=seeds, help=f"how many seeds, from --seed on (default {seeds})")
    return parser


def conversations_of(arguments: argparse.Namespace, work: Path) -> list[Conversation]:
    """Return the conversations that ``--data`` names; Mem0 writes to the work folder from here on."""
    # Mem0 writes to its own folder on import; a benchmark leaves no trace in the user's.
    os.environ.setdefault("MEM0_DIR", str(work / "mem0"))
    sample = arguments.data == "sample"
    file = Path(arguments.data) if arguments.data and not sample else None
    return sample_conversations() if sample else load_locomo(resolve_data(file, LOCOMO))


def played(data: Sequence[Conversation], arguments: argparse.Namespace, work: Path) -> tuple[Encoder, Traffic]:
    """Play conversations; return the encoder of the documents, which keeps the vectors, and the traffic."""
    base = Encoder.load(arguments.base)
    # Room for everything that was played, because every training mines most of it again.
    texts = sum(len(documents(one, arguments.memories)) + 4 * len(one.questions) for one in data)
    base = Encoder(base.model, base.version, cache_size=4 * texts)
    return base, play(data, arguments.memories, arguments.base, work)
