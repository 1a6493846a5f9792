"""Leases: one holder at a time, taken anew after a kill, and safe when clocks jump."""

import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import sqlalchemy as sa
from hypothesis import given, settings
from hypothesis import strategies as st
from waiting import until

import hins_memory.database.leases as lease_module
from hins_memory.database.engine import open_database
from hins_memory.database.leases import LeaseHeldError, LeaseLostError, Leases
from hins_memory.database.tables import leases


class Hosts:
    """Several hosts over one database, each with a folder for its locks, and one clock that can be set."""

    def __init__(self, url, folder):
        self.engine = open_database(url)
        self.folder = folder
        self.time = 1000.0
        # Put back by `real_clock`.
        lease_module.database_clock = lambda _: self.time

    def __getitem__(self, host):
        return Leases(self.engine, self.folder / str(host))

    def expires(self):
        with self.engine.connect() as connection:
            return connection.execute(sa.select(leases.c.expires)).scalar_one()


@pytest.fixture(autouse=True)
def real_clock(monkeypatch):
    """After each test."""
    monkeypatch.setattr(lease_module, "database_clock", lease_module.database_clock)


@pytest.fixture
def hosts(tmp_path):
    return Hosts(f"sqlite:///{tmp_path / 'log.db'}", tmp_path)


def test_one_holder_at_a_time_and_larger_tokens(hosts):
    with hosts[1].hold("run") as first:
        for other in (1, 2):
            with pytest.raises(LeaseHeldError, match=f"process {os.getpid()} on .* since 1970-01-01 00:16:40 UTC"):
                hosts[other].hold("run").__enter__()
        with hosts[2].hold("another"):
            pass
    assert hosts[1].holder("run") == ""
    with hosts[2].hold("run") as second:
        assert second.token > first.token


def test_threads_exclude_one_another(hosts):
    running, most = [], []

    def work(number):
        try:
            with hosts[number % 2].hold("run"):
                running.append(number)
                most.append(len(running))
                time.sleep(0.01)
                running.remove(number)
        except LeaseHeldError:
            return

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(24)))
    assert most
    assert max(most) == 1


HOLD = """
import sys, time
from pathlib import Path
from hins_memory.database.leases import Leases
import hins_memory.database.leases as lease_module
from hins_memory.database.engine import open_database
with Leases(open_database(sys.argv[1]), Path(sys.argv[2])).hold("run") as lease:
    print(lease.token, flush=True)
    time.sleep(60)
"""


def test_after_a_kill_this_host_goes_on_at_once_and_another_after_the_lease_has_run_out(hosts, tmp_path):
    command = [sys.executable, "-c", HOLD, str(hosts.engine.url), str(tmp_path / "1")]
    holder = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    token = int(holder.stdout.readline())
    hosts.time = time.time()
    for host in (1, 2):
        with pytest.raises(LeaseHeldError, match=f"process {holder.pid} on"), hosts[host].hold("run"):
            pass
    os.kill(holder.pid, signal.SIGKILL)
    holder.wait()
    holder.stdout.close()
    with pytest.raises(LeaseHeldError), hosts[2].hold("run"):
        pass
    hosts.time += 61
    with hosts[2].hold("run") as lease:
        assert lease.token == token + 1
    hosts.time -= 61
    with hosts[1].hold("run"):
        pass


def test_a_kill_is_noticed_at_once_on_the_same_host(hosts, tmp_path):
    command = [sys.executable, "-c", HOLD, str(hosts.engine.url), str(tmp_path / "1")]
    holder = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    token = int(holder.stdout.readline())
    holder.kill()
    holder.wait()
    holder.stdout.close()
    hosts.time = time.time()
    with hosts[1].hold("run") as lease:
        assert lease.token == token + 1


@pytest.mark.slow
def test_a_lease_is_renewed_while_its_holder_works(hosts, monkeypatch):
    monkeypatch.setattr(lease_module, "_SECONDS", 0.4)
    with hosts[1].hold("run"):
        for _ in range(3):
            # Two of these are longer than the lease.
            hosts.time += 0.3
            until(lambda: hosts.expires() == hosts.time + 0.4)
            with pytest.raises(LeaseHeldError), hosts[2].hold("run"):
                pass


def test_a_clock_that_goes_back_neither_lets_in_a_second_nor_keeps_a_dead_ones_lease(hosts):
    dead = hosts[1]._take("run", "the place of a process that died")
    hosts.time -= 86400
    with pytest.raises(LeaseHeldError), hosts[2].hold("run"):
        pass
    assert hosts.expires() == hosts.time + 60
    hosts.time += 61
    with hosts[2].hold("run") as lease:
        assert lease.token > dead.token


def test_a_clock_that_jumps_ahead_lets_in_another_host_and_the_first_can_record_nothing(hosts):
    with hosts[1].hold("run") as first:
        hosts.time += 86400
        with hosts[2].hold("run") as second:
            with hosts.engine.begin() as connection:
                second.check(connection)
            with pytest.raises(LeaseLostError), hosts.engine.begin() as connection:
                first.check(connection)
            with pytest.raises(LeaseLostError):
                first.renew()
        # The one that lost it gives back nothing of the other's.
    with hosts[1].hold("run") as third:
        assert third.token > second.token


def test_a_clock_that_jumps_ahead_lets_nobody_in_on_the_same_host(hosts):
    with hosts[1].hold("run") as lease:
        hosts.time += 86400
        with pytest.raises(LeaseHeldError, match="another process of this host"), hosts[1].hold("run"):
            pass
        with hosts.engine.begin() as connection:
            lease.check(connection)


def test_the_thread_that_renews_ends_when_the_lease_is_lost(hosts, monkeypatch):
    lease = hosts[1]._take("run", "somewhere")
    hosts.time += 86400
    hosts[2]._take("run", "elsewhere")
    monkeypatch.setattr(lease_module, "_SECONDS", 0.01)
    lease.renew_until(threading.Event())  # returns


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("take"), st.integers(0, 2)),
        st.tuples(st.just("release"), st.integers(0, 2)),
        st.tuples(st.just("clock"), st.floats(-1e6, 1e6)),
    ),
    max_size=20,
)


@pytest.mark.slow
@settings(max_examples=30, deadline=None)
@given(STEPS)
def test_whatever_the_clock_does_at_most_one_token_is_good(tmp_path_factory, steps):
    folder = tmp_path_factory.mktemp("hosts")
    hosts = Hosts(f"sqlite:///{folder / 'log.db'}", folder)
    taken = []
    for step, value in steps:
        if step == "clock":
            hosts.time += value
        elif step == "release":
            for lease in taken[value : value + 1]:
                lease.release()
        else:
            try:
                taken.append(hosts[value]._take("run", f"process {len(taken)}"))
            except LeaseHeldError:
                continue
        good = []
        for lease in taken:
            try:
                with hosts.engine.begin() as connection:
                    lease.check(connection)
                good.append(lease)
            except LeaseLostError:
                continue
        assert good == taken[-1:]
        assert [lease.token for lease in taken] == sorted({lease.token for lease in taken})
