"""Synthetic and captured examples together."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hins_memory.data.examples import read_examples, write_examples
from hins_memory.loop.mix import mix_file, synthetic_used
from hins_memory.types import SYNTHETIC_TENANT, Negative, Positive, Scope, Tier, TieredExample


def example(number: int, synthetic: bool) -> TieredExample:
    scope = Scope(user="u", tenant=SYNTHETIC_TENANT if synthetic else "")
    positive = Positive(f"q{number}", f"m{number}", "text", "synthesis" if synthetic else "answer", 1.0)
    return TieredExample(scope, "c", positive, (Negative("n", "other", Tier.EASY),))


def mix(folder: Path, examples: list[TieredExample], seed: int = 0) -> tuple[Any, Any]:
    write_examples(folder / "x.parquet", examples)
    manifest = mix_file(folder / "x.parquet", seed)
    assert [path.name for path in folder.iterdir()] == ["x.parquet"]
    return list(read_examples(folder / "x.parquet")), manifest


def test_all_is_used_before_there_is_traffic(tmp_path: Path) -> None:
    examples = [example(number, True) for number in range(20)]
    kept, manifest = mix(tmp_path, examples)
    assert kept == examples
    assert manifest["synthetic_share"] == 1.0
    assert mix(tmp_path, [])[1]["synthetic_share"] == 0.0


def test_half_is_left_at_half_and_order_and_captured_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hins_memory.loop.mix._HALF", 100)
    examples = [example(number, number % 3 != 0) for number in range(300)]
    kept, manifest = mix(tmp_path, examples, seed=3)
    assert manifest == {
        **{"captured": 100, "synthetic": 100, "synthetic_available": 200, "synthetic_share": 0.5},
        "half": 100,
    }
    assert [one for one in examples if one in kept] == kept
    assert sum(not one.scope.synthetic for one in kept) == 100
    assert kept == mix(tmp_path, examples, seed=3)[0]
    assert kept != mix(tmp_path, examples, seed=4)[0]


@given(st.integers(0, 10_000), st.integers(0, 100_000))
def test_the_share_falls_with_traffic_and_never_exceeds_what_is_there(synthetic: int, captured: int) -> None:
    assert 0 <= synthetic_used(synthetic, captured) <= synthetic
    assert synthetic_used(synthetic, captured + 1) <= synthetic_used(synthetic, captured)
