"""JSON from strangers: what is ambiguous, endless or unfit for a database is refused, everything else is read."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hins_memory.common.strict_json import check_json, parse_json, read_bounded

LIMIT = 100_000


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b'{"a": NaN}', "NaN"),
        (b'{"a": -Infinity}', "Infinity"),
        (b'{"a": 1e999}', "inf"),
        (b'{"a": 1, "a": 2}', "twice"),
        (b'{"a": %d}' % 2**63, "64 bits"),
        (b'{"a": ' + b"9" * 5000 + b"}", "digits"),
        (rb'{"a\u0000": 1}', "NUL"),
        (rb'["\ud800"]', "surrogate"),
        (b"[" * 40 + b"]" * 40, "nested"),
        (b"[" * 50_000, "nested"),
        (b"\xff", "utf-8"),
        (b"", "Expecting value"),
        (b" " * (LIMIT + 1), "longer"),
        (b"[" + b"0," * 1200 + b"0]", "values"),
    ],
)
def test_what_no_other_reader_may_take_differently_is_refused(text, message):
    with pytest.raises(ValueError, match=message):
        parse_json(text, limit=LIMIT, values=1000 if b"0," in text else 1_000_000)


def test_what_is_not_json_is_refused_wherever_it_is():
    for value in ({1: 2}, [object()], {"a": (1,)}, b""):
        with pytest.raises(ValueError, match=r"which JSON does not know|not a string"):
            check_json(value)


PLAIN = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0")),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text("abc", max_size=3), inner, max_size=4),
    max_leaves=20,
)


@settings(max_examples=60, deadline=None)
@given(PLAIN)
def test_everything_else_is_read_as_it_was_written(value):
    assert parse_json(json.dumps(value).encode(), limit=LIMIT) == value


def test_a_file_is_read_up_to_its_bound(tmp_path):
    (tmp_path / "a").write_bytes(b"12345")
    assert read_bounded(tmp_path / "a", 5) == b"12345"
    with pytest.raises(ValueError, match="longer than 4 bytes"):
        read_bounded(tmp_path / "a", 4)
