"""The work that the tests kill, and that fills a disk."""

import ctypes
import os
import signal
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
    import pytest
    from few_texts import take_few
    from kill_world import make_pipeline

    take_few(pytest.MonkeyPatch())
    pipeline = make_pipeline(home)
    arm(moment)
    if name == "mine":
        pipeline.mine_to(home / "examples.parquet")
    else:
        getattr(pipeline, name)()


def own_disk(folder):
    """Mount a disk of a few megabytes that only this process sees; return whether it may. Needs Linux."""
    libc, (user, group) = ctypes.CDLL(None, use_errno=True), (os.getuid(), os.getgid())
    new_mounts, new_user, recursive, private = 0x20000, 0x10000000, 1 << 14, 1 << 18
    if libc.unshare(new_mounts):
        if libc.unshare(new_user | new_mounts):
            return False
        for name, said in (("setgroups", "deny"), ("uid_map", f"0 {user} 1"), ("gid_map", f"0 {group} 1")):
            Path("/proc/self", name).write_text(said)
    if libc.mount(b"none", b"/", None, recursive | private, None):
        return False
    return not libc.mount(b"tmpfs", os.fsencode(folder), b"tmpfs", 0, b"size=24m")


def full_disk(channel, home, disk, provider):
    """Swap on a disk of a few megabytes until it is full; free some, and swap again. Says what happened."""
    try:
        allowed = own_disk(disk)
    except (AttributeError, OSError):
        allowed = False
    if not allowed:
        channel.send(None)
        return
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
    channel.send(result)


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
