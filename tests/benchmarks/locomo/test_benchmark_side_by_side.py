"""Encoders side by side through a real Mem0 and a loopback language model; what a second run asks and plays again."""

import json
import logging
from datetime import date

import locomo
import pytest
from llm_server import LLMServer, Raw
from stand_in import RULES

from hins_memory.encoders.encoder import Encoder
from hins_memory.evaluation import evaluate_encoder, score_rankings
from hins_memory.llm import ChatClient, LlmSettings
from parts.agents.alone import AlonePlayer
from parts.agents.llm_proxy import LlmProxy
from parts.agents.mem0_extraction import _chunks
from parts.datasets.locomo import eval_set, load_locomo, relevant
from parts.locomo.side_by_side import shown

pytest.importorskip("nltk")


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("HINS_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture
def small_file(tiny_samples, tmp_path):
    """Two conversations of two sessions with 11 questions each; one of category 5."""
    for sample in tiny_samples[:2]:
        for session in (3, 4, 5, 6):
            del sample["conversation"][f"session_{session}"]
        sample["qa"] = [*sample["qa"][:10], sample["qa"][-1]]
    path = tmp_path / "small.json"
    path.write_text(json.dumps(tiny_samples[:2]), encoding="utf-8")
    return path


def run(tmp_path, *argv):
    result = tmp_path / "result.json"
    assert locomo.main([*argv, "--json", str(result)]) == 0
    return json.loads(result.read_text(encoding="utf-8"))


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--encoders", "stock,stock"], "twice"),
        (["--encoders", "stock,"], "or none"),
        (["--encoders", "stock,bm25"], "use --agent none"),
        (["--encoders", "stock", "--protocol", "stock"], "replace"),
        (["--reader", "extractive", "--save-encoder", "x"], "replace"),
        (["--report", "x.html"], "need --encoders"),
        (["--encoders", "stock", "--judge", "gpt"], "needs --reader"),
        (["--encoders", "stock", "--infer", "--memories", "facts"], "--infer is for Mem0"),
        (["--encoders", "stock", "--infer-turns", "0"], "at least 1"),
        (["--agent", "memoryos", "--encoders", "stock"], "needs --llm-url or --base-url"),
    ],
)
def test_arguments_that_contradict_each_other_are_refused(argv, message, capsys):
    with pytest.raises(SystemExit):
        locomo.main(argv)
    assert message in capsys.readouterr().err


@pytest.mark.slow
def test_a_second_run_plays_and_asks_nothing_and_says_the_same(small_file, tiny_folder, home, tmp_path):
    page = tmp_path / "page.html"
    argv = ["--data", str(small_file), "--encoders", f"stock,{tiny_folder}", "--reader", "openai:m", "--judge", "m"]
    rules = {"Noor, do you": Raw(b'{"choices": [{"mess')} | RULES
    with LLMServer(rules) as server:
        argv += ["--base-url", server.base_url, "--tries", "2", "--price", "m=1,2", "--report", str(page)]
        first = run(tmp_path, *argv)
        asked = len(server.requests)
        again = run(tmp_path, *argv)
        assert len(server.requests) == asked
        figures = first["figures"]
        assert figures["stock_ndcg10"] > figures[f"{tiny_folder}_ndcg10"]
        assert 0 < figures["stock_official_f1"] < 100
        assert figures["stock_abstained"] == 0.0
        assert figures["cost"] > 0
        assert again["figures"]["cost"] == 0.0
        assert again["figures"]["full_cost"] == pytest.approx(figures["full_cost"])
        same = {name: value for name, value in figures.items() if "cost" not in name}
        assert {name: value for name, value in again["figures"].items() if "cost" not in name} == same
        # played and asked again from nothing, the same seed gives the same figures
        fresh = run(tmp_path, *argv, "--fresh", "--cache", str(tmp_path / "elsewhere"))["figures"]
        assert {name: value for name, value in fresh.items() if "cost" not in name} == pytest.approx(same)
        assert fresh["cost"] == pytest.approx(figures["cost"])
    assert "Won by" in page.read_text(encoding="utf-8")
    tokens = [row for row in first["rows"] if "prompt_tokens" in row]
    assert [row["encoder"] for row in tokens] == ["stock", str(tiny_folder)]
    assert first["settings"]["mem0_sentences"] in ("punkt", "abbreviations")


@pytest.mark.slow
def test_a_question_that_the_provider_spoils_is_counted_and_asked_again_later(small_file, home, tmp_path):
    spoilt = json.loads(small_file.read_text(encoding="utf-8"))[0]["qa"][2]["question"]
    argv = ["--data", str(small_file), "--reader", "openai:m"]
    with LLMServer({spoilt: Raw(b"<html>", status=200)} | RULES) as server:
        argv += ["--base-url", server.base_url, "--tries", "2"]
        figures = run(tmp_path, *argv)["figures"]
        assert figures["stock_failed"] == 1.0
        asked = len(server.requests)
        server.replies = dict(RULES)
        mended = run(tmp_path, *argv)["figures"]
        assert len(server.requests) == asked + 1
        assert mended["stock_failed"] == 0.0
        assert mended["stock_official_f1"] >= figures["stock_official_f1"]


@pytest.mark.slow
def test_memories_that_the_agent_extracts_carry_their_evidence(small_file, home, tmp_path, caplog):
    sample = json.loads(small_file.read_text(encoding="utf-8"))[:1]
    talk = sample[0]["conversation"]
    sample[0]["qa"] = sample[0]["qa"][:6]
    small_file.write_text(json.dumps(sample), encoding="utf-8")
    lost = talk["session_1"][2]["text"]
    argv = ["--data", str(small_file), "--encoders", "stock", "--infer", "--llm-model", "m"]
    with LLMServer({lost: "no JSON at all"} | RULES) as server, caplog.at_level(logging.CRITICAL):
        argv += ["--base-url", server.base_url, "--tries", "1"]
        spoilt = run(tmp_path, *argv)
        assert spoilt["figures"]["stock_lost"] == 1.0
        server.replies = dict(RULES)
        found = run(tmp_path, *argv)
        assert "stock_lost" not in found["figures"]
        # a question whose evidence was lost counts as not found
        assert [row["rows"][0]["questions"] for row in (spoilt, found)] == [6, 6]
        assert found["figures"]["stock_recall10"] > spoilt["figures"]["stock_recall10"]
        assert found["figures"]["stock_recall10"] > 80
        asked = len(server.requests)
        assert run(tmp_path, *argv)["figures"]["stock_recall10"] == found["figures"]["stock_recall10"]
        assert len(server.requests) == asked
        prompts = [str(body["messages"]) for body in server.requests if "## New Messages" in str(body["messages"])]
    # Mem0 is told the day of the session, not today
    assert any("## Observation Date\\n2023-05-02\\n" in prompt for prompt in prompts)
    assert not any(f"## Current Date\\n{date.today()}" in prompt for prompt in prompts)


def test_a_proxy_keeps_replies_dates_prompts_and_stops_on_refusal(tmp_path):
    import openai

    with LLMServer(default="{}") as server:
        client = ChatClient(LlmSettings("real", server.base_url, "key", cache=tmp_path, tries=1))
        with LlmProxy(client) as proxy:
            agent = openai.OpenAI(api_key="none", base_url=proxy.base_url, max_retries=0)
            proxy.day = date(2023, 5, 8)
            text = "## Observation Date\n2031-01-01\n## Current Date\n2031-01-01"
            for day in ("2031-01-01", "2031-01-02"):
                asked = [{"role": "user", "content": text.replace("2031-01-01", day)}]
                reply = agent.chat.completions.create(model="agents-own", messages=asked, temperature=0.1)
                assert reply.choices[0].message.content == "{}"
            [body] = server.requests
            assert body["model"] == "real"
            assert body["temperature"] == 0.1
            assert body["messages"][0]["content"].count("2023-05-08") == 2
            server.status = 500
            with pytest.raises(openai.BadRequestError, match="did not answer"):
                agent.chat.completions.create(model="x", messages=[{"role": "user", "content": "new"}])
            assert proxy.stopped is None
            server.status = 401
            with pytest.raises(openai.BadRequestError):
                agent.chat.completions.create(model="x", messages=[{"role": "user", "content": "new"}])
            assert proxy.stopped is not None
            assert proxy.stopped.refused


def test_what_a_reader_is_shown_has_its_time_and_the_speakers(tiny_file):
    from parts.agents.memoryos import paged
    from parts.datasets.locomo import documents

    conversation = load_locomo(tiny_file)[0]
    turns = shown(conversation, documents(conversation, "turns"))
    assert turns["D1:2"] == "[1 May 2023, 13:56] Bram: Nice! My lemon tree on the balcony froze in January."
    pages = shown(conversation, documents(paged(conversation), "facts"))
    assert all(text.startswith("[") and "User: " not in text for text in pages.values())
    assert "Ilse: " in pages["P1"]
    assert "Bram: " in pages["P1"]


def test_turns_are_extracted_a_few_at_a_time_within_a_session(tiny_file):
    turns = load_locomo(tiny_file)[0].turns
    chunks = list(_chunks(turns, 4))
    assert [turn for chunk in chunks for turn in chunk] == list(turns)
    assert all(len({turn.session for turn in chunk}) == 1 and len(chunk) <= 4 for chunk in chunks)


@pytest.mark.slow
def test_the_packaged_sample_is_a_data_set_too(home, tmp_path):
    found = run(tmp_path, "--data", "sample", "--encoders", "stock", "--quick")
    assert found["figures"]["stock_recall10"] > 30
    assert "stock_official_f1" not in found["figures"]


@pytest.mark.slow
def test_encoders_and_bm25_stand_side_by_side_without_an_agent(small_file, shallow_folder, home, tmp_path):
    argv = ["--agent", "none", "--data", str(small_file), "--encoders", f"{shallow_folder},bm25"]
    first = run(tmp_path, *argv)
    rows = {row["encoder"]: row for row in first["rows"] if row.get("slice") == "categories 1-4"}
    # the tiny questions repeat the words of their evidence
    assert rows["bm25"]["recall5"] > 50
    assert rows["bm25"]["ndcg10"] == pytest.approx(first["figures"]["bm25_ndcg10"])
    assert first["figures"]["bm25_ndcg10_gain_ci_low"] < first["figures"]["bm25_ndcg10_gain"]
    # the encoder's ranking is the one that the agent's own report calls "alone"
    (conversation, *_) = load_locomo(small_file)
    scores = evaluate_encoder(Encoder.load(shallow_folder), [eval_set(conversation, "turns")])
    found = AlonePlayer(Encoder.load(shallow_folder), "turns").play(conversation)
    asked = [ids for ids, gold in zip(found, relevant(conversation, "turns"), strict=True) if gold]
    same = score_rankings([eval_set(conversation, "turns")], asked)
    assert same.ndcg[10] == pytest.approx(scores.ndcg[10])
