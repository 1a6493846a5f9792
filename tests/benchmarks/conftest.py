"""Makes the benchmark scripts importable, and writes a tiny file in LoCoMo's format (its content is our own)."""

import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
sys.path.insert(0, str(BENCHMARKS))

# six sessions of lines: speaker and text, and mostly a fact, a question and its answer
SESSIONS = json.loads((Path(__file__).parent / "tiny_sessions.json").read_text(encoding="utf-8"))


def _sample(name: str, people: tuple[str, str]) -> dict:
    """Return one conversation of six sessions; the names change the content from sample to sample."""
    talk: dict = {"speaker_a": people[0], "speaker_b": people[1]}
    observation: dict = {}
    questions: list[dict] = []
    for session, lines in enumerate(SESSIONS, start=1):
        turns, facts = [], {}
        for number, original in enumerate(lines, start=1):
            line = {key: _rename(value, people) for key, value in original.items()}
            turn = {"speaker": line["speaker"], "dia_id": f"D{session}:{number}", "text": line["text"]}
            turns.append(turn)
            if "fact" in line:
                facts.setdefault(line["speaker"], []).append([line["fact"], turn["dia_id"]])
                row = {"question": line["question"], "answer": line["answer"], "category": 1 + number % 4}
                questions.append(row | {"evidence": [turn["dia_id"]]})
        talk[f"session_{session}"] = turns
        talk[f"session_{session}_date_time"] = f"1:56 pm on {session} May, 2023"
        observation[f"session_{session}_observation"] = facts
    talk["session_2"][2]["blip_caption"] = "a photo of a tower clock"
    trap = {"question": _rename("Which tree did Bram plant?", people), "category": 5, "evidence": ["D1:1"]}
    questions.append(trap | {"adversarial_answer": "A quince tree"})
    return {"sample_id": name, "conversation": talk, "observation": observation, "qa": questions}


def _rename(text: str, people: tuple[str, str]) -> str:
    return text.replace("Ilse", people[0]).replace("Bram", people[1])


@pytest.fixture(autouse=True)
def _few_packaged_texts(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the general set and of the public texts a part: each run would embed 1,200 texts that no test is about."""
    if request.node.get_closest_marker("slow") is None:
        return
    import hins_memory.training.auxiliary_data as auxiliary
    from hins_memory.loop import pipeline
    from parts.training import modes, towers

    whole, texts = auxiliary.load_general, pipeline.public_texts()[:120]

    def part(half=None):
        found = whole(half)
        queries = found.queries[:40]
        names = {name for query in queries for name in query.relevant}
        return replace(found, documents={name: found.documents[name] for name in names}, queries=queries)

    for module in (auxiliary, modes):
        monkeypatch.setattr(module, "load_general", part)
    for module in (pipeline, modes, towers):
        monkeypatch.setattr(module, "public_texts", lambda: texts)


@pytest.fixture
def shallow_starter(shallow_stock: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stock is the shallow encoder, and the starter the same with its weights shaken: the delta has its own tests."""
    import torch

    def shaken(model, *_):
        generator = torch.Generator().manual_seed(0)
        with torch.no_grad():
            for weights in model.parameters():
                weights.add_(0.05 * torch.randn(weights.shape, generator=generator))
        return model

    monkeypatch.setattr("hins_memory.encoders.encoder.merge_delta", shaken)


@pytest.fixture
def tiny_samples() -> list[dict]:
    """Four conversations of six sessions, as the JSON of a file in LoCoMo's format."""
    people = [("Ilse", "Bram"), ("Noor", "Teun"), ("Wiebe", "Fenna"), ("Sjoerd", "Hylke")]
    return [_sample(f"tiny-{number}", pair) for number, pair in enumerate(people, start=1)]


@pytest.fixture
def tiny_file(tiny_samples: list[dict], tmp_path: Path) -> Path:
    path = tmp_path / "tiny.json"
    path.write_text(json.dumps(tiny_samples, ensure_ascii=False), encoding="utf-8")
    return path
