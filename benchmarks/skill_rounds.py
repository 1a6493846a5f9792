"""What do rounds of different traffic make of each memory skill? Facts, preferences, one owner, other languages.

    python benchmarks/skill_rounds.py --corpus synthetic_persona_chat_train.csv --work DIR --json RESULT.json

Every round brings traffic of another kind: synthetic, made by rules of a corpus of persona chats, which write English
alone; other languages are the packaged questions in them, and across them, of the half for choosing. As in the loop,
each trains a tower that begins as the documents' encoder (``--base``) and reads all traffic so far. After each, every
packaged memory skill is scored (nDCG@10 in percent, the half for reporting), and general retrieval; the table has what
each is below the best that it had before, the encoder without training included. Every round's result is kept in
``--work``.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from hins_memory.config import Settings
from hins_memory.data.labelled import logs_of, read_rows
from hins_memory.database.engine import open_database
from hins_memory.encoders.encoder import Encoder
from hins_memory.errors import ConfigError
from hins_memory.evaluation import EvalSet, RankingScores, evaluate_encoder, paired_bootstrap, skill_sets
from hins_memory.log.reader import LogReader
from hins_memory.log.writer import LogWriter
from hins_memory.loop.pipeline import LoopSettings
from hins_memory.mining.storage.evidence import OwnerEvidence, collect
from hins_memory.synthesis import Dialogue, RuleSettings, conversations_by_rules, read_corpus, write_conversations
from parts.common.command import base_parser, exit_status
from parts.common.files import write_whole
from parts.common.results import write_result
from parts.common.screen import show_table, stage
from parts.training.modes import K, code_digest, general_set
from parts.training.rounds import tower_over
from parts.training.towers import digest, scores, settings_of, train_tower

if TYPE_CHECKING:
    import argparse

_CACHED_TEXTS = 60_000


@dataclass(frozen=True, slots=True)
class _Kind:
    """The traffic of a round: how rules make it, or of which skills it is, and whether one owner has all of it."""

    name: str
    rules: RuleSettings | None = None
    skills: tuple[str, ...] = ()
    talkative: bool = False


_KINDS = (
    _Kind("facts", RuleSettings(facts=1.0, preferences=0, events=0, threads=0, seed=1)),
    _Kind("preferences", RuleSettings(facts=0.5, preferences=48, events=0, threads=0, seed=2)),
    _Kind("one talkative owner", RuleSettings(seed=3), talkative=True),
    _Kind("other languages", skills=("cross_language", "languages")),
    _Kind("facts again", RuleSettings(facts=1.0, preferences=0, events=0, threads=0, seed=5)),
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmark and return the exit status."""
    parser = base_parser(str(__doc__).splitlines()[0])
    parser.add_argument("--corpus", type=Path, nargs="+", required=True, metavar="FILE.csv", help="persona chats")
    parser.add_argument("--base", default="stock", metavar="NAME", help="the encoder of the documents (default stock)")
    parser.add_argument("--conversations", type=int, default=40, help="synthesised a round (default 40)")
    parser.add_argument("--questions", type=int, default=800, help="asked a round, at most (default 800)")
    parser.add_argument("--rounds", type=int, default=len(_KINDS), help=f"the first N (default {len(_KINDS)})")
    parser.add_argument("--work", type=Path, metavar="DIR", help="keeps results; resumes (default: kept nowhere)")
    arguments = parser.parse_args(argv)
    return exit_status(lambda: _run(arguments))


def _run(arguments: argparse.Namespace) -> None:
    if arguments.quick:
        arguments.conversations, arguments.questions, arguments.rounds = 6, 80, 2
    if not 1 <= arguments.rounds <= len(_KINDS):
        raise ConfigError(f"--rounds is {arguments.rounds}.", f"Use 1 to {len(_KINDS)}.")
    kinds = _KINDS[: arguments.rounds]
    encoder = Encoder.load(arguments.base)
    # Room for everything that is stored and asked: each round reads all of it again.
    base = Encoder(encoder.model, encoder.version, cache_size=_CACHED_TEXTS)
    dialogues = read_corpus(arguments.corpus)
    untrained = _scored(base, arguments.quick)
    with tempfile.TemporaryDirectory(prefix="hins-skill-rounds-") as scratch:
        work = arguments.work or Path(scratch)
        found = [_round(arguments, kinds[:number], dialogues, base, work) for number in range(1, len(kinds) + 1)]
    rows = _rows([kind.name for kind in kinds], untrained, found)
    _show(rows)
    settings = {name: value for name, value in vars(arguments).items() if name not in ("json", "work", "corpus")}
    settings |= {"corpus": [path.name for path in arguments.corpus], "code": code_digest()}
    write_result(arguments.json, _figures(rows), rows, settings)


def _round(
    arguments: argparse.Namespace, kinds: Sequence[_Kind], dialogues: Sequence[Dialogue], base: Encoder, work: Path
) -> dict[str, Any]:
    """Return the scores after a tower was trained on all kinds of traffic so far: kept, or measured now."""
    options = arguments.base, arguments.conversations, arguments.questions, arguments.seed
    training = asdict(settings_of(arguments.seed, quick=arguments.quick))
    path = work / f"round{len(kinds)}-{digest([asdict(kind) for kind in kinds], options, training)}.json"
    if path.is_file():
        return dict(json.loads(path.read_text(encoding="utf-8")))
    with tempfile.TemporaryDirectory(prefix="hins-skill-rounds-") as name:
        scratch = Path(name)
        owners = [one for kind in kinds for one in _evidence(kind, arguments, dialogues, base, scratch / kind.name)]
        trained, examples, seconds = train_tower(
            owners, base, arguments.base, arguments.seed, scratch, quick=arguments.quick
        )
        stage(f"{kinds[-1].name}: {examples} examples, trained in {seconds:.0f} s")
        result = _scored(tower_over(trained.folder, base), arguments.quick)
    result |= {"examples": examples, "seconds": seconds}
    write_whole(path, json.dumps(result).encode())
    return result


def _evidence(
    kind: _Kind, arguments: argparse.Namespace, dialogues: Sequence[Dialogue], base: Encoder, home: Path
) -> list[OwnerEvidence]:
    """Return what the outcomes of a kind of traffic are evidence of; what rules make is written to a log before."""
    mining = replace(LoopSettings().mine, seed=arguments.seed)
    if kind.rules is None:
        rows = labelled_rows(skill_sets("choose", kind.skills, people=1 if arguments.quick else None))
        return [collect(log, base, mining, None) for log in logs_of(read_rows(rows))]
    engine = open_database(Settings(home=home, project="rounds").database_url)
    made = list(conversations_by_rules(dialogues, kind.rules, limit=arguments.conversations))
    if kind.talkative:
        made = [(made[0][0], conversation) for _, conversation in made]
    write_conversations(made, base, LogWriter(engine).write, questions=arguments.questions, seed=arguments.seed)
    evidence = [collect(log, base, mining, None) for log in LogReader(engine).scope_logs()]
    engine.dispose()
    return evidence


def labelled_rows(sets: Sequence[EvalSet]) -> Iterator[dict[str, str]]:
    """Yield people's memories and what answers each of their questions as labelled rows."""
    for one in sets:
        yield from ({"positive": text, "user": one.name} for text in one.documents.values())
        for query in one.queries:
            for name in sorted(query.relevant):
                yield {"query": query.text, "positive": one.documents[name], "user": one.name}


def _scored(encoder: Encoder, quick: bool) -> dict[str, Any]:
    """Return nDCG of every question of the skills, by skill, and of the general ones, 0 to 1."""
    found: RankingScores = evaluate_encoder(encoder, skill_sets("judge", people=1 if quick else None), ks=(K,))
    groups = np.asarray(found.groups)
    by_skill = {skill: found.ndcg[K][groups == skill].tolist() for skill in sorted(set(found.groups))}
    return {"skills": by_skill, "general": scores(encoder, general_set("judge", quick))}


def _rows(names: Sequence[str], untrained: dict[str, Any], found: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return a row for each round and skill, and for general retrieval; figures in percent."""
    rows = []
    for skill in (*untrained["skills"], "general"):
        before, *after = [
            100 * np.asarray({**one["skills"], "general": one["general"]}[skill]) for one in (untrained, *found)
        ]
        best = before
        for number, (name, values, one) in enumerate(zip(names, after, found, strict=True), 1):
            change = paired_bootstrap(values, best)
            row = {"round": number, "traffic": name, "skill": skill, "questions": len(values)}
            row |= {"untrained": before.mean(), "ndcg10": values.mean(), "over_best": change.difference}
            row |= {"over_best_low": change.low, "over_best_high": change.high}
            row |= {"examples": one["examples"], "seconds": one["seconds"]}
            rows.append(
                {key: round(float(value), 2) if isinstance(value, float) else value for key, value in row.items()}
            )
            best = values if values.mean() > best.mean() else best
    return rows


def _figures(rows: Sequence[dict[str, Any]]) -> dict[str, float]:
    skills = [row for row in rows if row["skill"] != "general"]
    return {
        "worst_over_best": min(row["over_best"] for row in skills),
        "cells": float(len(skills)),
        "cells_within_one": float(sum(row["over_best"] >= -1 for row in skills)),
        "cells_significantly_below": float(sum(row["over_best_high"] < 0 for row in skills)),
        "general_worst_over_best": min(row["over_best"] for row in rows if row["skill"] == "general"),
    }


def _show(rows: Sequence[dict[str, Any]]) -> None:
    names = list(dict.fromkeys(row["traffic"] for row in rows))
    of = {(row["skill"], row["traffic"]): row for row in rows}
    table = [
        [
            skill,
            f"{of[skill, names[0]]['untrained']:.1f}",
            *(f"{of[skill, name]['ndcg10']:.1f} ({of[skill, name]['over_best']:+.1f})" for name in names),
        ]
        for skill in dict.fromkeys(row["skill"] for row in rows)
    ]
    show_table("nDCG@10 after each round (over the best before)", ["skill", "untrained", *names], table)
    for name, value in _figures(rows).items():
        stage(f"{name}: {value:.1f}")


if __name__ == "__main__":
    sys.exit(main())
