"""A language model's stand-in on a fixed port, for trying benchmarks by hand: ``python tests/stand_in.py PORT``.

It answers by rule, not by understanding: a question with the text of the first memory, an extraction with the messages
themselves, a judgement by the words in common. Figures made with it show that the machinery works, and nothing else.
"""

import re
import sys
from http.server import ThreadingHTTPServer
from typing import Any

from llm_server import LLMServer

_LINE = re.compile(r"^1\. (?:\[[^\]]*\] )?(?:[^:\n]{1,40}: )?(.*)$", re.MULTILINE)
_SPOKEN = re.compile(r"^user: (.+)$", re.MULTILINE)


def _answer(prompt: str) -> str:
    """The first memory without its time and speaker; a refusal where there is none."""
    found = _LINE.search(prompt)
    return found.group(1) if found else "No information available"


def _verdict(prompt: str) -> dict[str, str]:
    gold, generated = (
        set(re.findall(r"\w+", re.search(rf"{name} answer: (.*)", prompt).group(1).lower()))
        for name in ("Gold", "Generated")
    )
    return {"label": "CORRECT" if gold and len(gold & generated) >= len(gold) / 2 else "WRONG"}


def _extraction(prompt: str) -> dict[str, list[dict[str, str]]]:
    """Every new message as a memory of its own, in the form that Mem0 asks for."""
    messages = prompt.rpartition("## New Messages\n")[2].partition("\n## ")[0]
    return {"memory": [{"id": str(n), "text": text} for n, text in enumerate(_SPOKEN.findall(messages))]}


def _keywords(prompt: str) -> str:
    return ", ".join(sorted(set(re.findall(r"[a-z]{6,}", prompt.rpartition("text:\n")[2])))[:4])


def _topics(prompt: str) -> list[dict[str, Any]]:
    """One topic for whatever MemoryOS shows."""
    said = prompt.rpartition("Conversation content:\n")[2]
    return [{"theme": "talk", "keywords": _keywords(said).split(", "), "content": said[:120]}]


#: what a prompt holds -> what is replied
RULES = {
    "Short answer:": _answer,
    "Generated answer:": _verdict,
    "## New Messages": _extraction,
    "Say yes.": "Yes.",
    "conversation continuity detector": "false",
    "conversation meta-summary updater": "They talk.",
    "expert in keyword extraction": _keywords,
    "expert in analyzing dialogue topics": _topics,
}


class StandIn(LLMServer):
    """Counts words as tokens."""

    def _completion(self, body: dict[str, Any]) -> dict[str, Any]:
        reply = super()._completion(body)
        prompt = sum(len(str(message.get("content", "")).split()) for message in body.get("messages", ()))
        words = len(reply["choices"][0]["message"]["content"].split())
        return reply | {"usage": {"prompt_tokens": prompt, "completion_tokens": words, "total_tokens": prompt + words}}


def main(port: int) -> None:
    server = StandIn(RULES, default="{}")
    server._server.server_close()
    server._server = ThreadingHTTPServer(("127.0.0.1", port), server._handler())
    server._server.serve_forever()


if __name__ == "__main__":
    main(int(sys.argv[1]))
