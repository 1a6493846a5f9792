"""What several tests of the MemoryOS adapter need: conversations, a language model's replies, the log's events."""

from __future__ import annotations

import inspect
import re
from importlib import import_module
from pathlib import Path
from typing import Any

import memoryos
import numpy as np
from llm_server import LLMServer

from hins_memory.config import Settings
from hins_memory.database.engine import open_database
from hins_memory.encoders.encoder import Encoder
from hins_memory.log.reader import LogReader
from hins_memory.sdk.attachment import attachment_of
from hins_memory.types import ScopeLog

PAIRS = (
    ("I play the cello in an amateur orchestra.", "How lovely! Bach wrote six suites for it. 🎻"),
    ("My cello teacher is called Ines.", "Ines sounds like a patient musician."),
    ("我在奥斯陆有一只名叫雪球的猫。", "雪球是个好名字！"),
    ("I grow tomatoes and basil on the balcony.", "Basil keeps the aphids away from tomatoes."),
    ("The garden needs water every evening.", "A drip hose in the garden would save you time."),
    ("I have to practise the second Bach suite.", "Begin slowly, with the cello's open strings."),
)


#: whether it is the newer tree, where the encoder can be chosen
NEWER = "embedding_model_name" in inspect.signature(memoryos.Memoryos).parameters


def module(name: str) -> Any:
    """One of MemoryOS's modules, by its name there: in the package, or beside memoryos.py."""
    return import_module(f"memoryos.{name}" if hasattr(memoryos, "__path__") else name)


def _summary(prompt: str) -> Any:
    text = prompt.lower()
    if "cello" in text or "bach" in text:
        return [{"theme": "music", "keywords": ["cello", "music"], "content": "The user plays the cello."}]
    if "garden" in text or "tomatoes" in text:
        return [{"theme": "garden", "keywords": ["garden"], "content": "The user grows vegetables in a garden."}]
    return [{"theme": "pets", "keywords": ["cat"], "content": "The user has a cat in Oslo."}]


def _keywords(prompt: str) -> str:
    text = prompt.partition("text:\n")[2].partition("\n\nKeywords:")[0]
    return ", ".join(sorted({word.lower() for word in re.findall(r"\w{5,}", text)})[:4])


def _knowledge(prompt: str) -> str:
    about_music = "cello" in prompt.partition("Latest User-AI Conversation:")[2]
    private, assistant = ("- Plays the cello", "- Explained Bach") if about_music else ("- Grows vegetables", "None")
    return f"【User Private Data】\n{private}\n【Assistant Knowledge】\n{assistant}"


REPLIES = {
    "conversation continuity detector": "false",
    "conversation meta-summary updater": "They talk.",
    "expert in keyword extraction": _keywords,
    "expert in analyzing dialogue topics": _summary,
    "user preference analysis assistant": "Likes music: High.",
    "knowledge extraction assistant": _knowledge,
}


def options(llm: LLMServer, root: Path, user: str = "ann", **changes: Any) -> dict[str, Any]:
    """Arguments of a Memoryos that makes a page of every pair but the latest."""
    given = {
        "user_id": user,
        "openai_api_key": "loopback",
        "openai_base_url": llm.base_url,
        "data_storage_path": str(root),
        # memoryos-pro makes pages of what is said when the short-term memory is full, the newer tree with the next.
        "short_term_capacity": 1 if NEWER else 2,
        "mid_term_heat_threshold": 100.0,
    }
    return given | changes


def own_memory(llm: LLMServer, root: Path, user: str = "ann", **changes: Any) -> Any:
    """MemoryOS's own Memoryos."""
    return memoryos.Memoryos(**options(llm, root, user, **changes))


def talk(memory: Any, pairs: Any = PAIRS) -> None:
    for number, (said, replied) in enumerate(pairs):
        memory.add_memory(said, replied, timestamp=f"2026-03-0{number + 1} 10:00:00")


def pages(found: Any) -> list[str]:
    return [page["user_input"] for page in found["retrieved_pages"]]


def ask(memory: Any, query: str) -> Any:
    return memory.retriever.retrieve_context(query, user_id=memory.user_id)


def agent_of(memory: Any) -> Any:
    from hins_adapter_memoryos.attaching import agent_of as found

    agent = found(memory)
    assert agent is not None
    return agent


def assert_in_one_space(memory: Any, encoder: Encoder) -> int:
    """Every vector of the objects and of all files of the store is what the encoder makes of its text."""
    attachment = attachment_of(memory)
    assert attachment is not None
    agent = attachment.agent
    assert agent.encoder_version == encoder.version
    found = [entry for part in attachment.parts.values() for entry in part.entries()]
    for path in agent.files.paths():
        document = agent.files.checked(path)
        in_file = list(agent.files.entries_in(document))
        assert document.get("hins_encoder") == encoder.space or not in_file
        found += in_file
    expected = encoder.encode([entry.text for entry in found])
    for entry, vector in zip(found, expected, strict=True):
        assert entry.vector is not None
        assert float(np.dot(np.asarray(entry.vector, dtype=np.float32), vector)) > 0.999, entry.text
    return len(found)


def logged(settings: Settings) -> list[ScopeLog]:
    """Everything that the log holds, an owner at a time."""
    return list(LogReader(open_database(settings.database_url)).scope_logs())
