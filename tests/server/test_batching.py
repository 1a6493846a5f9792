"""Requests take turns in batches, a full queue refuses, and what was cancelled is not computed."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import wait

import numpy as np
import pytest

from hins_memory.server.batching import Batcher, QueueClosed, QueueFull
from hins_memory.types import Role


class Slow:
    """Embeds a text as its length, when it is let go; refuses the text "poison"."""

    version = space = "slow"
    dim = 1

    def __init__(self) -> None:
        self.go = threading.Event()
        self.begun = threading.Event()
        self.batches: list[list[str]] = []

    def encode(self, texts: Sequence[str], *, role: Role = "document", batch_size: int = 32) -> np.ndarray:
        self.begun.set()
        assert self.go.wait(60)
        self.batches.append(list(texts))
        if "poison" in texts:
            raise ValueError("poison")
        return np.array([[float("nan") if text == "nan" else len(text)] for text in texts], dtype=np.float32)

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        return [1] * len(texts)


@pytest.fixture
def slow() -> Slow:
    return Slow()


@pytest.fixture
def batcher(slow: Slow) -> Iterator[Batcher]:
    made = Batcher("slow", lambda: slow, max_waiting=100, max_batch=32, on_batch=lambda count: None)
    # The first text occupies the thread until the test lets it go.
    made.submit(["first"], "document")
    assert slow.begun.wait(60)
    yield made
    slow.go.set()
    made.close()


def test_a_large_request_does_not_hold_up_small_ones(slow: Slow, batcher: Batcher):
    large = batcher.submit(["large"] * 90, "document")
    small = [batcher.submit([f"small {one}"], role) for one, role in enumerate(("document", "query"))]
    slow.go.set()
    wait([large, *small], 60)
    # Both are in the first batch after the one that was being computed, 16 texts of the large one before them.
    assert slow.batches[1] == ["large"] * 16 + ["small 0"] + ["large"] * 14
    assert slow.batches[2] == ["small 1"]
    assert large.result().vectors.shape == (90, 1)
    assert large.result().tokens == 90
    assert [one.result().vectors.tolist() for one in small] == [[[7.0]], [[7.0]]]


def test_a_full_queue_refuses_and_cancelled_texts_leave_it(slow: Slow, batcher: Batcher):
    kept, given_up = batcher.submit(["kept"] * 50, "document"), batcher.submit(["given up"] * 50, "document")
    with pytest.raises(QueueFull) as full:
        batcher.submit(["late"], "document")
    assert 1 <= full.value.seconds <= 60
    assert given_up.cancel()
    assert batcher.waiting == 50
    late = batcher.submit(["late"], "document")
    slow.go.set()
    wait([kept, late], 60)
    assert batcher.waiting == 0
    assert not any("given up" in batch for batch in slow.batches)


def test_what_cannot_be_embedded_fails_its_own_request_alone(slow: Slow, batcher: Batcher):
    requests = {text: batcher.submit([text], "document") for text in ("fine", "poison", "nan")}
    slow.go.set()
    wait(requests.values(), 60)
    assert requests["fine"].result().vectors.tolist() == [[4.0]]
    assert "poison" in str(requests["poison"].exception())
    assert "not finite" in str(requests["nan"].exception())


def test_closing_answers_what_waits_and_takes_no_more(slow: Slow, batcher: Batcher):
    waiting = batcher.submit(["waits"], "document")
    closing = threading.Thread(target=batcher.close)
    closing.start()
    slow.go.set()
    closing.join(60)
    assert waiting.result().tokens == 1
    with pytest.raises(QueueClosed):
        batcher.submit(["late"], "document")
