"""hins-memory for Notebook: records what is noted, searched and answered, and lets the encoder be swapped."""

from hins_memory.plugins import Record
from hins_memory.sdk import IndexBase, ObjectAgent, ObjectPlugin, OwnEncoder
from hins_memory.types import RankedMemory, Scope, new_id
from notebook import Notebook, Table


class NoteIndex(IndexBase):
    """A table of notes, as a swap sees it."""

    def __init__(self, table):
        super().__init__(table.name)
        self.table = table

    def ids(self):
        return self.table.ids()

    def get(self, ids):
        return [Record(id_, text, {}) for id_, text, _ in self.table.rows(ids)]

    def vectors(self, ids):
        return {id_: vector for id_, _, vector in self.table.rows(ids)}

    def upsert(self, records, vectors):
        self.table.put((record.id, record.text, vector) for record, vector in zip(records, vectors, strict=True))

    def delete(self, ids):
        self.table.delete(ids)

    def drop(self):
        self.table.drop()


class NotebookAgent(ObjectAgent):
    """What takes the place of a notebook's `add` and `search`: the same, by the encoder that serves, and recorded."""

    name = "notebook"

    def store_of(self, notebook):
        self.scope = Scope.of(user=notebook.owner)
        return f"notebook:{notebook.path}"

    def own(self):
        return OwnEncoder(self.memory.embed), NoteIndex(self.memory.notes)

    def index(self, suffix):
        return NoteIndex(Table(self.memory.db, f"hins_notes{suffix}"))

    def add(self, text, page=""):
        id_ = new_id()
        with self.pin() as binding, binding.index.writes.tracked([id_]):
            vectors = binding.encoder.encode([text], role="document")
            binding.index.upsert([Record(id_, text, {})], vectors)
        self.recorder.record_memory(self.scope, id_, page, text)
        return id_

    def search(self, query, limit=5):
        with self.pin(self.scope) as binding:
            (vector,) = binding.encoder.encode([query], role="query")
            found = binding.index.table.nearest(vector, limit)
        # Each with its owner: what is found of another one is not recorded.
        owned = [(self.scope, RankedMemory(*row)) for row in found]
        self.recorder.record_search(self.scope, query, owned, binding.version)
        return found


class NotebookPlugin(ObjectPlugin):
    """What `hins_memory.attach(notebook)`, `detach` and the pipeline call."""

    name = "notebook"
    memory_type, agent_type = Notebook, NotebookAgent


plugin = NotebookPlugin()
