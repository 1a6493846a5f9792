"""hins-memory for Notebook; hins_memory.plugins.protocols says what the methods of an index and of an agent are for."""

import threading

from hins_memory import Encoder, Settings
from hins_memory.log.capture import Capture
from hins_memory.plugins.hookspecs import hookimpl
from hins_memory.plugins.protocols import Record
from hins_memory.registry.registry import Registry
from hins_memory.types import Memory, RankedMemory, Retrieval, Scope, new_id
from notebook import Notebook, Table


class NoteIndex(Table):  # has count, delete and drop
    kind = "notes"

    def pages(self, size):
        return (self.get(ids[start : start + size]) for ids in [self.ids()] for start in range(0, len(ids), size))

    def get(self, ids):
        return [Record(id, text, {}) for id, text, _ in self.rows(ids)]

    def vectors(self, ids):
        return {id: vector for id, _, vector in self.rows(ids)}

    def upsert(self, records, vectors):
        self.put((record.id, record.text, vector) for record, vector in zip(records, vectors, strict=True))


class NotebookAgent:
    name, cutoffs = "notebook", ()
    encoder_version = property(lambda self: self.serving[0].version)

    def __init__(self, notebook, settings):
        self.key, self.lock, self.scope = f"notebook:{notebook.path}", threading.RLock(), Scope.of(user=notebook.path)
        self.registry, self.capture = Registry(settings), Capture(settings)
        self.open = lambda version, suffix: [NoteIndex(notebook.db, f"hins_notes{suffix}")]
        self.live, self.replicate_lock, self.drain = lambda: [self.serving[1]], lambda: self.lock, lambda: None
        live = self.registry.live_index(self.key)
        self.flip(live.version if live else "stock", live.suffix if live else "")
        notebook.add, notebook.search, notebook.hins = self.add, self.search, self

    def begin(self, version, suffix):
        paths = {one.id: one.path for one in self.registry.versions()}
        self.shadow = Encoder.load(paths.get(version, "stock")), *self.open(version, suffix)

    def flip(self, version, suffix):
        self.begin(version, suffix)
        self.serving, self.shadow = self.shadow, None
        return 0.0

    def abandon(self):
        self.shadow = None

    def add(self, text):
        id = new_id()
        with self.lock:
            for encoder, index in filter(None, (self.serving, self.shadow)):
                index.put([(id, text, encoder.encode([text])[0])])
        self.capture.record(Memory(id, self.scope, "notes", text))
        return id

    def search(self, query, limit=5):
        encoder, index = self.serving  # one encoder and its own table, whatever flips meanwhile
        found = index.nearest(encoder.encode([query], role="query")[0], limit)
        self.capture.record(Retrieval(self.scope, query, tuple(RankedMemory(*row) for row in found), encoder.version))
        return found


@hookimpl
def hins_attach(memory, options):
    if isinstance(memory, Notebook):
        NotebookAgent(memory, options.get("settings") or Settings())
        return memory


@hookimpl
def hins_agent(memory):
    return getattr(memory, "hins", None)
