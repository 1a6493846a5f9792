"""The lock between the operations on an object and a flip."""

from __future__ import annotations

import threading
import time

from hins_memory.sdk.rw_lock import FlipLock


def test_a_flip_waits_for_operations_and_operations_hardly_for_a_flip() -> None:
    lock = FlipLock()
    events: list[str] = []
    running = threading.Event()

    def operate() -> None:
        with lock.shared():
            running.set()
            time.sleep(0.2)
            events.append("operation")

    def flip() -> None:
        with lock.exclusive():
            events.append("flip")

    threads = [threading.Thread(target=target) for target in (operate, flip)]
    threads[0].start()
    running.wait()
    threads[1].start()
    time.sleep(0.05)
    started = time.perf_counter()
    with lock.shared():
        waited = time.perf_counter() - started
    for thread in threads:
        thread.join()
    assert events == ["operation", "flip"]
    assert waited < 0.1
