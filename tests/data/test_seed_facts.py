"""Packaged facts: their form, where they are added, and that none of what is scored is among them."""

import json
import re
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from synthesis_corpus import write_corpus

from hins_memory.data.seed_facts import Kind, SeedFacts, seed_facts
from hins_memory.synthesis import Exclusion, RuleSettings, conversations_by_rules, read_corpus

SCORED = Path(__file__).parents[2] / "benchmarks" / "data" / "preferences.jsonl"
RULES = RuleSettings(facts=1, preferences=5, events=3, threads=2, changes=0, rivals=0, assistants=0)
PACKAGED = [one for kind in ("preference", "event", "thread") for one in seed_facts()[kind]]
NAMES = ("Ana", "Bo")


@pytest.fixture(autouse=True)
def short_conversations(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hins_memory.synthesis.rules.rules.SESSIONS", 2)


def words(text: str) -> list[str]:
    return re.findall(r"\w+", text.lower())


def runs(text: str) -> set[tuple[str, ...]]:
    found = words(re.sub(r"\{\d\}", "", text))
    return {tuple(found[at : at + 5]) for at in range(len(found) - 4)}


@pytest.mark.parametrize(("kind", "least"), [("preference", 400), ("event", 400), ("thread", 200)])
def test_the_packaged_ones_can_be_given_any_names(kind: Kind, least: int) -> None:
    found = seed_facts()[kind]
    assert len(found) >= least
    facts = [fact for one in found for fact in one.facts]
    assert len(set(facts)) == len(facts)
    # The same question about two topics would have answers that it does not know of.
    asked = [re.sub(r"\{\d\}", "", text) for one in found for text, _ in one.questions]
    assert len(set(asked)) == len(asked)
    for one in found:
        places = {text: set(re.findall(r"\{(.*?)\}", text)) for text in one.texts}
        assert set().union(*places.values()) == ({"0", "1"} if kind == "thread" else {"0"})
        assert all(places[fact] for fact in one.facts)
        unnamed = [text for text, _ in one.questions if not places[text]]
        assert len(unnamed) == (kind == "preference")
        assert all(re.search(r"\b(I|me|my|mine|we|us|our)\b", text) for text in unnamed)
        assert all(answers and set(answers) <= set(range(len(one.facts))) for _, answers in one.questions)


def test_a_fact_is_about_the_one_whom_it_names_first() -> None:
    known = SeedFacts("thread", ("{1} told {0} of a flood.", "{0} swims."), (("Whom did {1} tell?", (0,)),))
    assert known.facts_about(NAMES) == [("Bo", "Bo told Ana of a flood."), ("Ana", "Ana swims.")]
    assert known.questions_about(NAMES) == [("Whom did Bo tell?", (0,))]


def test_nothing_that_is_scored_is_among_them() -> None:
    rows = [json.loads(line) for line in SCORED.read_text(encoding="utf-8").splitlines()]
    scored = [text for row in rows for text in (*row["memories"], *(question for question, _ in row["questions"]))]
    known = set().union(*(runs(text) for text in scored))
    whole = {" ".join(words(text)) for text in scored}
    for one in PACKAGED:
        told = one.facts if one.kind == "thread" else one.facts[:1]
        asked = [text for text, _ in one.questions]
        assert not any(runs(text) & known for text in (*told, *asked)), one
        assert not whole.intersection(" ".join(words(text)) for text in asked)


def test_they_are_added_to_facts(tmp_path: Path) -> None:
    dialogues = read_corpus([write_corpus(tmp_path / "talks.csv")])
    kind_of = {fact: one.kind for one in PACKAGED for fact in one.facts}
    for preferences, events, threads in ((0, 0, 0), (5, 0, 0), (0, 3, 0), (0, 0, 2), (5, 3, 2)):
        rules = replace(RULES, preferences=preferences, events=events, threads=threads)
        for _, one in conversations_by_rules(dialogues, rules):
            known = {
                fact.format(*names): kind
                for fact, kind in kind_of.items()
                for names in (one.speakers, one.speakers[::-1])
            }
            stored = Counter(known[item.text] for item in one.items if item.text in known)
            assert (stored["preference"], stored["event"]) == (2 * preferences, 2 * events)
            assert 7 * threads <= stored["thread"] <= 10 * threads
            assert all(item.speaker in item.text for item in one.items if item.text in known)
    for _, one in conversations_by_rules(dialogues, replace(RULES, facts=0, told=0)):
        assert all(item.turns for item in one.items)


@pytest.mark.slow
def test_what_is_asked_leads_to_the_facts_that_answer_it(tmp_path: Path) -> None:
    dialogues = read_corpus([write_corpus(tmp_path / "talks.csv")])
    several = 0
    for _, one in conversations_by_rules(dialogues, RULES):
        answers = {
            text: {known.facts[place].format(*names) for place in places}
            for known in PACKAGED
            for names in (one.speakers, one.speakers[::-1])
            for text, places in known.questions_about(names)
        }
        asked = [query for query in one.queries if query.kind in ("preference", "event", "thread")]
        about_seed_facts = [query for query in asked if query.text in answers]
        assert len(about_seed_facts) >= 2 * RULES.preferences + 2 * RULES.events + 10 * RULES.threads
        for query in about_seed_facts:
            found = [one.items[place].text for place in query.items]
            assert {*found} == answers[query.text] or query.kind == "preference"
            several += len(found) > 1
            # told in the order in which they are written
            assert [one.items[place].session for place in query.items] == sorted(
                one.items[place].session for place in query.items
            )
    assert several


def test_what_an_exclusion_quotes_is_left_out(tmp_path: Path) -> None:
    dialogues = read_corpus([write_corpus(tmp_path / "talks.csv")])
    quoted = max(seed_facts()["preference"], key=lambda one: len(one.facts[0]))
    everything = replace(RULES, preferences=len(seed_facts()["preference"]))
    for exclusion, expected in ((None, True), (Exclusion.of([quoted.facts[0].format("Bo")]), False)):
        _, made = next(conversations_by_rules(dialogues, everything, exclusion))
        assert (quoted.questions[0][0] in {query.text for query in made.queries}) is expected
