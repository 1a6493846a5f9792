"""Two small histories of our own in PERSONAMEM's format, with a question of each kind, for ``--quick`` and tests."""

from __future__ import annotations

import csv
import json
from pathlib import Path

from parts.datasets.personamem import LETTERS, QUESTION_TYPES

__all__ = ["write_tiny"]

# who the user is, and what user and assistant say
_PEOPLE = {
    "Ilse": (
        "Current user persona: Ilse restores tower clocks and lives in Leiden.",
        (
            "User: I gave up the cello last winter and play the oboe now.",
            "Assistant: The oboe is a brave choice! Do you play alone?",
            "User: I rehearse with a wind quintet on Thursdays. The cello hurt my left wrist, that is why I stopped.",
            "Assistant: A wrist needs rest. Thursdays with a quintet sound like fun.",
            "User: I used to dislike sailing, but after a week in Friesland I like it a lot.",
            "Assistant: Friesland does that to people.",
            "User: I cannot eat walnuts, they make my throat swell. 🌰",
            "Assistant: I will keep walnuts out of every recipe.",
        ),
    ),
    "Bram": (
        "Current user persona: Bram bakes bread and studies Mandarin in the evening.",
        (
            "User: 我每天晚上学习普通话。My teacher is called Mei.",
            "Assistant: Mei sounds like a patient teacher.",
            "User: I sold my motorcycle because the noise woke my daughter.",
            "Assistant: She will sleep better now.",
            "User: I once loved crowded markets; since last summer I prefer the quiet shop on the corner.",
            "User: Rye is the flour that I bake with most.",
            "Assistant: Rye gives a dense and fragrant loaf.",
        ),
    ),
}
# questions with the right option
_QUESTIONS = {
    "Ilse": (
        ("Which instrument do I play now?", "The oboe, since you gave up the cello."),
        ("What did I say that I cannot eat?", "Walnuts: they make your throat swell."),
        ("Why did I change my instrument?", "Because the cello hurt your left wrist."),
        ("How has my view of sailing changed?", "You disliked sailing and like it since a week in Friesland."),
    ),
    "Bram": (
        ("Suggest something new for my evenings.", "A film in Mandarin, which you study with Mei every evening."),
        ("Recommend a place to buy things.", "The quiet shop on the corner, which you prefer to crowded markets."),
        ("What should I bake for a friend?", "A loaf of rye, the flour that you bake with most."),
    ),
}
_WRONG = (
    "Scuba diving near a volcanic island would suit you.",
    "You told me that you collect stamps from Peru.",
    "A heavy metal concert in a stadium is your favourite.",
)


def write_tiny(folder: Path, size: str = "32k") -> tuple[Path, Path]:
    """Write the two files under their official names and return their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    questions, contexts = folder / f"questions_{size}.csv", folder / f"shared_contexts_{size}.jsonl"
    lines, rows = [], []
    for name, (persona, said) in _PEOPLE.items():
        messages = [{"role": "system", "content": persona}]
        messages += [{"role": "user" if one.startswith("User") else "assistant", "content": one} for one in said]
        # Said after every question: it must not be known yet.
        messages.append({"role": "user", "content": "User: From now on I play the drums, and nothing else."})
        lines.append(json.dumps({f"context-{name}": messages}, ensure_ascii=False))
        # The first question comes earlier than the others of its context.
        ends = [len(messages) - 3, *[len(messages) - 1] * len(_QUESTIONS[name])]
        rows += [(name, text, right, end) for (text, right), end in zip(_QUESTIONS[name], ends, strict=False)]
    contexts.write_text("\n".join(lines) + "\n", encoding="utf-8")
    with questions.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(
            ["persona_id", "question_id", "question_type", "topic", "user_question_or_message", "correct_answer",
             "all_options", "shared_context_id", "end_index_in_shared_context"]
        )  # fmt: skip
        for number, (name, text, right, end) in enumerate(rows):
            place = number % len(LETTERS)
            options = [*_WRONG[:place], right, *_WRONG[place:]]
            texts = [f"({letter}) {option}" for letter, option in zip(LETTERS, options, strict=True)]
            kind = QUESTION_TYPES[number % len(QUESTION_TYPES)]
            row = [name, f"q{number}", kind, "tiny", text, f"({LETTERS[place]})", str(texts), f"context-{name}", end]
            writer.writerow(row)
    return questions, contexts
