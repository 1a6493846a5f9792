"""Packaged facts in the person's own words, in all forms, with rivals, and facts that replace one another."""

from random import Random

import pytest

from hins_memory.data.seed_facts import SeedFacts, seed_facts
from hins_memory.synthesis.rules.changes import changes
from hins_memory.synthesis.rules.own_words import as_said, asked_by
from hins_memory.synthesis.rules.placing import Form, placed, rival

NAMES = ("Ana", "Bo")
SEED = SeedFacts(
    "preference",
    ("{0} hikes alone and enjoys not having to talk.", "{0} gave a talk about {0}'s hike."),
    (("Is the walking group a match for me?", (0,)), ("Does {0} welcome company on {0}'s trail?", (0,))),
)


def say(text: str, other: str) -> str:
    return f"Hey {other}! {text}"


@pytest.mark.parametrize(
    ("fact", "expected"),
    [
        ("{0} never wears a watch and dislikes rings.", "I never wear a watch and dislike rings."),
        ("{0} is tired, has a cold and doesn't sing.", "I am tired, have a cold and don't sing."),
        ("{0}'s dog ate {0}'s shoe.", "My dog ate my shoe."),
        ("{0} cannot drive.", "I cannot drive."),
        ("{0} lends out tents and plants trees.", "I lend out tents and plants trees."),
        ("{0} met a woman who knew {0}.", None),
        ("Thunderstorms thrill {0}.", None),
        ("{0} told {1} of a flood.", None),
    ],
)
def test_a_fact_in_the_first_person(fact: str, expected: str | None) -> None:
    assert as_said(fact) == expected


@pytest.mark.parametrize(
    ("question", "expected"),
    [
        ("What does {0} take in {0}'s tea?", "What do I take in my tea?"),
        ("Is {0} a widow or widower?", "Am I a widow or widower?"),
        ("What happened to {0}?", "What happened to me?"),
        ("What calms {0} down?", None),
    ],
)
def test_a_question_in_the_first_person(question: str, expected: str | None) -> None:
    assert asked_by(question) == expected


def test_most_packaged_facts_and_questions_have_such_a_form() -> None:
    known = [one for kind in ("preference", "event") for one in seed_facts()[kind]]
    assert sum(as_said(one.facts[0]) is not None for one in known) > 0.8 * len(known)
    said = [text for one in known for fact in one.facts if (text := as_said(fact))]
    assert not any("{" in text for text in said)


@pytest.mark.parametrize(
    ("form", "told", "asked"),
    [
        ("facts", "Ana hikes alone and enjoys not having to talk.", "Does Ana welcome company on Ana's trail?"),
        (
            "turns",
            "Ana: Hey Bo! I hike alone and enjoy not having to talk.",
            "Does Ana welcome company on Ana's trail?",
        ),
        ("assistant", "User: I hike alone and enjoy not having to talk.", "Do I welcome company on my trail?"),
    ],
)
def test_facts_are_told_and_asked_for_in_each_form(form: Form, told: str, asked: str) -> None:
    seed = SeedFacts(SEED.kind, SEED.facts[:1], SEED.questions)
    found = placed(seed, NAMES, 3, form, say, Random(2))
    assert found is not None
    assert found.told[0][1].split("\n")[0] == told
    assert [text for text, _ in found.asked] == ["Is the walking group a match for me?", asked]


def test_a_rival_is_about_a_relative_and_asked_for_as_such() -> None:
    for form in ("facts", "turns", "assistant"):
        found = rival(SEED, NAMES, 3, form, say, Random(0))
        ((text, answers),) = found.asked
        whose = text.removeprefix("Does ").split(" welcome")[0]
        assert whose.startswith("my " if form == "assistant" else "Ana's ")
        assert whose.split()[-1] in found.told[0][1]
        assert "hikes alone and enjoys" in found.told[0][1]
        assert answers == (0,)


def test_the_last_of_several_facts_holds_and_the_others_held_before() -> None:
    rng = Random(0)
    counts = set()
    for change in changes() * 3:
        seed = change.seed(rng)
        states = len(seed.facts) - 1
        counts.add(states)
        assert "{1}" in seed.facts[-1]
        assert all("{0}" in fact and "{v}" not in fact and "{old}" not in fact for fact in seed.facts[:-1])
        wordings = (change.now, change.before, change.began)
        assert all(text in known for (text, _), known in zip(seed.questions, wordings, strict=False))
        assert [answers for _, answers in seed.questions] == [(states - 1,), (states - 2,), (0,)][:states]
        days = [fact.split("]")[0] for fact in seed.facts if fact.startswith("[")]
        assert days == sorted(days)
        assert len(days) in (0, len(seed.facts))
    assert counts == {2, 3}
