"""Owners, speakers, topics, tiers."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mine_logs import COOKING, GARDEN, SAILING, memories

from hins_memory.mining.negatives.tiers import tier_masks
from hins_memory.mining.owner.owner import build_owner, speaker_of
from hins_memory.mining.owner.topics import assign_topics
from hins_memory.types import Memory, Scope, ScopeLog, Tier, Turn

SCOPE = Scope(user="u")


def owner_of(encoder, stored, turns=()):
    return build_owner(ScopeLog(SCOPE, turns=tuple(turns), memories=tuple(stored)), encoder, Counter())


def labelled(rows):
    """Memories with the framework's own topics: (conversation, topic, speaker, text)."""
    return [
        Memory(f"m{place}", SCOPE, conversation, text, speaker, topic=topic, time=float(place))
        for place, (conversation, topic, speaker, text) in enumerate(rows)
    ]


def tiers_of(owner, positive):
    masks = tier_masks(owner, positive)
    return {owner.memories[row].id: tier.value for tier in Tier for row in np.flatnonzero(masks[tier])}


def test_the_rule_for_two_people(stock_encoder):
    rows = [
        ("c1", "boats", "Ilse", "I have a dinghy."),
        ("c1", "boats", "Bram", "I have a catamaran."),
        ("c1", "boats", "Ilse", "My sail is orange."),
        ("c1", "food", "Ilse", "I baked a cake."),
        ("c1", "food", "Bram", "I burnt the soup."),
        ("c2", "boats", "Bram", "My boat leaks."),
    ]
    owner = owner_of(stock_encoder, labelled(rows))
    assert tiers_of(owner, 0) == {"m1": "hard", "m3": "medium", "m4": "medium", "m5": "easy"}


def test_the_rule_for_user_and_assistant(stock_encoder):
    rows = [
        ("c1", "boats", "user", "I have a dinghy."),
        ("c1", "boats", "assistant", "A dinghy is a small boat."),
        ("c1", "food", "assistant", "Plums go well with cinnamon."),
    ]
    assert tiers_of(owner_of(stock_encoder, labelled(rows)), 0) == {"m1": "hard", "m2": "medium"}


def test_the_rule_for_several_parties_and_one_who_is_unknown(stock_encoder):
    rows = [
        ("c1", "boats", "Ilse", "I have a dinghy."),
        ("c1", "boats", "BRAM", "I have a catamaran."),
        ("c1", "boats", "Chidi", "I have a canoe."),
        ("c1", "boats", "", "A boat was seen."),
        ("c1", "boats", "ilse", "My sail is orange."),
    ]
    owner = owner_of(stock_encoder, labelled(rows))
    assert tiers_of(owner, 0) == {"m1": "hard", "m2": "hard"}
    assert tiers_of(owner, 3) == {}


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(
        st.tuples(st.sampled_from(["c1", "c2"]), st.sampled_from(["x", "y"]), st.sampled_from(["A", "B", ""])),
        min_size=1,
        max_size=12,
    )
)
@pytest.mark.slow
def test_tiers_never_overlap_and_follow_the_rule(stock_encoder, rows):
    texts = [f"fact number {place}" for place in range(len(rows))]
    owner = owner_of(stock_encoder, labelled([(*row, text) for row, text in zip(rows, texts, strict=True)]))
    for positive in range(len(owner.texts)):
        masks = tier_masks(owner, positive)
        assert max(sum(mask.astype(int) for mask in masks.values()).tolist()) <= 1
        assert not any(mask[positive] for mask in masks.values())
        mine = owner.memories[positive]
        for row in np.flatnonzero(masks[Tier.HARD]):
            other = owner.memories[row]
            assert (other.conversation, other.topic) == (mine.conversation, mine.topic)
            assert other.speaker != mine.speaker
        assert all(owner.memories[row].conversation != mine.conversation for row in np.flatnonzero(masks[Tier.EASY]))


def test_whom_an_extracted_memory_is_about():
    names, turns = ["Ilse", "Bram"], {"t1": "Bram"}

    def about(text, speaker="", turn_ids=()):
        return speaker_of(Memory("m", SCOPE, "c", text, speaker, turn_ids), names, turns)

    assert about("Likes tea", speaker="user") == "user"
    assert about("Bram lent Ilse his boat") == "Bram"
    assert about("The boat belongs to ilse") == "Ilse"
    assert about("Likes tea", turn_ids=("t1",)) == "Bram"
    assert about("Brambles grow in the garden") == ""


def test_whom_an_extracted_memory_is_about_among_many():
    names = ["Ilse Marie Kok", "Bram Visser", "Bram Jansen", "Chidi", "小明"]

    def about(text):
        return speaker_of(Memory("m", SCOPE, "c", text), names, {})

    assert about("Ilse sails on Sundays") == "Ilse Marie Kok"
    assert about("Bram Jansen lent Ilse a boat") == "Bram Jansen"
    assert about("Bram owns one pan") == ""
    assert about("Bram told Chidi about it") == "Chidi"
    assert about("Marie is her second name") == ""


def test_extracted_memories_of_several_parties_have_tiers(stock_encoder):
    turns = [Turn(SCOPE, "c", name, "hello") for name in ("Ilse", "Bram", "Chidi", "assistant")]
    texts = ("Ilse owns a dinghy", "Bram owns a catamaran", "Chidi wants a canoe", "It rained", "Ilse sewed a sail")
    stored = [Memory(f"m{n}", SCOPE, "c", text, topic="boats", time=float(n)) for n, text in enumerate(texts)]
    owner = owner_of(stock_encoder, stored, turns)
    assert tiers_of(owner, 0) == {"m1": "hard", "m2": "hard"}


def test_the_speaker_is_inferred_from_the_conversation(stock_encoder):
    turns = [Turn(SCOPE, "c", name, "hello") for name in ("Ilse", "Bram")]
    stored = [Memory("m", SCOPE, "c", "Bram owns one pan")]
    assert owner_of(stock_encoder, stored, turns).speakers == ("bram",)


def test_repeated_and_empty_memories_take_one_row_or_none(stock_encoder):
    skipped = Counter()
    stored = [
        Memory(f"m{n}", SCOPE, "c", "Ilse  likes TEA" if n % 2 else "ilse likes tea", "Ilse") for n in range(2000)
    ]
    stored.append(Memory("empty", SCOPE, "c", " \n", "Ilse"))
    owner = build_owner(ScopeLog(SCOPE, memories=tuple(stored)), stock_encoder, skipped)
    assert len(owner.texts) == 1
    assert {owner.rows[f"m{n}"] for n in range(2000)} == {0}
    assert skipped == {"memories that repeat another": 1999, "memories without text": 1}


def test_topics_separate_two_subjects_and_join_one_that_came_up_again(stock_encoder):
    boats = [f"{speaker}: {text}" for speaker, text in SAILING]
    food = [f"{speaker}: {text}" for speaker, text in COOKING]
    garden = [f"{speaker}: {text}" for speaker, text in GARDEN]
    topics = assign_topics(stock_encoder.encode(boats + food + garden + boats[::-1]))
    again = Counter(topics[-6:].tolist()).most_common(1)[0][0]
    assert np.mean(topics[:6] == again) > 0.8
    assert np.mean(topics[6:12] == again) < 0.2


def test_a_framework_label_wins(stock_encoder):
    texts = [text for _, text in SAILING[:4]]
    topics = assign_topics(stock_encoder.encode(texts), ["a", "b", "a", ""])
    assert topics[0] == topics[2]
    assert len({topics[0], topics[1], topics[3]}) == 3


@pytest.mark.parametrize("count", [0, 1, 2, 3, 9, 40])
def test_any_number_of_memories_has_topics(count):
    vectors = np.random.default_rng(0).normal(size=(count, 16)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    topics = assign_topics(vectors)
    assert topics.shape == (count,)
    assert count == 0 or topics.min() >= 0


def test_equal_vectors_have_topics():
    vectors = np.ones((30, 8), dtype=np.float32) / np.sqrt(8).astype(np.float32)
    assert assign_topics(vectors).shape == (30,)


def test_topics_of_many_conversations_are_those_of_each_alone():
    rng = np.random.default_rng(0)
    sizes = [1, 2, 28, 7, 3, 40, 1, 90, 33, 5, 5, 60]
    conversations = np.repeat(np.arange(len(sizes)), sizes)
    vectors = (rng.normal(size=(12, 16)).repeat(len(conversations) // 12 + 1, axis=0))[: len(conversations)]
    vectors = (vectors + rng.normal(size=vectors.shape)).astype(np.float32)
    # one conversation of equal texts
    vectors[conversations == 3] = 1.0
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    labels = ["tea" if place % 11 == 0 else "" for place in range(len(conversations))]
    together = assign_topics(vectors, labels, conversations)
    topics = []
    for code in range(len(sizes)):
        rows = np.flatnonzero(conversations == code)
        alone = assign_topics(vectors[rows], [labels[row] for row in rows])
        pairs = set(zip(alone.tolist(), together[rows].tolist(), strict=True))
        assert len(pairs) == len(set(alone.tolist())) == len(set(together[rows].tolist()))
        topics += sorted(set(together[rows].tolist()))
    assert len(set(topics)) == len(topics)
    assert set(topics) == set(range(len(topics)))
    assert len(topics) > 2 * len(sizes)


def test_conversations_never_share_a_topic(stock_encoder):
    stored = memories(SCOPE, "c1", SAILING) + memories(SCOPE, "c2", SAILING) + memories(SCOPE, "c3", GARDEN)
    owner = owner_of(stock_encoder, stored)
    for code in set(owner.topics.tolist()):
        assert len(set(owner.conversations[owner.topics == code].tolist())) == 1
