"""The scores of answers against examples worked out by hand, for each published variant."""

from math import exp

import pytest
from hypothesis import given
from hypothesis import strategies as st

from parts.qa.scores import SCORES, abstained, score_answer, sentence_splitter

pytest.importorskip("nltk")


def one(name, prediction, gold, category=4):
    return score_answer(prediction, gold, category)[name]


@pytest.mark.parametrize(
    ("prediction", "gold", "category", "expected"),
    [
        # she adopt 2 cat dog against two cat dog: 2 in common of 5 and 3
        ("She adopted the 2 cats, and a dog", "two cats and dogs", 4, 2 * 2 / 8),
        # a multiset: both "very" count, one of them is in common
        ("very very good", "very good", 4, 2 * 2 / 5),
        # punctuation is dropped, not split at: "wellknown"
        ("well-known", "well known", 4, 0.0),
        ("7 May 2023", "May 7, 2023!", 2, 1.0),
        # parts: swimming 1, camping 1, pottery 0
        ("camping, a swim", "swimming, camping, pottery", 1, 2 / 3),
        # the same in another category is one text: camp swim against swim camp potteri
        ("camping, a swim", "swimming, camping, pottery", 4, 2 * 2 / 5),
        # the gold answer of category 3 ends at its semicolon: yes against like ye
        ("Yes", "Likely yes; she hikes", 3, 2 / 3),
        ("Yes", "Likely yes; she hikes", 4, 2 / 5),
        ("", "Likely yes", 4, 0.0),
        ("the", "a", 4, 0.0),
    ],
)
def test_official_f1(prediction, gold, category, expected):
    assert one("official_f1", prediction, gold, category) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("prediction", "gold", "expected"),
    [
        # it's on may 7 2023 against 7 may 2023
        ("It's on May 7, 2023!", "7 May 2023", 2 * 3 / 8),
        ("very very good", "very good", 1.0),
        # only . , ! ? are taken off
        ("(camping)", "camping", 0.0),
        ("Yes", "Likely yes; she hikes", 0.0),
        ("no stems: cats", "cat", 0.0),
        ("", "x", 0.0),
    ],
)
def test_mem0_f1(prediction, gold, expected):
    assert one("mem0_f1", prediction, gold, 3) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("prediction", "gold", "expected"),
    [
        # it s on may 7 2023 against 7 may 2023
        ("It's on May 7, 2023!", "7 May 2023", 2 * 3 / 9),
        ("(camping)", "camping", 1.0),
        ("well-known", "well known", 1.0),
        ("the cats", "the cat", 0.5),
        ("船 🚲", "船", 1.0),
        ("!?", "x", 0.0),
    ],
)
def test_memoryos_f1(prediction, gold, expected):
    assert one("memoryos_f1", prediction, gold) == pytest.approx(expected)


def test_mem0_bleu1_is_nltks_over_word_tokenize():
    # may 2023 against 7 may , 2023: all found, half as long
    assert one("mem0_bleu1", "May 2023", "7 May, 2023") == pytest.approx(exp(1 - 4 / 2))
    # she ca n't go . : three of five, of a gold answer as long
    assert one("mem0_bleu1", "She can't go.", "He can't go!") == pytest.approx(3 / 5)
    # each token counts as often as the gold answer has it
    assert one("mem0_bleu1", "cat cat cat", "cat") == pytest.approx(1 / 3)
    assert one("mem0_bleu1", "dog", "cat") == 0.0
    assert one("mem0_bleu1", "", "cat") == 0.0


def test_word_tokenize_takes_the_period_off_every_sentence():
    # go . stop . against go . : two of four
    assert one("mem0_bleu1", "Go. Stop.", "Go.") == pytest.approx(2 / 4)
    # an abbreviation keeps its period
    assert one("mem0_bleu1", "mr. bean", "mr. bean is here") == pytest.approx(exp(1 - 4 / 2))
    assert sentence_splitter() in ("punkt", "abbreviations")


def test_bleu1_of_the_other_variants_is_over_their_own_tokens():
    # 7 may 2023 in both: two of two, a third shorter
    assert one("official_bleu1", "May 2023", "the 7 May, 2023") == pytest.approx(exp(1 - 3 / 2))
    assert one("memoryos_bleu1", "May 2023", "7 May, 2023") == pytest.approx(exp(1 - 3 / 2))
    # with "the", the gold answer is twice as long; the official tokens leave it out
    assert one("memoryos_bleu1", "May 2023", "the 7 May, 2023") == pytest.approx(exp(1 - 4 / 2))


def test_abstention_is_by_the_official_words():
    assert abstained("No information available.")
    assert abstained("That was not mentioned in the conversation")
    assert not abstained("I don't know")


@given(prediction=st.text(max_size=60), gold=st.text(max_size=60), category=st.sampled_from([1, 2, 3, 4]))
def test_every_score_is_between_0_and_1(prediction, gold, category):
    scores = score_answer(prediction, gold, category)
    assert set(scores) == set(SCORES)
    assert all(0 <= value <= 1 for value in scores.values())


@given(words=st.lists(st.sampled_from(["sail", "boat", "7", "may"]), min_size=1, max_size=6, unique=True))
def test_the_gold_answer_itself_scores_1(words):
    text = " ".join(words)
    assert score_answer(text, text, 4) == pytest.approx(dict.fromkeys(SCORES, 1.0))
