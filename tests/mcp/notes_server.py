"""A memory server made with the MCP package: notes of people in this process, found by a shared word."""

from dataclasses import dataclass

from mcp.server import MCPServer

server = MCPServer("notes")
notes: dict[str, "Note"] = {}


@dataclass
class Note:
    id: str
    text: str
    about: str


@server.tool()
def add_note(text: str, about: str) -> Note:
    note = Note(f"note-{len(notes) + 1}", text, about)
    notes[note.id] = note
    return note


@server.tool()
def find_notes(query: str) -> list[Note]:
    words = set(query.lower().split())
    return [note for note in notes.values() if words & set(note.text.lower().split())]


@server.tool()
def delete_note(id: str) -> str:
    del notes[id]
    return "deleted"


if __name__ == "__main__":
    server.run()
