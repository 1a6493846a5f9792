"""Scopes from ids of any type: equal names are one owner, and nobody is not an owner."""

from __future__ import annotations

import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hins_memory.types import Scope, name_of

_IDS = st.one_of(st.text(max_size=4), st.integers(), st.floats(), st.booleans(), st.binary(max_size=3), st.uuids())


@given(_IDS, _IDS)
def test_two_ids_are_one_owner_only_if_they_read_the_same(first: object, second: object) -> None:
    one, other = Scope.of(user=first), Scope.of(user=second)
    if one is not None and one == other:
        assert str(first) == str(second)
    for scope in (one, other):
        assert scope is None or scope.owner.key


def test_what_is_no_string_becomes_one() -> None:
    assert Scope(user=7).user == "7"  # type: ignore[arg-type]  # what an adapter may do
    assert Scope(user=uuid.UUID(int=1)).key == f"user={uuid.UUID(int=1)}"  # type: ignore[arg-type]
    assert Scope(user=None) == Scope()  # type: ignore[arg-type]


class Silent:
    def __str__(self) -> str:
        raise RuntimeError


def test_what_names_nobody_has_no_scope() -> None:
    for nobody in ("", "a\x00b", "\ud800", Silent()):
        assert name_of(nobody) is None
        assert Scope.of(user=nobody, agent="bot") is None
    assert Scope.of() is None
    assert Scope.of(tenant="t") is None
    with pytest.raises(ValueError, match="user of a scope"):
        Scope(user=Silent())  # type: ignore[arg-type]


def test_a_session_of_nobody_is_its_own_owner() -> None:
    assert Scope(run="r1").owner != Scope(run="r2").owner
    assert Scope(user="ann", run="r1").owner == Scope(user="ann", run="r2").owner == Scope(user="ann")


@given(st.lists(st.text(alphabet="ab%2563D&=\n", max_size=6), min_size=4, max_size=4))
def test_a_key_gives_its_scope_back(parts: list[str]) -> None:
    scope = Scope(*parts)
    assert Scope.from_key(scope.key) == scope
