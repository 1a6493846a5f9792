"""The least that an adapter does: record what a notebook stores and finds. Swaps can come later."""

from hins_memory.config import Settings
from hins_memory.sdk import Recorder, join_capture
from hins_memory.types import Memory, RankedMemory, Retrieval, Scope


def record_use(notebook):
    """Make a notebook record its use; answers are recorded with the recorder that is returned."""
    recorder = Recorder(join_capture(Settings(), notebook))
    scope = Scope.of(user=notebook.owner)
    add, search = notebook.add, notebook.search

    def recorded_add(text, page=""):
        note = add(text, page)
        recorder.record(Memory(note, scope, page, text))
        return note

    def recorded_search(query, limit=5):
        found = search(query, limit)
        results = tuple(RankedMemory(*row) for row in found)
        recorder.retrieved(Retrieval(scope, query, results))
        return found

    notebook.add, notebook.search = recorded_add, recorded_search
    return recorder
