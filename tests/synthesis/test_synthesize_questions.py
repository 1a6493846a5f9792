"""Statements, facts and questions by rules."""

import re
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hins_memory.synthesis.rules.clauses import Person, fact
from hins_memory.synthesis.rules.questions import questions
from hins_memory.synthesis.rules.statements import statements
from hins_memory.synthesis.rules.verbs import base_form, ing_form, is_past, third_person

ANA = Person("Ana", "she", "her", "her")


def asked(text: str) -> set[str]:
    """Every question that some seed gives."""
    return {
        question.text
        for statement in statements(text)
        for seed in range(40)
        for question in questions(statement, ANA, Random(seed))
    }


@pytest.mark.parametrize(
    ("said", "stored"),
    [
        ("I have two dogs.", "Ana has two dogs."),
        ("I'm a nurse.", "Ana is a nurse."),
        ("I went to Peru with my husband.", "Ana went to Peru with her husband."),
        ("I've been collecting stamps for ten years.", "Ana has been collecting stamps for ten years."),
        ("My favorite food is sushi.", "Ana's favorite food is sushi."),
        ("My mother works at a bank.", "Ana's mother works at a bank."),
        ("I'm going to run a marathon.", "Ana plans to run a marathon."),
        ("I used to play the cello.", "Ana used to play the cello."),
        ("I will watch a film with my kids.", "Ana plans to watch a film with her kids."),
    ],
)
def test_a_statement_becomes_a_fact_in_the_third_person(said: str, stored: str) -> None:
    assert [fact(one, ANA) for one in statements(said)] == [stored]


@pytest.mark.parametrize(
    ("said", "question"),
    [
        ("I have two dogs.", "How many dogs does Ana have?"),
        ("I have two dogs.", "What pet does Ana have?"),
        ("I'm a nurse.", "What is Ana's job?"),
        ("I'm from Chile.", "Where is Ana from?"),
        ("I'm 40 years old.", "How old is Ana?"),
        ("I went to Peru with my husband.", "When did Ana go to Peru with her husband?"),
        ("I play the cello in an orchestra.", "Where does Ana play the cello?"),
        ("I bought a truck because the old van broke.", "Why did Ana buy a truck?"),
        ("I've been collecting stamps for ten years.", "How long has Ana been collecting stamps?"),
        ("My favorite food is sushi.", "What is Ana's favorite food?"),
        ("I love pottery.", "Would Ana enjoy pottery?"),
        ("I hate broccoli.", "What does Ana dislike?"),
        ("I have a dog named Rex.", "What is the name of Ana's dog?"),
    ],
)
def test_a_statement_is_asked_for_in_many_ways(said: str, question: str) -> None:
    assert question in asked(said)


@pytest.mark.parametrize(
    "said",
    [
        "",
        "Hello!",
        "What do you do?",
        "I don't have a car.",
        "I think so too.",
        "I'm so glad to hear that.",
        "That's it.",
    ],
)
def test_small_talk_states_nothing(said: str) -> None:
    assert list(statements(said)) == []


def test_questions_name_the_speaker_or_ask_for_oneself() -> None:
    found = asked("I like to paint landscapes with my sister. My brother lives in Rome. I sold my house.")
    own = {question for question in found if re.search(r"\b(I|me)\b", question)}
    assert any("would I" in question for question in own)
    for question in found - own:
        assert "Ana" in question
        assert " my " not in f" {question.lower()} "


@given(st.text(max_size=400))
def test_any_text_is_read_without_an_error(text: str) -> None:
    for statement in statements(text):
        assert fact(statement, ANA)
        questions(statement, ANA, Random(0))


def test_a_very_long_turn_is_read_in_time() -> None:
    text = "I like tea, " * 8000
    assert len(list(statements(text))) <= 1


def test_verb_forms() -> None:
    assert [third_person(verb) for verb in ("have", "watch", "study", "play", "go")] == [
        *("has", "watches", "studies", "plays", "goes")
    ]
    assert [ing_form(verb) for verb in ("run", "write", "lie", "see", "be")] == [
        *("running", "writing", "lying", "seeing", "being")
    ]
    assert [base_form(verb) for verb in ("went", "bought", "hiking", "taken", "need")] == [
        *("go", "buy", "hike", "take", "need")
    ]
    assert is_past("went")
    assert is_past("worked")
    assert not is_past("need")
    assert not is_past("like")
