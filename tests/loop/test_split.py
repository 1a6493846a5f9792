"""What is held out: the latest conversations, whole, and nothing of them is left to train on."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hins_memory.loop.split import (
    HeldOutSets,
    LabelledConversation,
    conversation_digest,
    labelled,
    latest,
    newest,
    query_digest,
    trained_digests,
    without,
)
from hins_memory.mining import MineSettings
from hins_memory.mining.storage.evidence import EvidenceStore
from hins_memory.types import SYNTHETIC_TENANT, Answer, Memory, RankedMemory, Retrieval, Scope, ScopeLog, Turn

FACTS = {
    "c1": ["Ann: I play the cello in a quartet.", "Bo: My bakery opens at five.", "Ann: I flew to Quito in May."],
    "c2": ["Cid: My dog Rufus chews shoes.", "Dee: I teach pottery on Mondays.", "Cid: I repaired the old tractor."],
}
ASKED = {
    "c1": [("Which instrument does Ann play?", "the cello in a quartet", 0)],
    "c2": [("What does Dee teach?", "pottery on Mondays", 1), ("What did Cid repair?", "the old tractor", 2)],
}


def make_log() -> ScopeLog:
    scope = Scope(user="u")
    memories, turns, retrievals, answers = [], [], [], []
    for number, (conversation, texts) in enumerate(FACTS.items()):
        rows = []
        for place, text in enumerate(texts):
            time = 100.0 * number + place
            speaker = text.split(":")[0]
            rows.append(Memory(f"{conversation}-{place}", scope, conversation, text, speaker, time=time))
            turns.append(Turn(scope, conversation, speaker, text, time))
        memories += rows
        for query, answer, _ in ASKED[conversation]:
            results = tuple(RankedMemory(row.id, row.text, 0.5) for row in rows)
            retrieval = Retrieval(scope, query, results, time=1000.0)
            retrievals.append(retrieval)
            answers.append(Answer(retrieval.id, answer, 1001.0))
    return ScopeLog(scope, tuple(turns), tuple(memories), tuple(retrievals), tuple(answers))


LOG = make_log()


def test_the_newest_are_taken_for_a_weight_unless_that_is_too_much_of_what_is_trained_on():
    def made(count: int, queries: int) -> list[LabelledConversation]:
        return [LabelledConversation(f"o{n % 3}", f"{n:016}", float(n), frozenset(), queries) for n in range(count)]

    assert [one.time for one in newest(made(100, 4), 0.15, (20, 200), 0.25)] == [float(n) for n in range(99, 84, -1)]
    assert len(newest(made(20, 4), 0.15, (20, 200), 0.25)) == 5
    assert len(newest(made(1000, 4), 0.15, (20, 200), 0.25)) == 50
    # Of 76 queries 20 would be too many, and 19 too few.
    for too_few in (made(19, 4), made(4, 19), []):
        assert newest(too_few, 0.15, (20, 200), 0.25) == []


@pytest.fixture
def store(stock_encoder, tmp_path) -> Iterator[EvidenceStore]:
    with EvidenceStore(tmp_path / "evidence", stock_encoder, MineSettings()) as store:
        store.add(LOG)
        yield store


@pytest.mark.slow
def test_labelled_conversations_hold_their_own_queries_over_all_of_the_owners_memories(store):
    found = {one.digest: one for one in labelled(store)}
    assert found.keys() == {conversation_digest(LOG.scope, name) for name in FACTS}
    sets = HeldOutSets(store, list(found.values()))
    assert len(sets) == 2
    for number, one in enumerate(found.values()):
        name = next(name for name in FACTS if conversation_digest(LOG.scope, name) == one.digest)
        assert {query.text: query.relevant for query in sets[number].queries} == {
            query: frozenset([f"{name}-{place}"]) for query, _, place in ASKED[name]
        }
        assert len(sets[number].documents) == 6
        assert len(one.retrievals) == one.queries == len(ASKED[name])
    assert sets[0].documents is sets[1].documents
    assert sets[0:2] == [sets[0], sets[1]]
    c1, c2 = (found[conversation_digest(LOG.scope, name)] for name in ("c1", "c2"))
    assert c2.time > c1.time


def test_nothing_of_a_held_out_conversation_is_left(store):
    held = latest(labelled(store), 0.1, 1)
    assert [one.digest for one in held] == [conversation_digest(LOG.scope, "c2")]
    (evidence,) = store
    with store.vector_folder().owner() as folder:
        rest = without(evidence, held, folder)
    assert rest.conversations.keys() == {"c1"}
    assert [one.query for one in rest.queries] == [query for query, _, _ in ASKED["c1"]]
    assert [one.text for one in rest.owner.memories] == FACTS["c1"]
    assert rest.owner.vectors.shape == (3, 384)
    assert {row: one.text for query in rest.queries for row, one in query.positives.items()} == {0: FACTS["c1"][0]}
    assert rest.content != evidence.content


def test_synthetic_conversations_are_not_held_out(stock_encoder, tmp_path):
    made_up = replace(LOG, scope=Scope(user="u", tenant=SYNTHETIC_TENANT))
    with EvidenceStore(tmp_path / "evidence", stock_encoder, MineSettings()) as store:
        store.add(made_up)
        assert labelled(store) == []


def test_the_digest_names_nobody_and_tells_owners_apart():
    one = conversation_digest(Scope(user="ann@example.org"), "talk")
    assert "ann" not in one
    assert one != conversation_digest(Scope(user="bo"), "talk")


def conversation(number: int, time: float, queries: int, owner: str = "") -> LabelledConversation:
    return LabelledConversation(owner, f"{number:016x}", time, frozenset(), queries)


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.tuples(st.floats(0, 1e9), st.integers(1, 30)), min_size=1, max_size=12),
    st.floats(0.05, 0.95),
    st.integers(1, 60),
)
def test_latest_takes_the_latest_as_few_as_suffice_and_leaves_one(rows, share, minimum):
    conversations = [conversation(number, *row) for number, row in enumerate(rows)]
    held = latest(conversations, share, minimum)
    assert len(held) < len(conversations)
    rest = [one for one in conversations if one not in held]
    if held:
        assert min(one.time for one in held) >= max(one.time for one in rest)
    counts = [one.queries for one in held]
    wanted = max(share * sum(queries for _, queries in rows), minimum)
    assert sum(counts) >= wanted or len(rest) == 1
    assert sum(counts[:-1]) < wanted


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.tuples(st.floats(0, 1e9), st.integers(1, 30), st.sampled_from("abc")), min_size=2, max_size=12),
    st.floats(0.05, 0.95),
    st.integers(1, 60),
)
def test_every_owner_with_several_conversations_gives_its_latest_and_keeps_some(rows, share, minimum):
    conversations = [conversation(number, *row) for number, row in enumerate(rows)]
    held = latest(conversations, share, minimum)
    rest = [one for one in conversations if one not in held]
    assert 0 < len(held) < len(conversations)
    assert len({one.digest for one in held}) == len(held)
    assert held == latest(conversations[::-1], share, minimum)
    for owner in "abc":
        own = [one for one in conversations if one.owner == owner]
        given = [one for one in own if one in held]
        if len(own) > 1:
            assert given
            assert min(one.time for one in given) >= max([one.time for one in own if one in rest], default=0)
            enough = sum(one.queries for one in given) >= share * sum(one.queries for one in own)
            assert enough or len(given) == len(own) - 1
    wanted = max(share * sum(row[1] for row in rows), minimum)
    assert sum(one.queries for one in held) >= wanted or len(rest) == 1


def test_an_owner_that_came_first_is_judged_too():
    old = [conversation(number, number, 10, "old") for number in range(4)]
    new = [conversation(10 + number, 100 + number, 10, "new") for number in range(8)]
    held = latest([*old, *new], 0.25, 20)
    assert [(one.owner, one.time) for one in held] == [("new", 107), ("new", 106), ("old", 3)]


def test_of_one_scope_the_latest_queries_are_held_out_and_every_memory_stays(store):
    units = labelled(store, "query")
    held = latest(units, 0.2, 1)
    last = ASKED["c2"][-1][0]
    assert [one.digest for one in held] == [query_digest(Scope(user="u"), last)]
    (evidence,) = store
    with store.vector_folder().owner() as folder:
        left = without(evidence, held, folder, "query")
    assert [query.query for query in left.queries] == [ASKED["c1"][0][0], ASKED["c2"][0][0]]
    assert left.owner.texts == evidence.owner.texts
    assert left.content != evidence.content
    assert not set(trained_digests(left, "query")) & {one.digest for one in held}
    (one,) = HeldOutSets(store, held, "query")
    assert [query.text for query in one.queries] == [last]
    assert len(one.documents) == 6
