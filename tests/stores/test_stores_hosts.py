"""Two hosts, one database, one bucket of versions: a swap reaches the other host, which has no copy of the version."""

from __future__ import annotations

import os
import time
from dataclasses import replace
from typing import Any

import pytest
from child_process import Child, children
from postgresql import postgresql_schema
from store_child import work
from store_world import BATCH, agent, assert_in_one_space, fill

from hins_memory.registry.registry import Registry
from hins_memory.swapping import swap_agent

pytestmark = pytest.mark.slow


@pytest.fixture
def settings(postgresql_server: str, s3: str, settings: Any) -> Any:
    """A project whose log is in PostgreSQL and whose versions are in a bucket."""
    return replace(settings, log_url=postgresql_schema(postgresql_server, "hosts"), store=s3)


def work_there(channel: Any, environment: dict[str, str], *arguments: Any) -> None:
    """Work on another host, which has the variables that a client of S3 reads."""
    os.environ.update(environment)
    work(channel, *arguments)


@pytest.mark.parametrize("world", ["pgvector"], indirect=True)
def test_a_version_made_on_one_host_serves_on_the_other_at_once(world: Any, tiny_version: Any, tmp_path: Any) -> None:
    memory = world.open()
    fill(memory, 12)
    other = replace(world, settings=replace(world.settings, home=tmp_path / "other"))
    variables = {name: value for name, value in os.environ.items() if name.startswith("AWS_")}
    with children(Child(work_there, variables, other, "bob")) as (worker,):
        assert worker.read() == agent(memory).encoder_version
        swap_agent(
            agent(memory), tiny_version.id, world.load(tiny_version.id), Registry(world.settings), batch_size=BATCH
        )
        flipped = time.time()
        assert worker.read() == tiny_version.id
        worker.tell("end")
        result = worker.read()
        worker.wait()
    assert result["failures"] == []
    # As within one host: what begins a second after the flip is served by the new version.
    assert not [
        began - flipped for version, began in result["seen"] if version != tiny_version.id and began > flipped + 1
    ]
    assert (other.settings.encoders / tiny_version.id).is_dir()
    assert_in_one_space(memory)
