"""A framework that keeps vectors in its own files, on the kit alone: diaries, a JSON file for each user."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from hins_memory.config import Settings
from hins_memory.encoders.encoder import Encoder
from hins_memory.registry.loader import EncoderSource, TextEncoder
from hins_memory.registry.registry import EncoderVersion, Registry
from hins_memory.sdk import Binding, Entry, FlipLock, InPlaceAgent, VectorFiles, read_json, write_json
from hins_memory.swapping import swap_agent


class Letters:
    """The framework's own encoder: how often each letter occurs."""

    def encode(self, texts: Sequence[str], *, role: str = "document") -> NDArray[np.float32]:
        counts = np.array(
            [[text.lower().count(chr(97 + number)) for number in range(26)] for text in texts], np.float32
        )
        return counts / np.linalg.norm(counts, axis=1, keepdims=True)


class DiaryFiles(VectorFiles):
    framework = "Diary"
    kinds = ("notes",)

    def paths(self) -> list[Path]:
        return sorted(self.root.glob("*.json"))

    def entries_in(self, document: Mapping[str, Any]) -> Iterator[Entry]:
        yield from (Entry("notes", note["text"], note, "vector") for note in document.get("notes", []))


class Diary:
    """A user's notes, and what the agent keeps of them."""

    def __init__(self, agent: InPlaceAgent, user: str) -> None:
        self.agent = agent
        self.path = agent.files.root / f"{user}.json"
        self.binding: Binding = agent.own
        self.lock = FlipLock()
        self.notes: list[dict[str, Any]] = (read_json(self.path, dict) or {"notes": []})["notes"]
        agent.join([self])

    def entries(self) -> list[Entry]:
        return list(self.agent.files.entries_in({"notes": self.notes}))

    def add(self, text: str) -> None:
        self.agent.refresh_if_due()
        with self.lock.shared():
            self.notes.append({"text": text, "vector": self.binding.encoder.encode([text])[0].tolist()})
            write_json(self.path, self.agent.files.marked({"notes": self.notes}, self.binding.space))
        self.agent.copy_to_shadow(self)


def agent_on(root: Path, settings: Settings) -> InPlaceAgent:
    root.mkdir(exist_ok=True)
    agent = InPlaceAgent(f"diary:{root}", EncoderSource(Registry(settings)), DiaryFiles(root), Letters())
    agent.serve_live()
    return agent


def assert_made_by(encoder: TextEncoder, *holders: Any) -> None:
    """Every vector in diaries and files is what the encoder makes of its text."""
    entries = [entry for one in holders for entry in (one.entries() if isinstance(one, Diary) else one)]
    vectors = np.array([entry.vector for entry in entries], dtype=np.float32)
    assert np.allclose(vectors, encoder.encode([entry.text for entry in entries]), atol=1e-4)


def test_vectors_of_every_user_are_swapped_and_given_back(
    settings: Settings, tmp_path: Path, tiny_version: EncoderVersion
) -> None:
    agent, registry, tiny = (
        agent_on(tmp_path / "diaries", settings),
        Registry(settings),
        Encoder.load(tiny_version.path),
    )
    on_disk = Diary(agent, "cid")
    on_disk.add("Cid rows.")
    agent.leave([on_disk])
    ann, bob = Diary(agent, "ann"), Diary(agent, "bob")
    ann.add("Ann plays the cello.")
    registry.record_live(agent.store_id, "", "")

    def meanwhile(what: str, done: int, total: int) -> None:
        bob.add(f"Bob noted this during: {what}.")

    report = swap_agent(agent, tiny_version.id, tiny, registry, progress=meanwhile)
    assert report.indexes[0].kind == "notes"
    ann.add("Ann sold it.")
    assert len(bob.notes) >= 1
    assert_made_by(tiny, ann, bob, *(agent.files.entries(path) for path in agent.files.paths()))
    agent.release([ann])
    assert_made_by(Letters(), ann, agent.files.entries(ann.path))
    assert_made_by(tiny, bob)


def test_another_process_finishes_a_flip_that_was_cut_off(
    settings: Settings, tmp_path: Path, tiny_version: EncoderVersion, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, registry, tiny = tmp_path / "diaries", Registry(settings), Encoder.load(tiny_version.path)
    here, there = agent_on(root, settings), agent_on(root, settings)
    elsewhere = Diary(there, "bob")
    elsewhere.add("Bob grows basil.")
    registry.record_live(here.store_id, "", "")
    # The disk is full when the files are to be converted.
    monkeypatch.setattr(here.files, "write", lambda *_: (_ for _ in ()).throw(OSError("full")))
    swap_agent(here, tiny_version.id, tiny, registry)
    assert_made_by(Letters(), elsewhere, there.files.entries(elsewhere.path))
    there.refresh()
    assert there.encoder_version == tiny_version.id
    assert_made_by(tiny, elsewhere, there.files.entries(elsewhere.path))
    assert_made_by(tiny, Diary(agent_on(root, settings), "bob"))
