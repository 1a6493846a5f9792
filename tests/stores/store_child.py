"""What a second process does with a store in the tests; each function is the whole work of one process."""

import os
import signal
import time


def hold(channel, world):
    """Have the store open until told to end."""
    memory = world.open()
    channel.send("open")
    channel.recv()
    memory.close()


def swap_and_die(channel, world, version, moment):
    """Swap, and be killed after some records, or right behind the record of the flip."""
    from store_world import BATCH, agent

    from hins_memory.registry.registry import Registry
    from hins_memory.swapping import swap_agent

    memory = world.open()
    theirs = agent(memory)

    def die(*args, **kwargs):
        os.kill(os.getpid(), signal.SIGKILL)

    def progress(what, done, total):
        if moment == "build" and what == "build memories" and done >= total / 2:
            die()

    if moment == "flip":
        theirs.switch_to = die
    swap_agent(theirs, version, world.load(version), Registry(world.settings), batch_size=BATCH, progress=progress)


def work(channel, world, name):
    """Add, update, delete and search until told to end; say when another encoder serves, and at the end everything."""
    memory = world.open()
    alive, seen, failures = {}, [], []
    number, served = 0, ""
    # However slow the machine is, it writes a few notes.
    while not channel.poll(0.01) or number < 12:
        started = time.time()
        try:
            version = _step(memory, name, number, alive)
        except Exception as error:
            failures.append(f"{type(error).__name__}: {error}")
            continue
        finally:
            number += 1
        seen.append((version, started))
        if version != served:
            served = version
            channel.send(version)
    channel.send({"alive": alive, "seen": seen, "failures": failures})
    memory.close()


def _step(memory, name, number, alive):
    """Write one note as the work wants it; return the version that it was embedded with."""
    text = f"{name} wrote note number {number} about boats."
    with memory._hins_pin() as binding:
        (item,) = memory.add(text, user_id=name, infer=False)["results"]
    if number % 3 == 1:
        text += " Twice."
        memory.update(item["id"], text)
    if number % 3 == 2:
        memory.delete(item["id"])
        return binding.version
    alive[item["id"]] = text
    # A text finds itself, with a perfect score, only where query and index are of one encoder.
    with memory._hins_pin() as pinned:
        vector = pinned.embedding.embed(text, "search")
        best = pinned.memories.search(query=text, vectors=vector, top_k=1, filters={"user_id": name})[0]
    if best.payload["data"] != text or best.score < 0.99:
        raise AssertionError(f"{text!r} found {best.payload['data']!r} at {best.score}")
    return binding.version


def race(channel, world):
    """Swap, roll back, retire or purge when told to, as another process does the same; say how it ended."""
    from store_world import BATCH, agent

    from hins_memory.errors import HinsError
    from hins_memory.loop.purge import purge_person
    from hins_memory.registry.registry import Registry
    from hins_memory.swapping import retire_agent, rollback_agent, swap_agent

    memory = world.open()
    registry = Registry(world.settings)
    channel.send("ready")
    while (order := channel.recv()) != ("end", ""):
        what, version = order
        try:
            if what == "swap":
                swap_agent(agent(memory), version, world.load(version), registry, batch_size=BATCH)
            elif what == "rollback":
                rollback_agent(agent(memory), registry, world.load, batch_size=BATCH)
            elif what == "retire":
                retire_agent(agent(memory), registry)
            else:
                assert purge_person(world.settings, "ann").problem == ""
            channel.send("done")
        except HinsError as error:
            channel.send(f"{type(error).__name__}: {error}")
    memory.close()
