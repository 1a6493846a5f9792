"""The registry, leases and schedules on a real PostgreSQL, with two hosts at once."""

import itertools
import signal
import subprocess
import sys
import time

import pytest
import sqlalchemy as sa
from postgresql import postgresql_schema
from test_registry import make_folder, states
from test_schedule import Project

from hins_memory.config import Settings
from hins_memory.database.engine import open_database
from hins_memory.database.leases import LeaseHeldError, LeaseLostError, Leases, database_clock
from hins_memory.database.tables import leases
from hins_memory.errors import EncoderError, SwapError
from hins_memory.registry.archive import export_version, import_version
from hins_memory.registry.prune import prune
from hins_memory.registry.registry import Registry

_numbers = itertools.count()


@pytest.fixture
def url(postgresql_server):
    pytest.importorskip("psycopg")
    return postgresql_schema(postgresql_server, f"registry{next(_numbers)}")


@pytest.fixture
def hosts(url, tmp_path):
    """Two hosts: folders of their own, one database."""
    made = [Registry(Settings(home=tmp_path / host, project="test", log_url=url)) for host in ("one", "two")]
    yield made
    for registry in made:
        registry._engine.dispose()


@pytest.mark.slow
def test_a_version_goes_from_host_to_host_and_serves_on_both(hosts, tiny_folder, tmp_path):
    import shutil

    one, two = hosts
    version = one.add(shutil.copytree(tiny_folder, tmp_path / "tiny"), {"base": "tiny", "note": "🎻 大提琴"})
    one.record_gate(version.id, {"passed": True, "forced": False, "failures": []})
    one.promote(version.id)
    assert two.current_id() == version.id
    with pytest.raises(EncoderError, match="hins encoders import"):
        two.current()
    export_version(version, tmp_path / "version.zip")
    assert import_version(tmp_path / "version.zip", two).path == two.settings.encoders / version.id
    assert two.current().manifest.other["note"] == "🎻 大提琴"
    assert len(two.current().manifest.promotions) == 1


def test_swaps_of_two_hosts_exclude_each_other(hosts):
    one, two = hosts
    one.record_live("agent", "stock", "")
    with one.swap_lock("agent"):
        one.begin_shadow("agent", "first", "_1")
        with pytest.raises(SwapError, match="is running: process"), two.swap_lock("agent"):
            pass
        one.flip("agent", "_1")
    with two.swap_lock("agent"):
        two.flip_back("agent")
    assert states(one) == {"live": "", "previous": "_1", "retired": []}


def test_a_lease_that_another_host_took_over_records_nothing(hosts, url):
    one, two = hosts
    one.record_live("agent", "stock", "")
    with one.swap_lock("agent"):
        one.begin_shadow("agent", "first", "_1")
        with one._engine.begin() as connection:
            connection.execute(sa.update(leases).values(expires=0.0))
        with two.swap_lock("agent"):
            with pytest.raises(LeaseLostError):
                one.flip("agent", "_1")
            assert states(two) == {"live": "", "shadow": "_1", "retired": []}


HOLD = """
import sys, time
from pathlib import Path
from hins_memory.database.engine import open_database
from hins_memory.database.leases import Leases
with Leases(open_database(sys.argv[1]), Path(sys.argv[2])).hold("round"):
    print("held", flush=True)
    time.sleep(60)
"""


def test_after_the_loss_of_a_host_another_goes_on_when_the_lease_has_run_out(url, tmp_path):
    command = [sys.executable, "-c", HOLD, url, str(tmp_path / "one")]
    holder = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert holder.stdout.readline() == "held\n"
    engine = open_database(url)
    others = Leases(engine, tmp_path / "two")
    with pytest.raises(LeaseHeldError, match=f"process {holder.pid}"), others.hold("round"):
        pass
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    holder.stdout.close()
    # The same host at once, another one after the lease.
    with pytest.raises(LeaseHeldError), others.hold("round"):
        pass
    with Leases(engine, tmp_path / "one").hold("round") as lease:
        assert lease.token == 2
    with engine.connect() as connection:
        assert abs(database_clock(connection) - time.time()) < 60
    engine.dispose()


def test_many_that_want_a_lease_at_once_get_it_one_by_one(url, tmp_path):
    from concurrent.futures import ThreadPoolExecutor

    engine = open_database(url)
    tokens, running = [], []

    def work(number):
        try:
            with Leases(engine, tmp_path / str(number)).hold("round") as lease:
                running.append(number)
                tokens.append((lease.token, len(running)))
                running.remove(number)
        except LeaseHeldError:
            return

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(work, range(18)))
    engine.dispose()
    assert tokens
    assert {together for _, together in tokens} == {1}
    assert len({token for token, _ in tokens}) == len(tokens)


def test_schedules_and_purges_count_as_on_sqlite(url):
    project = Project(open_database(url))
    project.add(answers=3, feedback=1)
    assert project.due("4 outcomes").due
    project.run()
    assert project.due("4 outcomes or 7 days").why == "0 of 4 new outcomes; 0.0 of 7 days since the last round."
    project.add(answers=1)
    assert project.due("1 answer").due
    project.engine.dispose()


def test_pruning_frees_this_hosts_folders(hosts, tmp_path):
    one, two = hosts
    versions = [one.add(make_folder(tmp_path / str(n)), {}) for n in range(3)]
    two.record_live("agent", versions[0].id, "")
    assert prune(one, keep=1).removed == (versions[1].id,)
    assert [version.id for version in two.versions()] == [versions[0].id, versions[2].id]
