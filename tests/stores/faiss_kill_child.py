"""A process whose forks are killed at each step of a write to Mem0's faiss; prints what a new process finds then.

Usage: python faiss_kill_child.py FOLDER OPERATION... Prints one JSON object: for each operation the state before and
after it, and the states that were found after a kill at each step.
"""

import contextlib
import gc
import json
import os
import shutil
import signal
import sys
from pathlib import Path

import faiss  # noqa: F401
import numpy as np
from hins_adapter_mem0.indexes import open_index
from hins_adapter_mem0.stores import StoreOpener
from mem0.configs.vector_stores.faiss import FAISSConfig

from hins_memory.plugins.protocols import Record

# What is imported, faiss too, is imported once for all forks, and no collection of theirs looks through it.
gc.freeze()
DIM = 4
# What Python says of each of these before it does it; `os.replace` is a rename too.
_STEPS = ("open", "os.rename", "os.remove", "os.mkdir", "os.chmod", "os.truncate")


def opened(folder):
    config = FAISSConfig(path=str(folder), collection_name="c", distance_strategy="cosine")
    return StoreOpener("faiss", config).open("c", DIM)


def row(number):
    return np.eye(DIM, dtype=np.float32)[number % DIM]


def fill(folder):
    store = opened(folder)
    names = [f"id{number}" for number in range(3)]
    store.insert([row(number) for number in range(3)], [{"data": f"text {name}"} for name in names], names)


def operate(folder, operation):
    """Do one write to a store that `fill` filled, or to one that is not there yet."""
    store = opened(folder)
    index = open_index(store, "memories")
    if operation == "insert":
        store.insert([row(3)], [{"data": "new"}], ["id3"])
    elif operation == "update":
        store.update("id1", row(3), {"data": "changed"})
    elif operation == "payload":
        store.update("id1", None, {"data": "changed"})
    elif operation == "delete":
        store.delete("id0")
    elif operation == "reset":
        store.reset()
    elif operation == "drop":
        store.drop()
    elif operation == "upsert":
        records = [Record("id1", "changed", {"data": "changed"}), Record("id9", "new", {"data": "new"})]
        index.upsert(records, np.stack([row(3), row(0)]))
    elif operation == "remove":
        index.delete(["id0", "id2"])
    else:
        assert operation == "open"


def state(folder):
    """Every row as a new process finds it: text and place of the one in its vector, by id."""
    index = open_index(opened(folder), "memories")
    found = {record.id: record.text for page in index.pages(10) for record in page}
    vectors = index.vectors(list(found))
    assert vectors.keys() == found.keys()
    return {id_: [text, int(vectors[id_].argmax())] for id_, text in found.items()}


def forked(work):
    """Return what `work` returns in a fork, None when it was killed, or the text of its error."""
    read, write = os.pipe()
    child = os.fork()
    if not child:
        os.close(read)
        try:
            answer = {"result": work()}
        except BaseException as error:
            answer = {"error": f"{type(error).__name__}: {error}"}
        with os.fdopen(write, "w") as stream:
            json.dump(answer, stream)
        os._exit(0)
    os.close(write)
    with os.fdopen(read) as stream:
        text = stream.read()
    os.waitpid(child, 0)
    return json.loads(text) if text else None


def killed_at(step, folder, work):
    """Do `work`, and be killed right before its `step`-th step in `folder`; steps count from 0."""
    left = [step]

    def die():
        if not left[0]:
            os.kill(os.getpid(), signal.SIGKILL)
        left[0] -= 1

    def watch(event, args):
        # An audit hook must not fail: paths may be descriptors.
        with contextlib.suppress(TypeError, ValueError):
            if event in _STEPS and str(folder) in os.fsdecode(args[0]):
                die()

    fsync = os.fsync

    def counted(descriptor):
        die()
        fsync(descriptor)
        die()

    os.fsync = counted
    sys.addaudithook(watch)
    return work()


def report(folder, operation):
    base, scratch = folder / "base", folder / "scratch"
    base.mkdir(parents=True)
    before = {"result": {}}
    if operation != "open":
        assert "error" not in forked(lambda: fill(base))
        before = forked(lambda: state(base))
    shutil.copytree(base, scratch)
    forked(lambda: operate(scratch, operation))
    after = forked(lambda: state(scratch))
    found = []
    while True:
        shutil.rmtree(scratch)
        shutil.copytree(base, scratch)
        done = forked(lambda: killed_at(len(found), scratch, lambda: operate(scratch, operation)))
        if done is not None:
            return {"before": before, "after": after, "found": found, "last": done}
        # Twice: opening finishes what was cut, and must not change it again.
        found.append([forked(lambda: state(scratch)), forked(lambda: state(scratch))])


folder = Path(sys.argv[1])
json.dump({operation: report(folder / operation, operation) for operation in sys.argv[2:]}, sys.stdout)
