"""Readers: a language model on loopback, a tiny question-answering model, and what a run does when they fail."""

import argparse
import itertools
import json
import multiprocessing
import os
import threading

import numpy as np
import pytest
from llm_server import LLMServer, Raw
from waiting import until

from hins_memory.encoders.encoder import resolve_model
from hins_memory.errors import ConfigError
from hins_memory.llm import ChatClient, LlmError, LlmSettings, ReplyCache
from parts.datasets.locomo import Question
from parts.qa.extractive import ExtractiveReader, _best_of_window
from parts.qa.judge import AnswerJudge
from parts.qa.models import Models
from parts.qa.readers import NO_INFORMATION, ChatReader, Reading, failures, read_all

TASKS = [(f"Question {number}?", [f"[1 May 2023, 13:56] Ann: fact {number}"]) for number in range(20)]


def client_of(server, **options):
    return ChatClient(LlmSettings("loopback", server.base_url, "key", tries=2, **options))


def options(*argv):
    parser = argparse.ArgumentParser()
    Models.add_arguments(parser)
    return parser.parse_args([*argv])


def test_a_language_model_is_shown_the_memories_and_asked():
    with LLMServer({"fact 3": " The cello. "}) as server, client_of(server) as client:
        assert ChatReader(client).read(*TASKS[3]) == "The cello."
        prompt = server.requests[0]["messages"]
        assert NO_INFORMATION in prompt[0]["content"]
        assert "1. [1 May 2023, 13:56] Ann: fact 3" in prompt[1]["content"]
        ChatReader(client).read("q" * 100_000, ["m" * 100_000] * 20)
        assert len(server.requests[1]["messages"][1]["content"]) < 90_000
        ChatReader(client).read("船 🚲?", [])
        assert "(none)" in server.requests[2]["messages"][1]["content"]


def test_eight_questions_are_asked_at_once_and_failures_cost_themselves_only():
    busy, most, eight = [], [], threading.Event()

    def answer(prompt):
        busy.append(1)
        most.append(len(busy))
        # the first ones are answered when as many as may be are asked at once
        if len(busy) == 8:
            eight.set()
        assert eight.wait(60)
        busy.pop()
        return Raw(b'{"choices": [{"mess') if "fact 7" in prompt or "fact 11" in prompt else "An answer."

    with LLMServer(default=answer) as server, client_of(server) as client:
        readings = read_all(ChatReader(client, workers=8), TASKS)
    assert [number for number, one in enumerate(readings) if one.failure] == [7, 11]
    assert all(one.text == "An answer." for number, one in enumerate(readings) if number not in (7, 11))
    assert failures(readings) == {"no answer": 2}
    assert max(most) == 8


def test_a_wrong_key_stops_the_run():
    with LLMServer(status=401) as server, client_of(server) as client:
        with pytest.raises(LlmError, match="401"):
            read_all(ChatReader(client, workers=2), TASKS)
        assert len(server.requests) < len(TASKS)


@pytest.mark.slow
def test_a_spent_budget_is_counted_and_a_second_run_goes_on(tmp_path):
    with LLMServer(default="An answer.") as server:
        with client_of(server, cache=tmp_path) as client:
            ChatReader(client).read(*TASKS[0])
        # the server counts two tokens a question: room for one more request, and ten tokens
        room = len(json.dumps(server.requests[0])) // 4 + 256 + 10
        with client_of(server, cache=tmp_path, max_total_tokens=room) as client:
            readings = read_all(ChatReader(client, workers=1), TASKS)
            missing = failures(readings)["budget"]
            assert 0 < missing < len(TASKS)
        with client_of(server, cache=tmp_path) as client:
            assert not failures(read_all(ChatReader(client, workers=8), TASKS))
            assert client.usage.requests == missing
        assert len(server.requests) == len(TASKS)


def _read_slowly(base_url, cache):
    client = ChatClient(LlmSettings("loopback", base_url, "key", cache=cache))
    read_all(ChatReader(client, workers=4), TASKS)
    os._exit(0)


@pytest.mark.slow
def test_a_killed_run_goes_on_where_it_was(tmp_path):
    asked, killed = itertools.count(), threading.Event()

    def slow(prompt):
        # eight are answered; those that the four workers ask next are under way at the kill
        assert next(asked) < 8 or killed.wait(60)
        return "An answer."

    with LLMServer(default=slow) as server:
        run = multiprocessing.get_context("fork").Process(target=_read_slowly, args=(server.base_url, tmp_path))
        run.start()
        until(lambda: len(server.requests) == 8 + 4)
        run.kill()
        run.join()
        killed.set()
        before = len(server.requests)
        assert before < len(TASKS)
        with client_of(server, cache=tmp_path) as client:
            assert not failures(read_all(ChatReader(client), TASKS))
            # what was under way when it was killed is asked once more
            assert len(TASKS) <= before + client.usage.requests <= len(TASKS) + 4
            assert client.usage.cached > 0


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """A folder with a tiny question-answering model, and one with a model for something else."""
    import torch
    from transformers import AutoTokenizer, BertConfig, BertForQuestionAnswering, BertModel

    torch.manual_seed(0)
    tokenizer = AutoTokenizer.from_pretrained(resolve_model("stock"))
    config = BertConfig(
        vocab_size=len(tokenizer), hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32
    )
    found = {}
    for name, model in (("qa", BertForQuestionAnswering(config)), ("other", BertModel(config))):
        found[name] = str(tmp_path_factory.mktemp(name))
        model.save_pretrained(found[name])
        tokenizer.save_pretrained(found[name])
    return found


def test_an_extractive_reader_takes_a_span_of_the_memories_and_keeps_it(models, tmp_path):
    reader = ExtractiveReader(models["qa"], ReplyCache(tmp_path))
    with_bias = reader._model.qa_outputs
    memories = [f"[1 May 2023] Ann: fact number {number} is about the cello." for number in range(40)]
    text = "\n".join(memories)
    answer = reader.read("What does Ann play?", memories)
    assert answer == NO_INFORMATION or answer in text
    assert (tmp_path / "cache.db").exists()
    # with other weights the same question would have another answer, if it were not kept
    before = with_bias.weight.data.clone()
    with_bias.weight.data.mul_(-3)
    assert reader.read("What does Ann play?", memories) == answer
    with_bias.weight.data.copy_(before)
    assert ExtractiveReader(models["qa"]).read("What does Ann play?", memories) == answer


def test_an_extractive_reader_knows_when_there_is_no_answer(models):
    import torch

    reader = ExtractiveReader(models["qa"])
    cls = reader._tokenizer.cls_token_id
    embeddings = reader._model.bert.embeddings.word_embeddings.weight.data
    original = embeddings[cls].clone()
    answers = set()
    for scale in (-50.0, 50.0):
        # the first token stands for "no answer": moved far along the head's weights, it wins or loses for certain
        with torch.inference_mode():
            reader._model.qa_outputs.weight.data.fill_(0.0)
            reader._model.qa_outputs.weight.data[:, 0] = 1.0
            embeddings[cls] = original
            embeddings[cls][0] += scale
        answers.add(reader.read("What does Ann play?", ["Ann plays the cello."]))
    assert NO_INFORMATION in answers
    assert len(answers) == 2
    assert reader.read("What?", []) == NO_INFORMATION
    assert reader.read("What?", ["  "]) == NO_INFORMATION


def test_an_extractive_reader_takes_very_long_texts(models):
    reader = ExtractiveReader(models["qa"])
    answer = reader.read("why " * 5_000, ["船 🚲 sail " * 1_500])
    assert answer == NO_INFORMATION or answer in "船 🚲 sail " * 1_500


def test_only_question_answering_models_are_taken(models, tmp_path):
    with pytest.raises(ConfigError, match="lacks qa_outputs"):
        ExtractiveReader(models["other"])
    with pytest.raises(ConfigError, match="cannot be loaded"):
        ExtractiveReader(str(tmp_path / "absent"))


def test_the_best_span_is_forward_short_and_within_the_memories():
    starts, ends = np.zeros(40, dtype=np.float32), np.zeros(40, dtype=np.float32)
    inside = [False] * 5 + [True] * 35
    starts[2], starts[20], ends[10], ends[22] = 9.0, 5.0, 7.0, 4.0
    # 20-22 is 9; ending at 10 it would be backward, and 2 is outside
    assert _best_of_window(starts, ends, inside) == (9.0, 20, 22)
    starts[:], ends[:] = 0.0, 0.0
    starts[5], ends[39], ends[34] = 5.0, 9.0, 3.0
    # 5-39 has 35 tokens; the last token alone is 9
    score, first, last = _best_of_window(starts, ends, inside)
    assert score == 9.0
    assert last == 39
    assert last - first < 30


def test_readers_are_named_by_the_option(models, tmp_path, monkeypatch):
    monkeypatch.setenv("HINS_HOME", str(tmp_path))
    assert Models(options()).reader() is None
    assert Models(options("--reader", f"extractive:{models['qa']}")).reader().workers == 1
    with LLMServer(default="yes") as server:
        arguments = options("--reader", "openai:some-model", "--base-url", server.base_url, "--workers", "3")
        made = Models(arguments)
        assert (made.reader().name, made.reader().workers) == ("openai:some-model", 3)
        assert made.client("some-model") is made.client("some-model")
        assert len(server.requests) == 1
        made.close()
    assert next(iter(tmp_path.rglob("cache.db"))).is_relative_to(tmp_path / "benchmarks" / "replies")
    for wrong in ("openai", "openai:", "none:x", "gpt"):
        with pytest.raises(ConfigError, match="is not a reader"):
            Models(options("--reader", wrong)).reader()
    with pytest.raises(ConfigError, match="MODEL=IN,OUT"):
        Models(options("--price", "gpt=1")).client("gpt")
    with pytest.raises(LlmError, match="did not answer"):
        Models(options("--base-url", "http://127.0.0.1:9/v1", "--tries", "1")).client("gpt")


def test_prices_and_limits_reach_the_client():
    argv = ["--price", "a=1,2", "--price", "b=3,4.5", "--max-cost", "9"]
    with LLMServer(default="yes") as server:
        made = Models(options(*argv, "--base-url", server.base_url))
        settings = made.client("b").settings
    assert (settings.input_price, settings.output_price, settings.max_cost) == (3.0, 4.5, 9.0)
    assert made.usage()["b"].requests <= 1


def test_a_judge_scores_what_was_answered_and_counts_what_it_cannot():
    questions = [Question(f"Q{n}?", "The cello.", category, ()) for n, category in enumerate((4, 4, 1, 5, 2, 3))]
    readings = [Reading("cello"), Reading("oboe"), Reading("broken"), Reading("x"), Reading("", "late"), Reading("y")]
    replies = {"answer: cello": {"label": "CORRECT"}, "answer: oboe": {"label": "WRONG"}}
    replies |= {"answer: broken": '{"label": "COR', "answer: y": 'Well. {"label": "CORRECT"}'}
    with LLMServer(replies) as server, client_of(server) as client:
        judge = AnswerJudge(client)
        scores = judge.score_all(questions, readings)
        assert not any("Generated answer: x" in str(body) for body in server.requests)
    assert scores[[0, 1, 4, 5]].tolist() == [1.0, 0.0, 0.0, 1.0]
    assert np.isnan(scores[[2, 3]]).all()
    assert judge.failed == 1
