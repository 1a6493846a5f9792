"""PERSONAMEM (arXiv 2504.14225): the official files read into dataclasses, and the letter of a reply.

Of each size there are two files: ``questions_32k.csv`` (a question a row, with four options) and
``shared_contexts_32k.jsonl`` (a line is ``{"CONTEXT ID": [{"role": ..., "content": ...}, ...]}``). A question is asked
after the first ``end_index_in_shared_context`` messages of its context. Twelve histories of our own come with the
benchmarks in the same format, with one more column, ``evidence_indexes``: the messages that the right option rests on.
"""

from __future__ import annotations

import ast
import csv
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hins_memory.common.files import file_digest
from hins_memory.errors import ConfigError
from parts.common.files import DATA

__all__ = [
    "ADDRESS",
    "LETTERS",
    "PACKAGED",
    "QUESTION_TYPES",
    "SIZES",
    "Contexts",
    "Message",
    "Question",
    "choice",
    "find_files",
    "load_questions",
]

#: The official data set.
ADDRESS = "https://huggingface.co/datasets/bowen-upenn/PersonaMem"
#: Option of the command line -> what the files are called by.
SIZES = {"32k": "32k", "128k": "128k", "1m": "1M"}
#: Known SHA-256 of official files. Those of the others were not to be had, so they are recorded, not checked.
DIGESTS = {"questions_32k.csv": "897139aef044aec28d5a2f6b2f39e97723b68e07b7b393f8a1d0c7e801634233"}
#: Histories and questions of our own, in the official format.
PACKAGED = (DATA / "personamem" / "questions.csv", DATA / "personamem" / "shared_contexts.jsonl")
LETTERS = ("a", "b", "c", "d")
#: The seven kinds of questions.
QUESTION_TYPES = (
    "recall_user_shared_facts",
    "recalling_facts_mentioned_by_the_user",
    "recalling_the_reasons_behind_previous_updates",
    "track_full_preference_evolution",
    "suggest_new_ideas",
    "provide_preference_aligned_recommendations",
    "generalizing_to_new_scenarios",
)

_OPTION = re.compile(r"^\s*\(?([a-d])\)\s*", re.IGNORECASE)
_FINAL = re.compile(r"<final_answer>(.*?)(?:</final_answer>|$)", re.IGNORECASE | re.DOTALL)
# A reply that begins with its letter. A bare letter has to end there: "A good idea" names no option.
_LEADING = re.compile(r"^[\s*_\"'`#>]*(?:\(([a-d])\)|([a-d])(?=\s*[).:,;*_\"'`\n-]|\s*$)|([bcd])(?=\s))", re.IGNORECASE)
_STATED = re.compile(
    r"\b(?:answer|option|choice|response|pick|choose|select)\b[^().\n]{0,30}?(?:\(([a-d])\)|\b([b-d]|A)\b(?!'))",
    re.IGNORECASE,
)
_ARTICLE = re.compile(r"\ba\s+\w", re.IGNORECASE)
_IN_PARENTHESES = re.compile(r"\(([a-d])\)", re.IGNORECASE)
# "A user" is not an option.
_BARE = re.compile(r"(?<![\w'])(A(?!\s+(?!and\b|or\b|nor\b)[a-z])|[B-D])(?![\w'])")


@dataclass(frozen=True, slots=True)
class Message:
    """One message of a context; `role` is ``system`` (who the user is), ``user`` or ``assistant``."""

    role: str
    text: str


@dataclass(frozen=True, slots=True)
class Question:
    """One question; `options` are the four texts without their letters, `correct` is ``a`` to ``d``.

    `evidence` are the places in the context of what the right option rests on; the official files do not name them.
    """

    id: str
    kind: str
    text: str
    options: tuple[str, ...]
    correct: str
    context: str
    end: int
    evidence: tuple[int, ...] = ()


def find_files(size: str, folder: Path, questions: Path | None, contexts: Path | None) -> tuple[Path, Path]:
    """Return the questions' and the contexts' file: those that are named, else the official names in a folder.

    Raises:
        ConfigError: one is missing; the message says where it comes from.
    """
    name = SIZES[size]
    wanted = (
        (questions, f"questions_{name}.csv", "--questions"),
        (contexts, f"shared_contexts_{name}.jsonl", "--contexts"),
    )
    found = []
    for given, official, option in wanted:
        path = given or folder / official
        if not path.is_file():
            checked = "its SHA-256 is checked" if official in DIGESTS else "no digest of it is known here"
            raise ConfigError(
                f"There is no file {path}.",
                f"Download {official} from {ADDRESS} ({checked}) into {folder}, or name your copy with {option} FILE.",
            )
        found.append(path)
    known = DIGESTS.get(found[0].name) if questions is None else None
    if known is not None and file_digest(found[0]) != known:
        raise ConfigError(
            f"{found[0]} is not the official file: its SHA-256 is not {known}.",
            f"Download it again from {ADDRESS}, or name your own with --questions FILE.",
        )
    return found[0], found[1]


def load_questions(path: Path) -> list[Question]:
    """Read a questions file.

    Raises:
        ConfigError: it cannot be read, or a row is not of the format; the message names the row.
    """
    questions = []
    try:
        with path.open(encoding="utf-8", newline="") as stream:
            for number, row in enumerate(csv.DictReader(stream), start=2):
                try:
                    questions.append(_question(row))
                except (KeyError, TypeError, ValueError, SyntaxError, AttributeError) as error:
                    raise ConfigError(
                        f"Line {number} of {path} is not in PERSONAMEM's format: {type(error).__name__}: {error}.",
                        f"Use the official file ({ADDRESS}).",
                    ) from error
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ConfigError(f"{path} cannot be read: {error}.", f"Use the official file ({ADDRESS}).") from error
    if not questions:
        raise ConfigError(f"{path} holds no question.", f"Use the official file ({ADDRESS}).")
    return questions


def _question(row: Mapping[str, Any]) -> Question:
    options: dict[str, str] = {}
    for text in _listed(str(row["all_options"])):
        match = _OPTION.match(str(text))
        if match is None:
            raise ValueError(f"the option {str(text)[:40]!r} has no letter")
        options[match.group(1).lower()] = str(text)[match.end() :].strip()
    correct = str(row["correct_answer"]).strip(" ()").lower()
    if tuple(sorted(options)) != LETTERS or correct not in options:
        raise ValueError(f"the options are {sorted(options)} and the correct one is {correct!r}")
    end = int(row["end_index_in_shared_context"])
    if end < 0:
        raise ValueError(f"end_index_in_shared_context is {end}")
    evidence = tuple(int(place) for place in _listed(str(row.get("evidence_indexes") or "[]")))
    if any(not 0 <= place < end for place in evidence):
        raise ValueError(f"evidence_indexes is {list(evidence)}, and the question is asked after {end} messages")
    return Question(
        id=str(row["question_id"]),
        kind=str(row["question_type"]),
        text=str(row["user_question_or_message"]),
        options=tuple(options[letter] for letter in LETTERS),
        correct=correct,
        context=str(row["shared_context_id"]),
        end=end,
        evidence=evidence,
    )


def _listed(text: str) -> Sequence[Any]:
    """Return the list that a cell holds, written as Python does or as JSON does."""
    try:
        found = json.loads(text)
    except ValueError:
        found = ast.literal_eval(text)
    if not isinstance(found, list):
        raise ValueError(f"{text[:40]!r} is not a list")
    return found


class Contexts:
    """The contexts of a file, each read when it is wanted: those of the 1M set do not fit into memory together.

    Raises:
        ConfigError: the file cannot be read, or a line is not of the format; the message names the line.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._offsets: dict[str, tuple[int, int]] = {}
        with path.open("rb") as stream:
            number = 0
            while True:
                offset = stream.tell()
                line = stream.readline()
                if not line:
                    break
                number += 1
                if line.strip():
                    for name in self._parse(line, number):
                        self._offsets[name] = (offset, number)

    def __contains__(self, name: str) -> bool:
        return name in self._offsets

    def __len__(self) -> int:
        return len(self._offsets)

    def messages(self, name: str) -> list[Message]:
        """Return the messages of a context, in order.

        Raises:
            ConfigError: it is not in the file, or its messages are not of the format.
        """
        if name not in self._offsets:
            raise ConfigError(f"{self.path} does not hold the context {name}.", "Use files of the same size and date.")
        offset, number = self._offsets[name]
        with self.path.open("rb") as stream:
            stream.seek(offset)
            rows = self._parse(stream.readline(), number)[name]
        try:
            return [Message(str(row["role"]), str(row["content"])) for row in rows]
        except (KeyError, TypeError) as error:
            raise self._wrong(number, error) from error

    def _parse(self, line: bytes, number: int) -> dict[str, Any]:
        try:
            found = json.loads(line)
            if not isinstance(found, dict) or not all(isinstance(rows, list) for rows in found.values()):
                raise ValueError("it is not an object with a list of messages")
        except ValueError as error:
            raise self._wrong(number, error) from error
        return found

    def _wrong(self, number: int, error: Exception) -> ConfigError:
        return ConfigError(
            f"Line {number} of {self.path} is not in PERSONAMEM's format: {type(error).__name__}: {error}.",
            f"Use the official file ({ADDRESS}).",
        )


def choice(reply: str) -> str | None:
    """Return the letter that a reply chooses; None when it names none, or more than one and does not say which.

    What stands after ``<final_answer>`` counts alone if it names one. Then the letter that a reply begins with, then
    the one that it states ("the answer is C"), then the only one that it names.

    Example:
        >>> choice("(c) because (a) is about painting"), choice("A good question!"), choice("(a) or (b)")
        ('c', None, None)
    """
    for part in [found.group(1) for found in _FINAL.finditer(reply)][::-1]:
        if (letter := _chosen(part)) is not None:
            return letter
    return _chosen(reply)


def _chosen(text: str) -> str | None:
    if (match := _LEADING.match(text)) is not None:
        letter: str = next(filter(None, match.groups())).lower()
        # "(a) or (b)", "B and C": it begins with one and goes on with another.
        if not re.match(r"\)?\s*(?:or|and|/|&|,)\s*\(?[a-d]\b", text[match.end() :].lstrip(), re.IGNORECASE):
            return letter
        return None
    for letters in (_letters(_stated(text)), _letters(_IN_PARENTHESES.findall(text)), _letters(_BARE.findall(text))):
        if letters:
            return letters.pop() if len(letters) == 1 else None
    return None


def _stated(text: str) -> Iterator[str]:
    for match in _STATED.finditer(text):
        before, bare = text[match.start() : match.end()].lower(), match.group(2)
        if "not" in before.split() or (bare and _ARTICLE.match(text[match.start(2) :])):
            continue
        yield match.group(1) or bare


def _letters(found: Sequence[str] | Iterator[str]) -> set[str]:
    return {letter.lower() for letter in found}
