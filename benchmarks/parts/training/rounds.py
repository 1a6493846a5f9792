"""Rounds of towers in a row, each with traffic of other conversations than the rounds before.

Results are kept in a work folder, each under a digest of its inputs, so that an interrupted run continues where it was.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

from hins_memory.encoders.encoder import Encoder
from hins_memory.encoders.score_offset import with_modules
from hins_memory.encoders.sides import sides_of
from hins_memory.errors import ConfigError, NotEnoughDataError
from hins_memory.loop.pipeline import LoopSettings
from hins_memory.training.tower.model import TwoSides
from parts.common.files import write_whole
from parts.common.screen import stage
from parts.datasets.locomo import Conversation
from parts.training.modes import Traffic, code_digest, general_set
from parts.training.towers import Split, digest, first_evidence, later_part, scores, settings_of, train_tower

__all__ = ["Chain", "Start", "groups_of", "questions", "run_round", "tower_over"]

#: What a round's tower begins as and learns from: `documents`, as the loop has it, begins as the documents' encoder and
#: reads the whole log so far; `last` begins as the tower of the round before, and reads what is new.
Start = Literal["documents", "last"]


@dataclass(frozen=True, slots=True)
class Chain:
    """Rounds in a row: `groups` are the conversations whose traffic each of them brings."""

    traffic: Traffic
    groups: tuple[tuple[Conversation, ...], ...]
    split: Split
    start: Start
    seed: int
    quick: bool = False

    def path(self, number: int, work: Path) -> Path:
        """Return the file that the result of a round, from 1, is kept in."""
        names = [[one.id for one in group] for group in self.groups[:number]]
        settings = asdict(settings_of(self.seed, quick=self.quick)), asdict(LoopSettings().mine), asdict(self.split)
        key = digest(self.traffic.digest, self.traffic.base, self.traffic.memories, names, settings, self.start)
        name = f"{self.traffic.base}-{self.traffic.memories}-{self.start}-{self.seed}-round{number}-{key}.json"
        return work / "rounds" / name


def questions(chain: Chain, encoder: Encoder, number: int) -> list[list[float]]:
    """Return nDCG of the later questions of each of the first rounds, 0 to 1, and at the end the general set's."""
    found = [
        [value for one in group for value in scores(encoder, later_part(one, chain.traffic, chain.split))]
        for group in chain.groups[:number]
    ]
    return [*found, scores(encoder, general_set("judge", chain.quick))]


def run_round(chain: Chain, number: int, base: Encoder, work: Path) -> dict[str, Any]:
    """Return a round's result: kept, or after mining, training and scoring; rounds before it are made if they miss.

    Args:
        chain: the rounds.
        number: which one, from 1.
        base: the encoder of the documents.
        work: keeps results, and the tower that the next round begins as.

    Returns:
        ``ndcg`` (a list for each round so far, with a value each later question), ``general`` (a value each question),
        ``examples``, ``seconds``, ``code``.
    """
    path = chain.path(number, work)
    if path.is_file():
        return dict(json.loads(path.read_text(encoding="utf-8")))
    code = code_digest()
    with tempfile.TemporaryDirectory(prefix="hins-rounds-") as name:
        scratch, chained = Path(name), chain.start == "last"
        start: str | Encoder = chain.traffic.base
        if chained and number > 1:
            start = tower_over(_tower_before(chain, number, base, work), base)
        read = chain.groups[number - 1 : number] if chained else chain.groups[:number]
        owners = [first_evidence(chain.traffic, one, chain.split, base) for group in read for one in group]
        try:
            trained, examples, seconds = train_tower(owners, base, start, chain.seed, scratch, quick=chain.quick)
        except NotEnoughDataError as error:
            raise ConfigError(f"Round {number}: {error.problem}", "Take fewer rounds, or a larger --share.") from error
        stage(f"{path.stem}: {examples} examples, trained in {seconds:.0f} s")
        *rounds, general = questions(chain, tower_over(trained.folder, base), number)
        if chained:
            _keep(trained.folder, _kept(path), chain.path(number - 1, work) if number > 1 else None)
    result = {"ndcg": rounds, "general": general, "examples": examples, "seconds": seconds, "code": code}
    write_whole(path, json.dumps(result).encode())
    return result


def _tower_before(chain: Chain, number: int, base: Encoder, work: Path) -> Path:
    before = chain.path(number - 1, work)
    if not _kept(before).is_dir():
        before.unlink(missing_ok=True)
        run_round(chain, number - 1, base, work)
    return _kept(before)


def _kept(path: Path) -> Path:
    """Return the folder of the tower that the round after a result begins as."""
    return path.with_suffix(".tower")


def _keep(folder: Path, kept: Path, before: Path | None) -> None:
    """Keep a tower for the next round; the one before is not needed any more."""
    shutil.rmtree(kept, ignore_errors=True)
    kept.parent.mkdir(parents=True, exist_ok=True)
    shutil.move(folder, kept)
    if before is not None:
        shutil.rmtree(_kept(before), ignore_errors=True)


def tower_over(folder: Path, base: Encoder) -> TwoSides:
    """Return a tower's queries with the documents of the base: a training that is given it begins as that tower."""
    whole = Encoder.load(folder)
    sides = sides_of(whole.model)
    assert sides is not None, "a tower has two sides"
    return TwoSides(with_modules(whole.model, sides[0]), base)


def groups_of(data: Sequence[Conversation], rounds: int) -> tuple[tuple[Conversation, ...], ...]:
    """Return conversations in `rounds` groups of about the same size, in their order."""
    size, more = divmod(len(data), rounds)
    ends = [number * size + min(number, more) for number in range(rounds + 1)]
    return tuple(tuple(data[first:last]) for first, last in pairwise(ends))
