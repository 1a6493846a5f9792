"""The work that the tests kill, and the program that fills a disk."""

import json
import os
import signal
import sys
from pathlib import Path


def die(*args, **kwargs):
    os.kill(os.getpid(), signal.SIGKILL)


def die_at(owner, name, call):
    """Make the process end at the n-th call of a function."""
    original, calls = getattr(owner, name), []

    def counted(*args, **kwargs):
        calls.append(1)
        if len(calls) == call:
            die()
        return original(*args, **kwargs)

    setattr(owner, name, counted)


def arm(moment):
    from hins_memory.encoders.encoder import Encoder
    from hins_memory.registry.registry import Registry

    where, _, number = moment.partition(":")
    if where == "encode":
        die_at(Encoder, "encode", int(number))
    elif where == "step":
        from transformers import Trainer

        die_at(Trainer, "training_step", int(number))
    elif where == "move":
        # os.rename and os.replace of the finished folder: before the version exists
        from hins_memory.registry import versions as version_store

        die_at(version_store, "move_durably", 1)
    else:
        die_at(Registry, where, 1)


def stage(channel, home, name, moment):
    """Run one stage of the loop and be killed at a moment of it."""
    from kill_world import make_pipeline

    pipeline = make_pipeline(home)
    arm(moment)
    if name == "mine":
        pipeline.mine_to(home / "examples.parquet")
    else:
        getattr(pipeline, name)()


def full_disk(home, disk, provider):
    """Swap on a disk of a few megabytes until it is full; free some, and swap again. Prints what happened."""
    import subprocess

    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", str(disk)], check=True)
    from hins_adapter_mem0 import Memory
    from hins_adapter_mem0.attaching import agent_of

    from hins_memory.config import Settings
    from hins_memory.encoders.encoder import Encoder
    from hins_memory.errors import SwapError
    from hins_memory.registry.registry import Registry
    from hins_memory.swapping import swap_agent

    settings = Settings(home=home, project="test")
    registry = Registry(settings)
    config = {"collection_name": "full", "path": str(disk / "store")}
    if provider == "qdrant":
        config["on_disk"] = True
    memory = Memory({"vector_store": {"provider": provider, "config": config}}, settings=settings, capture=False)
    ids = []
    for number in range(30):
        text = f"Ann told a long story about day {number}. " + "And so on. " * 300
        ids.append(memory.add(text, user_id="ann", infer=False)["results"][0]["id"])
    agent, version = agent_of(memory), registry.versions()[0]
    free = os.statvfs(disk)
    filler = disk / "filler"
    filler.write_bytes(b"x" * (free.f_bavail * free.f_frsize - 60_000))

    def swap():
        return swap_agent(agent, version.id, Encoder.load(version.path), registry, batch_size=4)

    told = ""
    try:
        swap()
    except SwapError as error:
        told = str(error)
    served, there = agent.encoder_version, [memory.get(id_) is not None for id_ in ids]
    found = memory.search("Which story is about day 3?", filters={"user_id": "ann"}, threshold=0)["results"]
    filler.unlink()
    report = swap()
    memory.close()
    memory = Memory({"vector_store": {"provider": provider, "config": config}}, settings=settings, capture=False)
    after = [memory.get(id_) is not None for id_ in ids]
    result = {
        "told": told,
        "served": served,
        "there": all(there),
        "found": len(found),
        "version": report.version,
        "after": all(after),
        "serves": memory.embedding_model.encoder.version,
    }
    sys.stdout.write(json.dumps(result) + "\n")


def swap_slowly(channel, home, version):
    """Swap a small agent; say when it has begun, and wait to be killed."""
    from small_agent import SmallAgent

    from hins_memory.config import Settings
    from hins_memory.encoders.encoder import Encoder
    from hins_memory.registry.registry import Registry
    from hins_memory.swapping import swap_agent

    registry = Registry(Settings(home=home, project="test"))
    agent = SmallAgent(home / "store.db", registry)

    def progress(*_):
        channel.send("swapping")
        channel.recv()

    swap_agent(agent, version, Encoder.load(registry.get(version).path), registry, batch_size=10, progress=progress)


if __name__ == "__main__":
    full_disk(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3])
