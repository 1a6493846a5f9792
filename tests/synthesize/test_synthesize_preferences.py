"""Packaged preferences: their form, where they are planted, and that none of what is scored is among them."""

import json
import re
from dataclasses import replace
from pathlib import Path

from synthesis_corpus import write_corpus

from hins_memory.synthesize import Exclusion, RuleSettings, conversations_by_rules, read_corpus
from hins_memory.synthesize.preferences import preferences

SCORED = Path(__file__).parents[2] / "benchmarks" / "data" / "preferences.jsonl"
RULES = RuleSettings(sessions=2, facts=1, preferences=5)


def words(text: str) -> list[str]:
    return re.findall(r"\w+", text.lower())


def runs(text: str) -> set[tuple[str, ...]]:
    found = words(text)
    return {tuple(found[at : at + 5]) for at in range(len(found) - 4)}


def test_the_packaged_ones_can_be_given_any_name() -> None:
    found = preferences()
    assert len(found) >= 150
    assert len({one.memory for one in found}) == len(found)
    for one in found:
        assert all("{name}" in text for text in (one.memory, one.named, one.distractor))
        assert "{" not in one.own
        assert re.search(r"\b(I|me|my|mine|we|us|our)\b", one.own)


def test_nothing_that_is_scored_is_among_them() -> None:
    rows = [json.loads(line) for line in SCORED.read_text(encoding="utf-8").splitlines()]
    scored = [text for row in rows for text in (*row["memories"], *(question for question, _ in row["questions"]))]
    known = set().union(*(runs(text) for text in scored))
    questions = {" ".join(words(text)) for text in scored}
    for one in preferences():
        assert not any(runs(text.replace("{name}", "")) & known for text in (one.memory, one.named, one.own)), one
        assert " ".join(words(one.own)) not in questions


def test_they_are_planted_among_facts_and_nowhere_else(tmp_path: Path) -> None:
    dialogues = read_corpus([write_corpus(tmp_path / "talks.csv")])
    for planted in (0, 5):
        for _, one in conversations_by_rules(dialogues, replace(RULES, preferences=planted)):
            memories = {text.memory.replace("{name}", name): name for text in preferences() for name in one.speakers}
            stored = [place for place, item in enumerate(one.items) if item.text in memories]
            assert len(stored) == planted
            for place in stored:
                assert one.items[place].speaker == memories[one.items[place].text]
                asked = [query for query in one.queries if query.items == (place,)]
                assert [query.kind for query in asked] == ["preference", "preference"]
    for _, one in conversations_by_rules(dialogues, replace(RULES, facts=0)):
        assert all(item.turns for item in one.items)


def test_what_an_exclusion_quotes_is_left_out(tmp_path: Path) -> None:
    dialogues = read_corpus([write_corpus(tmp_path / "talks.csv")])
    quoted = max(preferences(), key=lambda one: len(one.memory))
    everything = replace(RULES, preferences=len(preferences()))
    for exclusion, expected in ((None, True), (Exclusion.of([quoted.memory.replace("{name}", "Bo")]), False)):
        _, made = next(conversations_by_rules(dialogues, everything, exclusion))
        assert (quoted.own in {query.text for query in made.queries}) is expected
