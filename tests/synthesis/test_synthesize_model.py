"""The language model's path, against the loopback server."""

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from llm_server import LLMServer

from hins_memory.config import Settings
from hins_memory.database.engine import open_database
from hins_memory.encoders.encoder import Encoder
from hins_memory.errors import ConfigError
from hins_memory.llm import ChatClient, LlmError, LlmSettings
from hins_memory.log.reader import LogReader
from hins_memory.log.writer import LogWriter
from hins_memory.synthesis import Conversation, Exclusion, ModelSettings, converse_by_model
from hins_memory.synthesis.run import write_conversations
from hins_memory.types import SYNTHETIC_TENANT, Scope

PARALLEL = "hins_memory.synthesis.model.model._PARALLEL"
SMALL = ModelSettings(personas=3, conversations=4)


@pytest.fixture(autouse=True)
def two_sittings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hins_memory.synthesis.model.model._SESSIONS", 2)


GOODS = ("teapots", "kites", "clocks", "boots", "drums", "lamps", "bells", "maps", "ropes", "jars")


def persona(prompt: str) -> dict[str, object]:
    number = int(re.search(r"number (\d+)", prompt)[1])  # type: ignore[index]
    thing = GOODS[number % len(GOODS)]
    return {
        "facts": [f"I collect old {thing}.", f"{thing}-{number} shelves", f"{thing} {number}{number} rent {thing}s"]
    }


def life(prompt: str) -> dict[str, object]:
    events = [{"session": 1, "text": "finds a rare piece at a market"}, {"session": 2, "text": "sells the whole lot"}]
    return {"topics": ["collecting", "money"], "first": events, "second": events}


def sitting(prompt: str) -> dict[str, object]:
    number = re.search(r"sitting (\d+)", prompt)[1]  # type: ignore[index]
    goods = re.findall(r"I collect old (\w+)\.", prompt)
    lines = [f"I found {goods[0]} in week {number}.", f"I sold my {goods[1]} in week {number}."]
    lines += ["Why so?", "Money 💸 缺钱."]
    return {"turns": [{"speaker": place % 2 + 1, "text": text} for place, text in enumerate(lines)]}


def memories(prompt: str) -> dict[str, object]:
    rows = re.findall(r"\[(\d+)\] (\w+): (.*)", prompt)
    found = [{"speaker": 1, "text": f"{rows[0][1]} found goods", "turns": [int(rows[0][0])]}]
    found.append({"speaker": 2, "text": f"{rows[1][1]} sold goods", "turns": [int(rows[1][0]), 999]})
    return {"memories": [*found, {"speaker": 2, "text": "made of a turn that is not there", "turns": [999]}]}


def asked(prompt: str) -> dict[str, object]:
    rows = re.findall(r"\[(\d+)\] (\w+): (.*)", prompt)
    kinds = ("single-hop", "multi-hop", "temporal", "open", "preference")
    questions = [
        {
            "question": f"What did {rows[0][1]} find, {kind}?",
            "kind": kind,
            "answer": "goods",
            "evidence": [0, 5][: 1 + (kind == "multi-hop")],
        }
        for kind in kinds
    ]
    return {
        "questions": [*questions, {"question": "Who said nothing?", "kind": "open", "answer": "-", "evidence": [2]}]
    }


RULES: dict[str, Callable[[str], dict[str, object]]] = {
    "Invent an everyday person": persona,
    "They will talk in": life,
    "of their long friendship": sitting,
    "Extract what a personal": memories,
    "Write questions that": asked,
}


def written(
    server: LLMServer, settings: ModelSettings = SMALL, **options: object
) -> tuple[list[Conversation], list[str]]:
    failures: list[str] = []
    llm = {name: options.pop(name) for name in list(options) if name in ("cache", "max_total_tokens", "tries")}
    with ChatClient(LlmSettings("loopback", server.base_url, **llm)) as client:  # type: ignore[arg-type]
        found = list(converse_by_model(client, settings, failed=lambda e: failures.append(str(e)), **options))  # type: ignore[arg-type]
    return found, failures


def test_conversations_have_memories_and_questions_of_five_kinds() -> None:
    with LLMServer(RULES) as server:
        made, failures = written(server)
    assert not failures
    assert len(made) == 4
    for one in made:
        assert [item.turns for item in one.items] == [(0,), (1,), (4,), (5,)]
        assert {query.kind for query in one.queries} == {"single-hop", "multi-hop", "temporal", "open", "preference"}
        by_kind = {query.kind: query for query in one.queries}
        assert by_kind["single-hop"].items == (0,)
        assert by_kind["multi-hop"].items == (0, 3)
        assert by_kind["open"].answer == "goods"
        # The question whose evidence no memory holds is left out.
        assert len(one.queries) == 5


def test_a_second_run_asks_nothing_and_gives_the_same(tmp_path: Path) -> None:
    with LLMServer(RULES) as server:
        first, _ = written(server, cache=tmp_path)
        asked_for = len(server.requests)
        second, _ = written(server, cache=tmp_path)
        assert len(server.requests) == asked_for
    assert [one.id for one in first] == [one.id for one in second]


def test_a_budget_stops_and_the_next_run_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(PARALLEL, 1)
    with LLMServer(RULES) as server:
        limited = replace(SMALL, max_requests=11)
        some, failures = written(server, limited, cache=tmp_path)
        assert len(server.requests) == 11
        assert len(some) == 1
        assert "11 requests" in failures[0]
        rest, failures = written(server, SMALL, cache=tmp_path)
        assert not failures
        # 3 personas; for each conversation its plan, 2 sittings, 2 extractions, questions
        assert len(server.requests) == 3 + 4 * 6
    assert rest[0] == some[0]


def test_a_reply_that_does_not_validate_is_repaired() -> None:
    spoiled: list[str] = []

    def once(prompt: str) -> object:
        if not spoiled:
            spoiled.append(prompt)
            return {"turns": []}
        return sitting(prompt)

    with LLMServer({**RULES, "of their long friendship": once}) as server:
        made, failures = written(server)
        assert not failures
        assert len(made) == 4
        assert len(server.requests) == 3 + 4 * 6 + 1


def test_what_fails_costs_its_own_conversation_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(PARALLEL, 1)
    seen: list[str] = []

    def never(prompt: str) -> object:
        speaker = re.search(r"\[0\] (\w+):", prompt)[1]  # type: ignore[index]
        seen.append(speaker)
        return "no JSON at all" if speaker == seen[0] else asked(prompt)

    with LLMServer({**RULES, "Write questions that": never}) as server:
        made, failures = written(server)
    assert len(made) == 4 - len(failures)
    assert failures
    assert "Questions" in failures[0]


def test_an_endpoint_that_refuses_ends_the_run() -> None:
    with LLMServer(RULES, status=401) as server, pytest.raises(LlmError, match="401"):
        written(server)


def test_excluded_names_and_wordings_are_left_out() -> None:
    with LLMServer(RULES) as server:
        made, _ = written(server, exclusion=Exclusion.of([], ["sold"]))
    for one in made:
        assert not any("sold" in text.text for text in (*one.turns, *one.items))
        assert [item.turns for item in one.items] == [(0,), (3,)]


@pytest.mark.slow
def test_given_personas_come_first_and_alike_ones_once() -> None:
    given = [["I sing in a choir every Monday."], ["I sing in a choir every Monday!"], ["My goats won a prize."]]
    with LLMServer(RULES) as server:
        written(server, ModelSettings(personas=2, conversations=1), given=given)
        prompts = [request["messages"][-1]["content"] for request in server.requests]
    assert not any("Invent" in prompt for prompt in prompts)
    assert "choir" in prompts[0]
    assert "goats" in prompts[0]
    with pytest.raises(ConfigError, match="personas"):
        ModelSettings(personas=1)


def test_the_log_has_turns_answers_and_feedback(settings: Settings, tiny_folder: Path) -> None:
    engine = open_database(settings.database_url)
    with LLMServer(RULES) as server:
        made, _ = written(server)
    owner = Scope(user="owner", tenant=SYNTHETIC_TENANT)
    write_conversations(((owner, one) for one in made), Encoder.load(tiny_folder), LogWriter(engine).write)
    (log,) = LogReader(engine).scope_logs()
    assert len(log.retrievals) == len(log.answers) == 4 * 5
    assert len(log.feedback) == 4 * 6
    assert {memory.turn_ids for memory in log.memories} <= {(turn.id,) for turn in log.turns}
    assert json.dumps([turn.text for turn in log.turns], ensure_ascii=False).count("💸 缺钱") == 8
