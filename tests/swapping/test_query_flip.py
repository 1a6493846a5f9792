"""The swap to a version that embeds documents as the one before: only queries change, and nothing is written."""

import numpy as np
import pytest
import torch
from small_agent import SmallAgent, contents
from swap_world import fill

from hins_memory.encoders.encoder import Encoder
from hins_memory.errors import SwapError
from hins_memory.registry.registry import Registry
from hins_memory.swapping import plan_swap, retire_agent, rollback_agent, swap_agent

pytestmark = pytest.mark.slow


@pytest.fixture
def agent(tmp_path, settings, tiny_version, query_version):
    """A small agent that serves with the tiny version and holds 20 memories."""
    registry = Registry(settings)
    agent = SmallAgent(tmp_path / "store.db", registry, lambda name: Encoder.load(_path(registry, name)))
    fill(agent, 20)
    swap_agent(agent, tiny_version.id, Encoder.load(tiny_version.path), registry)
    retire_agent(agent, registry)
    agent.registry, agent.path = registry, tmp_path / "store.db"
    return agent


def _path(registry, name):
    return registry.get(name).path if name.startswith("v0") else "stock"


def _swap(agent, version):
    return swap_agent(agent, version.id, Encoder.load(version.path), agent.registry)


def _rows(agent):
    """Every table with its rows, vectors included."""
    names = [name for (name,) in agent.store.execute("select name from sqlite_master where type = 'table'")]
    return {name: agent.store.execute(f'select * from "{name}" order by id') for name in names}


def test_nothing_stored_changes_there_and_back(agent, tiny_version, query_version):
    before, vector = _rows(agent), agent.binding.encoder.encode(["Who plays?"], role="query")
    plan = plan_swap(agent, Encoder.load(query_version.path), agent.registry)
    assert (plan.records, plan.indexes) == (0, ())
    report = _swap(agent, query_version)
    assert (report.changed, report.indexes, report.previous) == (True, (), tiny_version.id)
    assert _rows(agent) == before
    assert agent.encoder_version == query_version.id == agent.registry.live_index(agent.store_id).version
    assert agent.registry.current_id() == query_version.id
    mapped = agent.binding.encoder.encode(["Who plays?"], role="query")
    assert float((mapped * vector).sum()) < 0.999
    back = rollback_agent(agent, agent.registry, lambda name: Encoder.load(_path(agent.registry, name)))
    assert (back.version, back.indexes) == (tiny_version.id, ())
    assert _rows(agent) == before
    assert np.array_equal(agent.binding.encoder.encode(["Who plays?"], role="query"), vector)
    # and a restart opens what is recorded
    again = SmallAgent(agent.path, agent.registry, agent.load_encoder)
    assert again.encoder_version == tiny_version.id
    assert contents(again.live_indexes()[0]) == contents(agent.live_indexes()[0])


def test_what_both_serve_from_is_dropped_with_the_last_of_them(agent, query_version, tiny_version):
    _swap(agent, query_version)
    shared = {index.name for index in agent.live_indexes()}
    # the version before shares its collections, so retiring it drops none
    assert retire_agent(agent, agent.registry) == []
    assert set(_rows(agent)) >= shared
    stock = Encoder.load()
    swap_agent(agent, stock.version, stock, agent.registry)
    assert set(_rows(agent)) > shared
    # back to the first of the two: what the second still holds is taken over as it is
    report = _swap(agent, tiny_version)
    assert [index.reused for index in report.indexes] == [20, 10]
    assert {index.name for index in agent.live_indexes()} == shared
    assert set(retire_agent(agent, agent.registry)).isdisjoint(shared)
    assert set(_rows(agent)) == shared


def test_writes_go_on_and_are_found_after_the_flip(agent, query_version):
    agent.add("new", "Ann bought a red bicycle.")
    _swap(agent, query_version)
    agent.add("newer", "The bicycle has a basket.")
    agent.delete("m0001")
    rollback_agent(agent, agent.registry, agent.load_encoder)
    held = contents(agent.live_indexes()[0])
    assert {"new", "newer"} <= held.keys()
    assert "m0001" not in held


def test_a_version_whose_documents_are_others_is_refused_whatever_its_manifest_says(agent, tiny_version, tmp_path):
    model = Encoder.load(tiny_version.path).model
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(torch.randn(weight.shape, generator=torch.Generator().manual_seed(0)))
    model.save(str(tmp_path / "forged"), safe_serialization=True)
    forged = agent.registry.add(tmp_path / "forged", {"mode": "query", "document_space": tiny_version.id})
    before = _rows(agent)
    with pytest.raises(SwapError, match="16 of 16 sampled ones are others"):
        _swap(agent, forged)
    assert agent.encoder_version == tiny_version.id == agent.registry.live_index(agent.store_id).version
    assert _rows(agent) == before


class _Stuck(SmallAgent):
    def switch_to(self, version, suffix):
        if version == self.refuses:
            raise RuntimeError("no room")
        return super().switch_to(version, suffix)

    refuses = ""


@pytest.mark.parametrize("where", ["agent", "registry"])
def test_a_flip_that_fails_changes_nothing(agent, query_version, tiny_version, monkeypatch, where):
    agent.__class__ = _Stuck
    if where == "agent":
        agent.refuses = query_version.id
    else:

        def full(*_):
            raise RuntimeError("no room")

        monkeypatch.setattr(agent.registry, "flip_queries", full)
    before = agent.registry.generations(agent.store_id)
    with pytest.raises(SwapError, match="no room"):
        _swap(agent, query_version)
    assert agent.encoder_version == tiny_version.id
    assert agent.registry.generations(agent.store_id) == before


def test_an_unfinished_swap_of_another_version_is_given_up(agent, query_version):
    stock = Encoder.load()
    agent.registry.begin_shadow(agent.store_id, stock.version, "_half")
    agent.open_indexes(stock.version, "_half")
    _swap(agent, query_version)
    assert agent.registry.shadow_index(agent.store_id) is None
    assert not any(name.endswith("_half") for name in _rows(agent))


def test_the_registry_refuses_other_spaces(agent, settings):
    with pytest.raises(SwapError, match="not served by vectors"):
        agent.registry.flip_queries(agent.store_id, "another encoder")
    assert Registry(settings).document_space("another encoder") == "another encoder"
