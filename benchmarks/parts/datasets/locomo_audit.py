"""Label errors of LoCoMo that a program can tell: listed in data/locomo_audit.json, left out on request.

The rules look at a question's evidence and its gold answer alone:

* *no evidence*: the question names no turn;
* *missing turn*: it names a turn that the conversation does not have;
* *contradiction*: the gold answer's date is not the one that its evidence gives. Only where that is certain: one turn
  of evidence with a single expression of time ("yesterday", "two days ago", "last Friday"), read generously from the
  date of its session, and nothing vague beside it;
* *repeated*: the same question was asked before, of the same conversation with the same gold answer, or as one that can
  be answered where this one cannot.
"""

from __future__ import annotations

import calendar
import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any

from hins_memory.errors import ConfigError
from parts.common.files import DATA
from parts.datasets.locomo import EVIDENCE_ID, TIME_FORMAT, Conversation

__all__ = ["AUDIT", "LabelError", "audited", "find_label_errors", "known_errors"]

#: The list that `--audited` goes by.
AUDIT = DATA / "locomo_audit.json"

_MONTHS = {name.lower(): number for number, name in enumerate(calendar.month_name) if name}
_WEEKDAYS = {name.lower(): number for number, name in enumerate(calendar.day_name)}
_WEEKDAYS |= {"mon": 0, "tue": 1, "tues": 1, "wed": 2, "thu": 3, "thur": 3, "thurs": 3, "fri": 4, "sat": 5, "sun": 6}
_WEEKDAY = "|".join(sorted(_WEEKDAYS, key=len, reverse=True))
_NUMBERS = {"one": 1, "two": 2, "three": 3, "four": 4, "five": 5, "six": 6}
_DAY = re.compile(rf"\b(\d{{1,2}})(?:st|nd|rd|th)? ({'|'.join(_MONTHS)}),? (\d{{4}})\b")
_DAY_US = re.compile(rf"\b({'|'.join(_MONTHS)}) (\d{{1,2}})(?:st|nd|rd|th)?,? (\d{{4}})\b")
_MONTH = re.compile(rf"\b({'|'.join(_MONTHS)}),? (\d{{4}})\b")
_YEAR = re.compile(r"\d{4}")
_RELATIVE = re.compile(rf"\bthe ({_WEEKDAY}|day|week|weekend|month) (?:before|after|of)\b")
_AGO = re.compile(rf"({'|'.join(_NUMBERS)}|\d) (day|week)s? ago")
_NEAR = {
    "the day before yesterday": -2,
    "yesterday": -1,
    "last night": -1,
    "today": 0,
    "tonight": 0,
    "this morning": 0,
    "the day after tomorrow": 2,
    "tomorrow": 1,
}
#: Expressions of time that may be read from the date on which they were said.
_TIMES = re.compile(
    rf"\b(?:{'|'.join(_NEAR)}|(?:{'|'.join(_NUMBERS)}|\d) (?:day|week)s? ago|"
    rf"(?:(?:last|this|next) )(?:week|weekend|month|year)|(?:(?:last|this past|this) )?(?:{_WEEKDAY}))\b"
)
# What else a turn may say about time: then it is not certain what is meant.
_VAGUE = re.compile(
    r"\b(?:(?:months?|years?|decades?|a few \w+|a couple of \w+) ago|recently|soon|upcoming|in (?:a|two) \w+)\b"
)
_FUTURE = re.compile(r"next|tomorrow|the day after")
_OPEN_ENDED = re.compile(r"\b(?:before|after|since|until|between|around|of|ago|end|early|late|mid)\b")


@dataclass(frozen=True, slots=True)
class LabelError:
    """A question with a wrong label.

    Attributes:
        conversation: its conversation's id.
        number: its place among the conversation's questions, from 0.
        digest: the beginning of its text's SHA-256, so that another file's question is not taken for it.
        reason: ``no evidence``, ``missing turn``, ``contradiction`` or ``repeated``.
        detail: which turn is missing, what the dates are, or which question it repeats.
    """

    conversation: str
    number: int
    digest: str
    reason: str
    detail: str


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:12]


def find_label_errors(samples: Iterable[Mapping[str, Any]]) -> list[LabelError]:
    """Return the label errors in the JSON of a file in LoCoMo's format, in its order."""
    found = []
    for sample in samples:
        talk = sample["conversation"]
        sessions = {key: value for key, value in talk.items() if re.fullmatch(r"session_\d+", key)}
        turns = {
            str(turn["dia_id"]): (str(turn["text"]).lower(), _session_date(talk.get(f"{key}_date_time")))
            for key, session in sessions.items()
            for turn in session or ()
        }
        before: dict[str, tuple[int, Mapping[str, Any]]] = {}
        for number, row in enumerate(sample.get("qa") or ()):
            reason, detail = _label_error(row, turns)
            words = " ".join(re.findall(r"\w+", str(row["question"]).lower()))
            first, earlier = before.setdefault(words, (number, row))
            if first != number and (row.get("category") == 5 or row.get("answer") == earlier.get("answer")):
                reason, detail = "repeated", f"question {first} has the same words"
            if reason:
                name, question = str(sample["sample_id"]), str(row["question"])
                found.append(LabelError(name, number, _digest(question), reason, detail))
    return found


def _label_error(row: Mapping[str, Any], turns: Mapping[str, tuple[str, date | None]]) -> tuple[str, str]:
    evidence = row.get("evidence") or []
    names: list[str] = []
    for entry in evidence if isinstance(evidence, list) else [evidence]:
        ids = [f"D{int(session)}:{int(turn)}" for session, turn in EVIDENCE_ID.findall(str(entry))]
        if entry in turns:
            ids = [entry]
        if unknown := [name for name in ids if name not in turns] or ([] if ids else [str(entry)]):
            return "missing turn", f"the conversation has no turn {unknown[0]!r}"
        names += ids
    if not names:
        return "no evidence", "the question names no turn"
    if row.get("category") != 5 and row.get("answer") and len(set(names)) == 1:
        text, day = turns[names[0]]
        if day is not None and (problem := _contradiction(row, text, day)):
            return "contradiction", f"{names[0]}, said on {day}: {problem}"
    return "", ""


def _contradiction(row: Mapping[str, Any], text: str, said: date) -> str:
    """Return how a gold answer's date differs from what a turn says, "" where it does not or that is not certain."""
    gold = str(row["answer"]).lower()
    expressions = [match.group() for match in _TIMES.finditer(text)]
    if len(expressions) != 1 or _VAGUE.search(text):
        return ""
    if _FUTURE.match(expressions[0]) and re.search(r"\bdid\b", str(row["question"]).lower()):
        return ""  # a plan: what the question asks for was before
    days, relative = _days(gold), _RELATIVE.search(gold)
    if relative is not None:
        if len(days) != 1:
            return ""
        if days[0] != said:
            return f"the gold answer counts from {days[0]}"
        weekday, heard = _weekday(relative.group(1)), _weekday(expressions[0])
        differs = weekday is not None and heard is not None and weekday != heard
        return f"it says {expressions[0]}, the gold answer {relative.group(1)}" if differs else ""
    first, last = _period(expressions[0], said)
    if first is None or last is None or _OPEN_ENDED.search(gold):
        return ""
    named = _named_period(gold)
    if named is None or (named[0] <= last and first <= named[1]):
        return ""
    return f"it says {expressions[0]}, the gold answer {gold}"


def _period(expression: str, said: date) -> tuple[date | None, date | None]:
    """Return the first and last day that an expression may mean, read generously; None where it may mean much."""
    if expression in _NEAR:
        day = said + timedelta(days=_NEAR[expression])
        return day, day
    if ago := _AGO.fullmatch(expression):
        number = _NUMBERS.get(ago.group(1)) or int(ago.group(1))
        distance = number * {"day": 1, "week": 7}[ago.group(2)]
        slack = 0 if ago.group(2) == "day" else 7
        return said - timedelta(days=distance + slack), said - timedelta(days=distance - slack)
    side, _, unit = expression.rpartition(" ")
    if (weekday := _weekday(expression)) is not None:
        # "last Friday" may be the one of last week, or the latest one.
        back = (said.weekday() - weekday - 1) % 7 + 1
        days = [said - timedelta(days=back + 7 * weeks) for weeks in (0, 1)]
        return (days[1], days[0]) if side else (None, None)
    span = {"week": 14, "weekend": 14}.get(unit)
    if span is not None and side in ("last", "next"):
        return (said - timedelta(days=span), said) if side == "last" else (said, said + timedelta(days=span))
    if unit == "month":
        return _month(said.year, said.month + {"last": -1, "this": 0, "next": 1}[side])
    if unit == "year":
        year = said.year + {"last": -1, "this": 0, "next": 1}[side]
        return date(year, 1, 1), date(year, 12, 31)
    return None, None


def _month(year: int, month: int) -> tuple[date, date]:
    year, month = year + (month - 1) // 12, (month - 1) % 12 + 1
    return date(year, month, 1), date(year, month, calendar.monthrange(year, month)[1])


def _named_period(gold: str) -> tuple[date, date] | None:
    """Return the first and last day of the day, month or year that a gold answer names, if it names one."""
    if days := _days(gold):
        return (days[0], days[0]) if len(days) == 1 else None
    if months := _MONTH.findall(gold):
        return _month(int(months[0][1]), _MONTHS[months[0][0]]) if len(months) == 1 else None
    if _YEAR.fullmatch(gold.strip()):
        return date(int(gold), 1, 1), date(int(gold), 12, 31)
    return None


def _weekday(expression: str) -> int | None:
    return _WEEKDAYS.get(expression.rpartition(" ")[2])


def _days(text: str) -> list[date]:
    found = [(year, month, day) for day, month, year in _DAY.findall(text)]
    found += [(year, month, day) for month, day, year in _DAY_US.findall(text)]
    days = []
    for year, month, day in found:
        try:
            days.append(date(int(year), _MONTHS[month], int(day)))
        except ValueError:
            continue
    return days


def _session_date(text: Any) -> date | None:
    try:
        return datetime.strptime(str(text), TIME_FORMAT).date()
    except ValueError:
        return None


def known_errors(path: Path = AUDIT) -> dict[tuple[str, int], LabelError]:
    """Return a list of label errors by conversation and number.

    Raises:
        ConfigError: the list cannot be read.
    """
    try:
        rows = json.loads(path.read_text(encoding="utf-8"))["questions"]
        errors = [LabelError(**row) for row in rows]
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise ConfigError(
            f"{path} cannot be read: {error}.", "Make it anew with benchmarks/audit_locomo.py."
        ) from error
    return {(one.conversation, one.number): one for one in errors}


def is_known(errors: Mapping[tuple[str, int], LabelError], conversation: str, number: int, question: str) -> bool:
    """Return whether a question is in a list of label errors."""
    found = errors.get((conversation, number))
    return found is not None and found.digest == _digest(question)


def audited(conversations: Sequence[Conversation]) -> list[Conversation]:
    """Return conversations without the questions that have known label errors."""
    errors = known_errors()
    return [
        replace(
            one,
            questions=tuple(
                question
                for number, question in enumerate(one.questions)
                if not is_known(errors, one.id, number, question.text)
            ),
        )
        for one in conversations
    ]


def write_errors(path: Path, errors: Sequence[LabelError], source: str) -> None:
    """Write a list of label errors, and the SHA-256 of the file they were found in."""
    rows = {"source_sha256": source, "questions": [asdict(one) for one in errors]}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(rows, indent=1, ensure_ascii=True) + "\n", encoding="utf-8")
