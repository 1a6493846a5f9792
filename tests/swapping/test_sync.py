"""Copying an index: whatever both hold before, they are equal afterwards, and only the difference is encoded."""

import threading

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_agent import SmallIndex, Store, contents
from swap_world import text_of

from hins_memory.errors import SwapError
from hins_memory.plugins.protocols import Record
from hins_memory.swapping.sync import IndexSync

STATES = st.dictionaries(st.sampled_from("abcdefgh"), st.sampled_from([text_of(n) for n in range(6)]))


@settings(max_examples=30, deadline=None)
@given(STATES, STATES, st.integers(1, 5))
def test_sync_makes_any_index_equal_and_a_second_sync_does_nothing(small_encoder, wanted, there, batch_size):
    store = Store(":memory:")
    source, target = SmallIndex(store, "memories", ""), SmallIndex(store, "memories", "_t")
    for index, state in ((source, wanted), (target, there)):
        records = [Record(id, text, {"data": text}) for id, text in state.items()]
        index.upsert(records, small_encoder.encode([record.text for record in records]))

    def sync():
        return IndexSync(source, target, small_encoder, threading.Lock, batch_size=batch_size).run()

    report, again = sync(), sync()
    common = sum(there.get(id) == text for id, text in wanted.items())
    assert contents(target) == contents(source)
    assert (report.written, report.reused) == (len(wanted) - common, common)
    assert report.deleted == len(there.keys() - wanted.keys())
    assert (again.written, again.deleted, again.reused) == (0, 0, len(wanted))


@pytest.mark.parametrize("value", [float("nan"), None, "é🍵", ["x", {"y": 1.5}]])
def test_any_payload_is_copied_and_compared(small_encoder, value):
    store = Store(":memory:")
    source, target = SmallIndex(store, "memories", ""), SmallIndex(store, "memories", "_t")
    source.upsert([Record("a", "text", {"data": "text", "value": value})], small_encoder.encode(["text"]))
    first, second = (
        IndexSync(source, target, small_encoder, threading.Lock).run(),
        IndexSync(source, target, small_encoder, threading.Lock).run(),
    )
    assert (first.written, second.written, second.reused) == (1, 0, 1)


class RestlessIndex(SmallIndex):
    """An index whose record changes every time it is read."""

    reads = 0

    def get(self, ids):
        self.reads += 1
        return [Record(record.id, f"{record.text} {self.reads}", record.payload) for record in super().get(ids)]


@pytest.mark.slow
def test_a_record_that_changes_all_the_time_is_reported_not_looped_over(small_encoder, monkeypatch):
    monkeypatch.setattr("hins_memory.swapping.sync._WAITS", 3)
    store = Store(":memory:")
    source, target = RestlessIndex(store, "memories", ""), SmallIndex(store, "memories", "_t")
    source.upsert([Record("a", "text", {})], small_encoder.encode(["text"]))
    with pytest.raises(SwapError, match="1 records of memories_t differ"):
        IndexSync(source, target, small_encoder, threading.Lock).run()
