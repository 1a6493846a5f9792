"""What the stand-in for MemoryOS's language model replies, by a phrase of the prompt."""

import re

__all__ = ["REPLIES"]


def _keywords(prompt: str) -> str:
    return ", ".join(sorted(set(re.findall(r"[a-z]{6,}", prompt.partition("text:\n")[2])))[:4])


def _summary(prompt: str) -> list:
    said = prompt.partition("Conversation content:\n")[2]
    return [{"theme": "talk", "keywords": _keywords(f"text:\n{said}").split(", "), "content": said[:120]}]


REPLIES = {
    "conversation continuity detector": "false",
    "conversation meta-summary updater": "They talk.",
    "expert in keyword extraction": _keywords,
    "expert in analyzing dialogue topics": _summary,
}
