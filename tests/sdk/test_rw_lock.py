"""The lock between the operations on an object and a flip."""

from __future__ import annotations

import threading

import pytest
from waiting import until

from hins_memory.sdk.rw_lock import FlipLock


def test_a_flip_waits_for_operations_and_operations_hardly_for_a_flip(monkeypatch: pytest.MonkeyPatch) -> None:
    # However slow the machine is, its patience does not end within this test.
    monkeypatch.setattr("hins_memory.sdk.rw_lock._PATIENCE_SECONDS", 600.0)
    lock = FlipLock()
    events: list[str] = []
    running, end = threading.Event(), threading.Event()

    def operate() -> None:
        with lock.shared():
            running.set()
            assert end.wait(60)
            events.append("operation")

    def flip() -> None:
        with lock.exclusive():
            events.append("flip")

    threads = [threading.Thread(target=target) for target in (operate, flip)]
    threads[0].start()
    assert running.wait(60)
    threads[1].start()
    until(lambda: lock._changed._waiters)  # type: ignore[attr-defined]
    # It waits for the operation; another one is let through meanwhile.
    with lock.shared():
        events.append("another operation")
    end.set()
    for thread in threads:
        thread.join(60)
    assert events == ["another operation", "operation", "flip"]
