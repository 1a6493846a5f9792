"""Words, rarity and dates."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hins_memory.mining.owner.text import EXAMPLE_CHARS, Lexicon, clean, normalized, words
from hins_memory.mining.positives.dates import closeness, dates_in


def test_inflected_forms_of_a_word_meet():
    assert words("She was running") == words("he runs")
    assert words("The parties") == words("a party")
    assert words("painted") == words("painting") == words("paints")


def test_function_words_are_dropped_and_numbers_kept():
    assert words("What is the 42 of it?") == ["42"]


def test_chinese_is_split_into_characters_so_that_overlap_means_something():
    assert set(words("我喜欢喝茶")) & set(words("他也喝茶")) == {"喝", "茶"}


def test_a_rare_word_outweighs_a_common_one():
    lexicon = Lexicon([normalized(text) for text in ("the boat", "the boat sinks", "a boat called Möwe", "a boat")])
    assert lexicon.rarity("möw") > lexicon.rarity("boat")
    coverage = lexicon.coverage(words("boat Möwe"))
    assert coverage.argmax() == 2
    assert coverage[2] == pytest.approx(1.0)
    assert 0 < coverage[0] < 0.5


def test_an_empty_lexicon_and_an_empty_wish_give_nothing():
    assert Lexicon([]).coverage(["boat"]).shape == (0,)
    assert np.all(Lexicon(["boat"]).coverage([]) == 0)


@given(st.lists(st.text(st.sampled_from("ab '’喝茶ng"), max_size=30), max_size=8), st.integers(0, 20))
def test_a_word_is_as_rare_counted_alone_as_in_an_index(texts, others):
    keys = [normalized(text) for text in texts]
    stems = sorted({stem for key in keys for stem in words(key)} | {"other"})
    indexed = Lexicon(keys)
    indexed.overlap(stems)
    counted = Lexicon(keys)
    # Some are counted one by one before the index is made, the rest after it.
    first = [counted.rarity(f"none{number}") for number in range(others)]
    assert [counted.rarity(stem) for stem in stems] == [indexed.rarity(stem) for stem in stems]
    assert first == [indexed.rarity("none") for _ in range(others)]


@given(st.text(max_size=200))
def test_any_text_is_normalized_once_and_for_all(text):
    assert normalized(normalized(text)) == normalized(text)
    assert all(word and word == word.lower() for word in words(text) if word.isascii())


@given(st.text(st.characters(codec=None, exclude_categories=()), max_size=50), st.integers(1, 1000))
def test_clean_text_is_bounded_and_encodable(text, times):
    assert len(clean(text * times)) <= EXAMPLE_CHARS
    clean(text * times).encode("utf-8")


@pytest.mark.parametrize("text", ["7 May 2023", "May 7, 2023", "on the 7th of May, 2023", "2023-05-07"])
def test_a_day_is_read_in_each_spelling(text):
    assert dates_in(text) == ((738647, 0),)


def test_a_month_counts_only_where_no_day_is_named():
    assert [half for _, half in dates_in("June 2023")] == [15]
    assert [half for _, half in dates_in("7 May 2023, not June 2023")] == [0]


@pytest.mark.parametrize("text", ["", "2022", "31 February 2023", "may be 2023rd", "99 May 2023"])
def test_what_is_no_date_is_left_out(text):
    assert all(half == 15 for _, half in dates_in(text))


def test_closeness_is_one_on_the_day_and_falls():
    day = dates_in("7 May 2023")
    noon = 1683460800.0
    assert closeness(day, noon) == 1.0
    assert closeness(day, noon) > closeness(day, noon + 2 * 86400) > closeness(day, noon + 9 * 86400) > 0
    assert closeness((), noon) == 0.0
    assert closeness(day, 1e20) == 0.0
