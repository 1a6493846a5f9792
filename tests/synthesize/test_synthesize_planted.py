"""Packaged facts: their form, where they are planted, and that none of what is scored is among them."""

import json
import re
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from synthesis_corpus import write_corpus

from hins_memory.synthesize import Exclusion, RuleSettings, conversations_by_rules, read_corpus
from hins_memory.synthesize.planted import Kind, planted

SCORED = Path(__file__).parents[2] / "benchmarks" / "data" / "preferences.jsonl"
RULES = RuleSettings(sessions=2, facts=1, preferences=5, events=3)
PACKAGED = [one for found in planted().values() for one in found]


def words(text: str) -> list[str]:
    return re.findall(r"\w+", text.lower())


def runs(text: str) -> set[tuple[str, ...]]:
    found = words(text)
    return {tuple(found[at : at + 5]) for at in range(len(found) - 4)}


@pytest.mark.parametrize("kind", ["preference", "event"])
def test_the_packaged_ones_can_be_given_any_name(kind: Kind) -> None:
    found = planted()[kind]
    assert len(found) >= 400
    assert len({one.memory for one in found}) == len(found)
    for one in found:
        first, second = one.questions
        assert all("{name}" in text for text in (one.memory, second, one.distractor))
        if kind == "event":
            assert "{name}" in first
        else:
            assert "{" not in first
            assert re.search(r"\b(I|me|my|mine|we|us|our)\b", first)


def test_nothing_that_is_scored_is_among_them() -> None:
    rows = [json.loads(line) for line in SCORED.read_text(encoding="utf-8").splitlines()]
    scored = [text for row in rows for text in (*row["memories"], *(question for question, _ in row["questions"]))]
    known = set().union(*(runs(text) for text in scored))
    questions = {" ".join(words(text)) for text in scored}
    for one in PACKAGED:
        assert not any(runs(text.replace("{name}", "")) & known for text in (one.memory, *one.questions)), one
        assert not questions.intersection(" ".join(words(text)) for text in one.questions)


def test_they_are_planted_among_facts_and_nowhere_else(tmp_path: Path) -> None:
    dialogues = read_corpus([write_corpus(tmp_path / "talks.csv")])
    for preferences, events in ((0, 0), (5, 0), (0, 3), (5, 3)):
        rules = replace(RULES, preferences=preferences, events=events)
        for _, one in conversations_by_rules(dialogues, rules):
            known = {
                fact.memory.replace("{name}", name): (fact.kind, name) for fact in PACKAGED for name in one.speakers
            }
            stored = [place for place, item in enumerate(one.items) if item.text in known]
            kinds = Counter(known[one.items[place].text][0] for place in stored)
            assert kinds == Counter(preference=preferences, event=events)
            for place in stored:
                kind, name = known[one.items[place].text]
                assert one.items[place].speaker == name
                assert [query.kind for query in one.queries if query.items == (place,)] == [kind, kind]
    for _, one in conversations_by_rules(dialogues, replace(RULES, facts=0)):
        assert all(item.turns for item in one.items)


def test_what_an_exclusion_quotes_is_left_out(tmp_path: Path) -> None:
    dialogues = read_corpus([write_corpus(tmp_path / "talks.csv")])
    quoted = max(planted()["preference"], key=lambda one: len(one.memory))
    everything = replace(RULES, preferences=len(planted()["preference"]))
    for exclusion, expected in ((None, True), (Exclusion.of([quoted.memory.replace("{name}", "Bo")]), False)):
        _, made = next(conversations_by_rules(dialogues, everything, exclusion))
        assert (quoted.questions[0] in {query.text for query in made.queries}) is expected
