"""Texts made fit to be looked at."""

import math
import sys
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st
from nasty_texts import harmful, texts

from hins_memory.common.printable import moment, one_line, printable


@given(texts)
def test_what_is_shown_neither_acts_nor_hides(text):
    for shown in (printable(text), one_line(text)):
        assert not harmful(shown)
        shown.encode("utf-8")
        assert printable(shown) == shown
    assert len(one_line(text).splitlines()) <= 1


@pytest.mark.slow
def test_every_single_character_is_shown_or_named():
    for code in range(sys.maxunicode + 1):
        character = chr(code)
        shown = one_line(character)
        if unicodedata.category(character) in ("Cc", "Cs", "Zl", "Zp"):
            assert shown.startswith("\\"), hex(code)
        elif unicodedata.category(character)[0] in "PS" or unicodedata.category(character) in ("Lu", "Ll", "Nd", "Zs"):
            assert shown == character, hex(code)


@pytest.mark.parametrize("text", ["👨‍👩‍👧‍👦 ❤️ 1️⃣ ❤️‍🔥 🏳️‍🌈", "می‌خواهم", "क्‍ष", "漢字　かな", "a\u00a0b", "naïve"])
def test_scripts_and_emoji_stay_as_they_are(text):
    assert one_line(text) == text


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a\u200db", r"a\u200db"),
        ("a\ufe0f", r"a\ufe0f"),
        ("\x1b\n\U000e0041", r"\x1b\n\U000e0041"),
        ("\x9b\t", r"\x9b\t"),
    ],
)
def test_codes(text, shown):
    assert one_line(text) == shown


@given(st.one_of(st.floats(), st.integers(), texts, st.none(), st.lists(st.integers()), st.booleans()))
def test_a_time_of_any_kind_is_shown(time):
    assert not harmful(moment(time))
    assert "\n" not in moment(time, seconds=False)


def test_times():
    assert moment(1700000000.5) == "2023-11-14 22:13:20"
    assert moment(1700000000, seconds=False) == "2023-11-14 22:13"
    assert moment(-1.0) == "1969-12-31 23:59:59"
    assert [moment(time) for time in (1e300, -1e300, math.inf)] == ["1e+300", "-1e+300", "inf"]
    assert moment(math.nan) == "nan"
    assert moment(253402300800.0) == "2.53402e+11"
