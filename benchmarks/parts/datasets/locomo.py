"""LoCoMo (Maharana et al. 2024, arXiv 2402.17753): the file's format read into dataclasses, and evaluation sets.

Every file of the same format loads. Evidence is kept where it surely names a turn of the conversation: several ids
in one string are split, ``D30:05`` and ``D:11:26`` are read as ``D30:5`` and ``D11:26``, anything else is dropped.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Literal

from hins_memory.errors import ConfigError
from hins_memory.evaluation import EvalQuery, EvalSet
from parts.common.files import DATA, DataSource

__all__ = [
    "ANSWERABLE",
    "CATEGORIES",
    "LOCOMO",
    "Conversation",
    "Document",
    "Fact",
    "Memories",
    "Question",
    "Turn",
    "conversation_digest",
    "documents",
    "eval_set",
    "load_locomo",
    "relevant",
    "relevant_among",
    "sample_conversations",
]

LOCOMO = DataSource(
    name="locomo10.json",
    url="https://raw.githubusercontent.com/snap-research/locomo/main/data/locomo10.json",
    sha256="79fa87e90f04081343b8c8debecb80a9a6842b76a7aa537dc9fdf651ea698ff4",
    licence="CC BY-NC 4.0",
)
#: The dataset's question categories. A question of category 5 is a trap: it asks one speaker for the other's fact.
CATEGORIES = {1: "multi-hop", 2: "temporal", 3: "open", 4: "single-hop", 5: "adversarial"}
#: The groups of an evaluation set that the headline figures average over.
ANSWERABLE = ("1", "2", "3", "4")

#: Facts of the packaged sample conversations: text, and the ids of the turns that it was taken from.
SAMPLE_FACTS = DATA / "sample_facts.jsonl"

#: What is stored: every turn, or the facts that the dataset's authors extracted by LLM (``observation``).
Memories = Literal["turns", "facts"]

#: A turn's id in an evidence entry, as sloppy as the file writes it: session, turn.
EVIDENCE_ID = re.compile(r"D:?(\d+):(\d+)(?!\d)")
_SESSION = re.compile(r"session_(\d+)")
TIME_FORMAT = "%I:%M %p on %d %B, %Y"


@dataclass(frozen=True, slots=True)
class Turn:
    """One utterance. `text` ends with ``[shares CAPTION]`` where an image was sent; `time` is its session's."""

    id: str
    speaker: str
    text: str
    session: int
    time: datetime | None


@dataclass(frozen=True, slots=True)
class Fact:
    """One extracted fact about a speaker; `evidence` are the ids of the turns it came from."""

    id: str
    speaker: str
    text: str
    session: int
    evidence: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Question:
    """One question; `answer` is "" where the file has none (category 5), `trap` is the wrong answer it invites."""

    text: str
    answer: str
    category: int
    evidence: tuple[str, ...]
    trap: str = ""


@dataclass(frozen=True, slots=True)
class Conversation:
    """One long conversation of two speakers over many sessions, with its facts and questions."""

    id: str
    speakers: tuple[str, ...]
    turns: tuple[Turn, ...]
    facts: tuple[Fact, ...]
    questions: tuple[Question, ...]


@dataclass(frozen=True, slots=True)
class Document:
    """One thing to store: its id, whom it is by or about, its text as stored, its session, and its turns' ids."""

    id: str
    speaker: str
    text: str
    session: int
    evidence: tuple[str, ...]


def load_locomo(path: Path | str) -> list[Conversation]:
    """Read a file in LoCoMo's format.

    Raises:
        ConfigError: the file cannot be read or is not of that format; the message says where.
    """
    path = Path(path)
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path} cannot be read: {error}.", "Give a JSON file in LoCoMo's format.") from error
    if not isinstance(content, list) or not content:
        raise ConfigError(f"{path} holds no list of conversations.", "Give a JSON file in LoCoMo's format.")
    conversations = []
    for number, sample in enumerate(content, start=1):
        try:
            conversations.append(_conversation(sample, f"conv-{number}"))
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise ConfigError(
                f"Conversation {number} of {path} is not in LoCoMo's format: {type(error).__name__}: {error}.",
                "It needs conversation.session_N with dia_id, speaker and text, and qa with question and category.",
            ) from error
    names = [one.id for one in conversations]
    if len(set(names)) != len(names):
        raise ConfigError(f"{path} holds two conversations of the same sample_id.", "Give each its own.")
    return conversations


def sample_conversations() -> list[Conversation]:
    """Return the packaged sample conversations as ones of LoCoMo; likings and judgements are both *open* there.

    Their facts are those of data/sample_facts.jsonl, which were written from the turns alone, without the questions.

    Raises:
        ConfigError: the facts cannot be read.
    """
    from hins_memory.data.sample_conversations import load_sample

    categories = {"single-hop": 4, "multi-hop": 1, "temporal": 2, "preference": 3, "open": 3}
    facts = _sample_facts()
    found = []
    for one in load_sample():
        turns = tuple(
            Turn(turn.id, turn.speaker, turn.text, number, datetime.fromtimestamp(session.time, timezone.utc))
            for number, session in enumerate(one.sessions, start=1)
            for turn in session.turns
        )
        questions = tuple(
            Question(row.question, row.answer, categories[row.kind], row.evidence) for row in one.questions
        )
        sessions = {turn.id: turn.session for turn in turns}
        known = tuple(
            Fact(f"F{number}", _named_first(text, one.speakers), text, sessions[evidence[0]], tuple(evidence))
            for number, (text, evidence) in enumerate(facts[one.id], start=1)
        )
        found.append(Conversation(one.id, one.speakers, turns, known, questions))
    return found


def _sample_facts() -> dict[str, list[tuple[str, list[str]]]]:
    try:
        rows = [json.loads(line) for line in SAMPLE_FACTS.read_text(encoding="utf-8").splitlines()]
        return {row["conversation"]: row["facts"] for row in rows}
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise ConfigError(f"{SAMPLE_FACTS} cannot be read: {error!r}.", "Restore the file.") from error


def _named_first(text: str, speakers: Sequence[str]) -> str:
    return min(speakers, key=lambda name: text.find(name) if name in text else len(text))


def sample_sets() -> list[EvalSet]:
    """Return the packaged sample conversations as evaluation sets over turns; the group is the kind of question."""
    from hins_memory.data.sample_conversations import load_sample

    return [
        EvalSet(
            one.id,
            {turn.id: f"{turn.speaker}: {turn.text}" for turn in one.turns},
            tuple(EvalQuery(query.question, frozenset(query.evidence), query.kind) for query in one.questions),
        )
        for one in load_sample()
    ]


def _conversation(sample: Mapping[str, Any], default_id: str) -> Conversation:
    talk = sample["conversation"]
    turns = tuple(turn for session in _sessions(talk) for turn in _turns(talk, session))
    ids = {turn.id for turn in turns}
    if not turns or len(ids) != len(turns):
        raise ValueError("it has no turn, or two turns of the same dia_id")
    speakers = [str(talk[name]) for name in ("speaker_a", "speaker_b") if talk.get(name)]
    return Conversation(
        id=str(sample.get("sample_id") or default_id),
        speakers=tuple(dict.fromkeys([*speakers, *(turn.speaker for turn in turns)])),
        turns=turns,
        facts=tuple(_facts(sample.get("observation") or {}, ids)),
        questions=tuple(_question(row, ids) for row in sample.get("qa") or ()),
    )


def _sessions(talk: Mapping[str, Any]) -> list[int]:
    found = (_SESSION.fullmatch(key) for key in talk)
    return sorted(int(match.group(1)) for match in found if match)


def _turns(talk: Mapping[str, Any], session: int) -> list[Turn]:
    time = _time(talk.get(f"session_{session}_date_time"))
    turns = []
    for row in talk[f"session_{session}"] or ():
        text, caption = str(row["text"]), row.get("blip_caption")
        turns.append(
            Turn(
                id=str(row["dia_id"]),
                speaker=str(row["speaker"]),
                text=f"{text} [shares {caption}]" if caption else text,
                session=session,
                time=time,
            )
        )
    return turns


def _time(text: Any) -> datetime | None:
    try:
        return datetime.strptime(str(text), TIME_FORMAT)
    except ValueError:
        return None


def _evidence(value: Any, known: set[str]) -> tuple[str, ...]:
    """Return the ids of existing turns in an evidence entry, which may be a string or a list of strings."""
    parts = value if isinstance(value, list) else [value]
    ids: dict[str, None] = {}
    for part in parts:
        if part in known:
            ids[part] = None
            continue
        for session, turn in EVIDENCE_ID.findall(str(part)):
            name = f"D{int(session)}:{int(turn)}"
            if name in known:
                ids[name] = None
    return tuple(ids)


def _facts(observation: Mapping[str, Any], known: set[str]) -> list[Fact]:
    facts: list[Fact] = []
    for key, by_speaker in observation.items():
        number = re.search(r"\d+", key)
        session = int(number.group()) if number else 0
        for speaker, rows in by_speaker.items():
            for text, evidence in rows:
                name = f"F{len(facts) + 1}"
                facts.append(Fact(name, str(speaker), str(text), session, _evidence(evidence, known)))
    return facts


def _question(row: Mapping[str, Any], known: set[str]) -> Question:
    answer = row.get("answer")
    return Question(
        text=str(row["question"]),
        answer="" if answer is None else str(answer),
        category=int(row["category"]),
        evidence=_evidence(row.get("evidence") or [], known),
        trap=str(row.get("adversarial_answer") or ""),
    )


def documents(conversation: Conversation, memories: Memories) -> list[Document]:
    """Return what an agent stores of a conversation: each turn as ``Speaker: text``, or each fact as it is.

    Raises:
        ConfigError: facts are asked for and the file has none.
    """
    if memories == "turns":
        return [
            Document(turn.id, turn.speaker, f"{turn.speaker}: {turn.text}", turn.session, (turn.id,))
            for turn in conversation.turns
        ]
    if not conversation.facts:
        raise ConfigError(
            f"The conversation {conversation.id!r} has no extracted facts (observation).", "Use --memories turns."
        )
    return [Document(fact.id, fact.speaker, fact.text, fact.session, fact.evidence) for fact in conversation.facts]


def relevant(conversation: Conversation, memories: Memories) -> list[frozenset[str]]:
    """Return, for each question, the ids of the documents whose turns meet its evidence; empty where none does."""
    return relevant_among(conversation, documents(conversation, memories))


def relevant_among(conversation: Conversation, stored: Sequence[Document]) -> list[frozenset[str]]:
    """Return, for each question, the ids of those of the documents whose turns meet its evidence."""
    return [
        frozenset(document.id for document in stored if set(question.evidence).intersection(document.evidence))
        for question in conversation.questions
    ]


def conversation_digest(conversation: Conversation) -> str:
    """Return what tells a conversation, with its facts and questions, from any other."""
    content = json.dumps(asdict(conversation), default=str, ensure_ascii=True)
    return hashlib.sha256(content.encode()).hexdigest()


def eval_set(conversation: Conversation, memories: Memories) -> EvalSet:
    """Return the conversation's questions over its own documents; the group is the category, e.g. ``"4"``.

    Questions without any relevant document are left out.
    """
    queries = tuple(
        EvalQuery(question.text, found, str(question.category))
        for question, found in zip(conversation.questions, relevant(conversation, memories), strict=True)
        if found
    )
    return EvalSet(conversation.id, {one.id: one.text for one in documents(conversation, memories)}, queries)
