"""hins-memory for Notebook: records what is noted, searched and answered, and lets the encoder be swapped."""

from hins_memory.plugins.protocols import Record
from hins_memory.registry import EncoderSource, Registry
from hins_memory.sdk import AdapterPlugin, Binding, Recorder, StoreAgent, WriteTracker, join_capture, leave_capture
from hins_memory.types import Memory, RankedMemory, Retrieval, Scope, new_id
from notebook import Notebook, Table


class NoteIndex:
    """The notes with the vectors of one encoder, in a table of their own."""

    kind = "notes"

    def __init__(self, notebook, suffix):
        self.table = Table(notebook.db, f"hins_notes{suffix}")
        self.name = self.table.name
        self.writes = WriteTracker(self.name)

    def record_id(self, id_):
        return str(id_)

    def count(self):
        return len(self.table.ids())

    def pages(self, size):
        ids = self.table.ids()
        for start in range(0, len(ids), size):
            yield self.get(ids[start : start + size])

    def get(self, ids):
        return [Record(id_, text, {}) for id_, text, _ in self.table.rows(ids)]

    def vectors(self, ids):
        return {id_: vector for id_, _, vector in self.table.rows(ids)}

    def upsert(self, records, vectors):
        self.table.put((record.id, record.text, vector) for record, vector in zip(records, vectors, strict=True))

    def delete(self, ids):
        self.table.delete(ids)

    def clear(self):
        self.table.delete(self.table.ids())

    def drop(self):
        self.table.drop()


class NotebookAgent(StoreAgent[Binding]):
    """One notebook. Every operation is pinned to one encoder and its table, whatever is swapped meanwhile."""

    name = "notebook"

    def __init__(self, notebook, settings, capture):
        super().__init__(f"notebook:{notebook.path}", EncoderSource(Registry(settings)))
        self.notebook = notebook
        self.settings = settings
        self.scope = Scope.of(user=notebook.owner)
        self.recorder = Recorder(join_capture(settings, self) if capture else None)
        self.serve_recorded()

    def bind(self, version, suffix):
        return Binding(self.encoders.by_version(version), version, suffix, (NoteIndex(self.notebook, suffix),))

    def add(self, text, page=""):
        id_ = new_id()
        with self.pin() as binding:
            (index,) = binding.indexes()
            with index.writes.tracked([id_]):
                index.table.put([(id_, text, binding.encoder.encode([text], role="document")[0])])
        self.recorder.record(Memory(id_, self.scope, page, text))
        return id_

    def search(self, query, limit=5):
        with self.pin(self.scope) as binding:
            (index,) = binding.indexes()
            found = index.table.nearest(binding.encoder.encode([query], role="query")[0], limit)
        results = tuple(RankedMemory(*row) for row in found)
        self.recorder.retrieved(Retrieval(self.scope, query, results, binding.version))
        return found


class NotebookPlugin(AdapterPlugin):
    """What `hins_memory.attach(notebook)`, `detach` and the pipeline call."""

    name = "notebook"

    def is_ours(self, memory):
        return isinstance(memory, Notebook)

    def attach(self, memory, options):
        memory.hins = NotebookAgent(memory, options.resolved_settings, options.capture)
        memory.add, memory.search = memory.hins.add, memory.hins.search
        return memory

    def detach(self, memory):
        leave_capture(memory.hins.settings, memory.hins)
        del memory.add, memory.search, memory.hins
        return memory

    def agent_of(self, memory):
        return getattr(memory, "hins", None)


plugin = NotebookPlugin()
