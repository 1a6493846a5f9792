"""The stages on a real Ray cluster of two nodes: the results of a run without one, whoever is killed."""

from __future__ import annotations

import itertools
import sys
import uuid
from dataclasses import replace

import pytest
from child_process import Child, children
from ray_driver import mine_until_a_shard_is_there, swap_until_a_batch_is_there

import hins_memory
from hins_memory.data.examples import read_examples
from hins_memory.database.engine import open_database
from hins_memory.encoders.encoder import Encoder
from hins_memory.evaluation.gate import GateSettings
from hins_memory.log.writer import LogWriter
from hins_memory.loop.pipeline import LoopSettings, Pipeline
from hins_memory.loop.shards import shards_of
from hins_memory.plugins.manager import agent_of
from hins_memory.plugins.protocols import Record
from hins_memory.types import Answer, Feedback, Memory, RankedMemory, Retrieval, Scope

ray = pytest.importorskip("ray", reason="needs the extra ray")
pytestmark = pytest.mark.slow

SMALL = {"num_cpus": 1, "object_store_memory": 80 * 2**20, "include_log_monitor": False}
THINGS = ("cello", "kayak", "violet", "lantern", "walnut", "harbour", "teapot", "glacier", "ribbon", "cactus")


@pytest.fixture(scope="module")
def cluster(forked_python):
    # Ray's processes are forked from one that has torch: each would import it for seconds.
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "executable", forked_python)
        yield from running_cluster()


def running_cluster():
    from ray.cluster_utils import Cluster

    # What a cluster has beside its nodes' daemons takes seconds to start.
    few = {"include_dashboard": False, "no_monitor": True}
    # A worker takes seconds as well. By default, those that are idle end as soon as another driver has workers, and all
    # are of low priority: beside whatever else the machine does, they would take minutes.
    workers = {"num_workers_soft_limit": 8, "worker_niceness": 0}
    found = Cluster()
    started(lambda: found.add_node(**SMALL, **few, _system_config=workers))
    started(lambda: found.add_node(**SMALL))
    ray.init(address=found.address, log_to_driver=False)
    yield found
    ray.shutdown()
    found.shutdown()


def started(start):
    """Start a node; Ray gives it 30 seconds, which a busy machine may not have."""
    for tries in (1, 2, 3):
        try:
            return start()
        except Exception as error:
            if tries == 3:
                pytest.skip(f"Ray's own daemons do not start here: {error}")


@pytest.fixture
def project(settings, tiny_folder):
    """Eight owners with three conversations each, their searches, and what became of those."""
    writer = LogWriter(open_database(settings.database_url))
    for user in users(8):
        writer.write(events(user))
    return settings, LoopSettings(base=str(tiny_folder), gate=GateSettings(min_queries=5))


def users(count):
    """Names that are a shard each, so that there are shards without many owners."""
    names = (f"user{number}" for number in itertools.count())
    alone = (name for name in names if len(list(shards_of([Scope(user=name), Scope(user="~")]))) == 2)
    return sorted(itertools.islice(alone, count))


def events(user):
    scope, found = Scope(user=user), []
    for talk in range(3):
        stored = [
            Memory(
                f"{user}/{talk}/{row}", scope, f"talk{talk}",
                f"{user} keeps the {THINGS[(talk + row) % 10]} number {talk * 7 + row} near the {THINGS[row * 3 % 10]}",
                ("Ann", "Bo")[row % 2], time=talk * 100.0 + row,
            )
            for row in range(8)
        ]  # fmt: skip
        found += stored
        for row in (1, 4):
            results = tuple(RankedMemory(one.id, one.text, 0.5) for one in stored)
            name = f"{user}/{talk}/{row}?"
            query = f"Where does {user} keep the {THINGS[(talk + row) % 10]} number {talk * 7 + row}?"
            found.append(Retrieval(scope, query, results, id=name, time=1000.0 + talk))
            outcome = Answer(name, f"near the {THINGS[row * 3 % 10]}", time=1001.0)
            found.append(Feedback(stored[row].id, "POSITIVE", name, time=1001.0) if talk else outcome)
    return found


@pytest.fixture
def mined(project, tmp_path):
    """The file that mining without a cluster writes."""
    settings, loop = project
    path = tmp_path / "local.parquet"
    assert Pipeline(settings, loop=loop).mine_to(path).examples > 20
    return path


def test_shards_cover_the_owners_in_order_and_stay_where_one_comes_in():
    owners = [Scope(user=f"user{number:05}") for number in range(2000)]
    shards = list(shards_of(owners))
    assert [owner for shard in shards for owner in shard] == owners
    assert max(map(len, shards)) <= 128
    more = list(shards_of([Scope(user="user00000a"), *owners]))
    assert len(set(more) - set(shards)) <= 2


def test_a_cluster_mines_the_same_file_although_a_node_is_killed(cluster, project, mined, tmp_path):
    settings, loop = project
    doomed = next(node for node in cluster.list_all_nodes() if not node.head)
    told = []

    def progress(stage, done, total):
        if not told:
            cluster.remove_node(doomed, allow_graceful=False)
        told.append((stage, done, total))

    path = tmp_path / "cluster.parquet"
    try:
        Pipeline(settings, loop=replace(loop, ray="auto"), progress=progress).mine_to(path)
    finally:
        started(lambda: cluster.add_node(**SMALL))
    assert list(read_examples(path)) == list(read_examples(mined))
    assert path.read_bytes() == mined.read_bytes()
    assert [step for step in told if step[0] == "mine"][-1] == ("mine", 8, 8)
    assert not path.with_name(f"{path.name}.work").exists()


def test_a_run_whose_driver_is_killed_goes_on_with_what_its_shards_have(cluster, project, mined, tmp_path, monkeypatch):
    settings, loop = project
    path = tmp_path / "cluster.parquet"
    evidence = path.with_name(f"{path.name}.work") / "evidence"
    monkeypatch.setenv("HINS_HOME", str(settings.home))
    monkeypatch.setenv("HINS_BASE", loop.base)
    with children(Child(mine_until_a_shard_is_there, settings.project, cluster.address, path)) as (driver,):
        driver.killed()
    kept = finished(evidence)
    assert kept
    assert not path.exists()
    seen = {}

    def progress(stage, done, total):
        if stage == "mine":
            seen.update(finished(evidence))

    Pipeline(settings, loop=replace(loop, ray=cluster.address), progress=progress).mine_to(path)
    assert kept.items() <= seen.items()
    assert len(seen) == 8
    assert path.read_bytes() == mined.read_bytes()


def test_a_cluster_embeds_for_the_gate_and_for_the_swap_of_a_server_store_that_goes_on_where_a_driver_was_killed(
    cluster, project, tiny_version, postgresql_server, monkeypatch
):
    settings, loop = project
    spread = replace(loop, ray=cluster.address)
    local, judged = (Pipeline(settings, loop=one).gate(tiny_version.id).to_dict() for one in (loop, spread))
    # Other batches change the last bits of vectors, and with them the order of texts that are about as far.
    general = [one.pop("general")["candidate"]["ndcg@10"] for one in (local, judged)]
    assert judged == local
    assert general[0] == pytest.approx(general[1], abs=0.005)
    monkeypatch.setenv("HINS_BASE", loop.base)
    monkeypatch.setenv("HINS_HOME", str(settings.home))
    config = {"connection_string": postgresql_server, "collection_name": "spread", "embedding_model_dims": 32}
    store = {"provider": "pgvector", "config": config}
    memory = hins_memory.Memory({"vector_store": store}, settings=settings)
    agent = agent_of(memory)
    texts = {str(uuid.UUID(int=row)): f"Ann keeps the {THINGS[row % 10]} number {row}." for row in range(300)}
    rows = [Record(name, text, {"data": text, "user_id": "ann"}) for name, text in texts.items()]
    agent.live_indexes()[0].upsert(rows, memory.embedding_model.encoder.encode(list(texts.values())))
    with children(Child(swap_until_a_batch_is_there, settings.project, spread, store, tiny_version.id)) as (driver,):
        driver.killed()
    embedded, forward = [], Encoder._forward
    monkeypatch.setattr(Encoder, "_forward", lambda *given: embedded.append(len(given[1])) or forward(*given))
    (report, *_) = Pipeline(settings, memory, loop=spread).swap(tiny_version.id, force=True).indexes
    assert (report.written, report.reused, report.vectors_checked) == (200, 100, 256)
    assert max(embedded, default=0) < 64, "this process embeds single texts alone"
    monkeypatch.setattr(Encoder, "_forward", forward)
    stored = agent.live_indexes()[0].vectors(list(texts))
    expected = Encoder.load(tiny_version.path).encode(list(texts.values()))
    assert all(float(vector @ stored[name]) > 0.999 for name, vector in zip(texts, expected, strict=True))
    memory.close()


def finished(folder):
    """The shards of a run that is under way, each with what tells whether it was made again."""
    return {one.name: one.stat().st_ino for one in folder.glob("[!.]*")}
