"""Dialogues of two people from persona-chat tables or from the project's log; personas."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from hins_memory.errors import ConfigError
from hins_memory.types import ScopeLog, Turn

__all__ = ["Dialogue", "dialogues_of", "read_corpus", "read_personas"]

#: A dialogue needs at least this many turns.
_MIN_TURNS = 4

_PLACEHOLDER = re.compile(r"\[?\bUser (?P<which>[12])(?:'s name)?\]?", re.IGNORECASE)
_COLUMNS = ("user 1 personas", "user 2 personas", "Best Generated Conversation")


@dataclass(frozen=True, slots=True)
class Dialogue:
    """One dialogue of two people.

    `facts` are the persona sentences of the first and the second; `turns` are (0 or 1, text). A text may contain
    ``{0}`` or ``{1}``, which stand for their names.
    """

    facts: tuple[tuple[str, ...], tuple[str, ...]]
    turns: tuple[tuple[int, str], ...]


def read_corpus(paths: Iterable[Path]) -> list[Dialogue]:
    """Read dialogues from CSV files in the format of Synthetic-Persona-Chat (arXiv 2312.10007).

    Raises:
        ConfigError: a file cannot be read, or lacks a column.
    """
    found: list[Dialogue] = []
    for path in paths:
        try:
            with path.open(newline="", encoding="utf-8") as stream:
                rows = list(csv.DictReader(stream))
        except (OSError, UnicodeDecodeError, csv.Error) as error:
            raise ConfigError(f"{path} cannot be read: {error}.", "Give a CSV file in UTF-8.") from error
        if not rows or any(name not in rows[0] for name in _COLUMNS):
            raise ConfigError(
                f"{path} lacks one of the columns {', '.join(_COLUMNS)}.", "Give a persona-chat CSV file."
            )
        found += [dialogue for row in rows if len((dialogue := _dialogue(row)).turns) >= _MIN_TURNS]
    return found


def _dialogue(row: dict[str, str]) -> Dialogue:
    turns = []
    for line in (row[_COLUMNS[2]] or "").split("\n"):
        speaker, colon, text = line.partition(":")
        if colon and speaker.strip() in ("User 1", "User 2") and text.strip():
            turns.append((int(speaker.strip()[-1]) - 1, _template(text)))
    facts = tuple(
        tuple(line.strip() for line in (row[name] or "").split("\n") if line.strip()) for name in _COLUMNS[:2]
    )
    return Dialogue((facts[0], facts[1]), tuple(turns))


def _template(text: str) -> str:
    return _PLACEHOLDER.sub(lambda found: "{" + str(int(found["which"]) - 1) + "}", _plain(text))


def _plain(text: str) -> str:
    """Return a text without braces, which stand for names."""
    return text.strip().replace("{", "(").replace("}", ")")


def dialogues_of(log: ScopeLog) -> list[Dialogue]:
    """Return an owner's captured conversations as dialogues; those without two speakers are left out."""
    said: dict[str, list[Turn]] = {}
    for turn in log.turns:
        said.setdefault(turn.conversation, []).append(turn)
    found = []
    for turns in said.values():
        speakers = list(dict.fromkeys(turn.speaker for turn in turns))
        if len(speakers) != 2 or len(turns) < _MIN_TURNS or not all(speakers):
            continue
        named = _names(speakers)
        found.append(Dialogue(((), ()), tuple((speakers.index(one.speaker), named(one.text)) for one in turns)))
    return found


def _names(speakers: list[str]) -> Callable[[str], str]:
    """Return a function that replaces the two names by placeholders."""
    longest_first = sorted(speakers, key=len, reverse=True)
    pattern = re.compile(rf"(?<!\w)(?:{'|'.join(map(re.escape, longest_first))})(?!\w)")

    def placeholders(text: str) -> str:
        return pattern.sub(lambda found: "{" + str(speakers.index(found[0])) + "}", _plain(text))

    return placeholders


def read_personas(path: Path) -> list[list[str]]:
    """Read personas: a JSON list of lists of sentences (as Multi-Session Chat's list), or text, one persona a block.

    Raises:
        ConfigError: the file cannot be read, or holds no persona.
    """
    try:
        text = path.read_text(encoding="utf-8")
        content = json.loads(text) if path.suffix == ".json" else _blocks(text)
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path} cannot be read: {error}.", "Give JSON, or blocks of lines.") from error
    if isinstance(content, dict):
        content = [persona for part in content.values() if isinstance(part, list) for persona in part]
    found = [persona for persona in content if isinstance(persona, list) and all(isinstance(x, str) for x in persona)]
    if not any(found):
        raise ConfigError(f"{path} holds no persona.", "A persona is a list of sentences.")
    return [persona for persona in found if persona]


def _blocks(text: str) -> list[list[str]]:
    blocks = re.split(r"\n\s*\n", text)
    return [[line.strip() for line in block.split("\n") if line.strip()] for block in blocks]
