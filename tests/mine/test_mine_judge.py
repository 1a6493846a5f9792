"""Judges: a tiny cross-encoder, a language model on loopback, and what the miner makes of them."""

from dataclasses import replace

import pytest
from llm_server import LLMServer
from mine_logs import PUBLIC, sailor

from hins_memory.encoder import resolve_model
from hins_memory.errors import ConfigError, HinsError
from hins_memory.mine import CrossEncoderJudge, Judge, LlmJudge, MineSettings, mine
from hins_memory.types import Feedback


class WordJudge:
    """Finds a text relevant when it has a word; fails on queries that have another."""

    def __init__(self, word, fails=""):
        self.word, self.fails, self.judged = word, fails, []

    def relevant(self, query, texts):
        self.judged += texts
        if self.fails and self.fails in query:
            raise HinsError("This judge does not like the query.")
        return [0.9 if self.word in text else 0.1 for text in texts]


@pytest.fixture(scope="module")
def cross_encoder(tmp_path_factory):
    """A folder with a cross-encoder of one small layer, its weights random."""
    from sentence_transformers import CrossEncoder
    from transformers import AutoTokenizer, BertConfig, BertForSequenceClassification

    folder = tmp_path_factory.mktemp("judge")

    def make(labels):
        tokenizer = AutoTokenizer.from_pretrained(str(resolve_model("stock")))
        config = BertConfig(
            vocab_size=len(tokenizer), hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16,
            num_labels=labels,
        )  # fmt: skip
        path = folder / str(labels)
        BertForSequenceClassification(config).save_pretrained(path)
        tokenizer.save_pretrained(path)
        CrossEncoder(str(path), device="cpu").save_pretrained(str(path))
        return path

    return make


def test_a_cross_encoder_gives_probabilities(cross_encoder):
    judge = CrossEncoderJudge(cross_encoder(1), device="cpu")
    assert isinstance(judge, Judge)
    values = judge.relevant("Who sails?", ["Ilse sails.", "", "船 🚲"])
    assert values.shape == (3,)
    assert ((values > 0) & (values < 1)).all()
    assert judge.relevant("Who sails?", []).shape == (0,)
    assert judge.relevant("Who sails?", ["Ilse sails."])[0] == pytest.approx(values[0], abs=1e-5)


def test_a_cross_encoder_that_is_none_is_refused(cross_encoder, tmp_path):
    with pytest.raises(ConfigError, match="3 outputs"):
        CrossEncoderJudge(cross_encoder(3), device="cpu")
    with pytest.raises(ConfigError, match="cannot be loaded"):
        CrossEncoderJudge(tmp_path / "absent")


def test_a_language_model_is_asked_for_each_text_and_its_reply_read():
    with LLMServer({"Who sails": 'Sure! {"relevant": [0.9, 0, 1]} I hope that helps.'}) as server:
        judge = LlmJudge("loopback", server.base_url, "key")
        assert judge.relevant("Who sails?", ["Ilse", "Bram", "船"]) == [0.9, 0.0, 1.0]
        assert judge.relevant("Who sails?", []) == []
        assert "3. 船" in server.requests[0]["messages"][1]["content"]
        assert len(server.requests) == 1


@pytest.mark.parametrize(
    "reply",
    ["", "yes", '{"relevant": [0.5]}', '{"relevant": [0.5, 2]}', '{"relevant": [0.5, NaN]}', '{"relevant": ["a", "b"]}',
     '{"relevant": null}', "{broken", "[0.1, 0.2]"],
)  # fmt: skip
def test_a_reply_that_is_none_is_an_error(reply):
    with LLMServer(default=reply) as server, pytest.raises(HinsError, match=r"2 probabilities|is empty"):
        LlmJudge("loopback", server.base_url, "key").relevant("Who sails?", ["Ilse", "Bram"])


def test_an_endpoint_that_fails_and_a_missing_key_are_errors(monkeypatch):
    with LLMServer(status=401) as server, pytest.raises(HinsError, match="did not answer"):
        LlmJudge("loopback", server.base_url, "key").relevant("Who sails?", ["Ilse"])
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with pytest.raises(ConfigError, match="api_key"):
        LlmJudge("loopback")
    with LLMServer(default='{"relevant": [0.25]}') as server:
        monkeypatch.setenv("OPENAI_BASE_URL", server.base_url)
        assert LlmJudge("loopback").relevant("Who sails?", ["Ilse"]) == [0.25]


def test_a_busy_endpoint_is_asked_three_times():
    with LLMServer(status=429) as server:
        with pytest.raises(HinsError, match="did not answer"):
            LlmJudge("loopback", server.base_url).relevant("Who sails?", ["Ilse"])
        assert len(server.requests) == 3
    with pytest.raises(HinsError, match="did not answer"):
        LlmJudge("loopback", server.base_url).relevant("Who sails?", ["Ilse"])


def test_what_the_judge_finds_relevant_is_no_negative(stock_encoder):
    options = MineSettings(negatives=5)
    without = mine([sailor()], stock_encoder, options)
    word = "catamaran"
    assert any(word in negative.text for one in without.examples for negative in one.negatives)
    judge = WordJudge(word)
    result = mine([sailor()], stock_encoder, options, judge=judge)
    assert result.examples
    assert not any(word in negative.text for one in result.examples for negative in one.negatives)
    assert result.report.skipped["negatives that the judge finds relevant"] > 0
    texts = {memory.text for memory in sailor().memories}
    assert set(judge.judged) <= texts
    loose = mine([sailor()], stock_encoder, replace(options, judge_threshold=0.95), judge=WordJudge(word))
    assert any(word in negative.text for one in loose.examples for negative in one.negatives)


def test_a_judge_that_fails_on_a_query_costs_that_query_its_judging_only(stock_encoder):
    result = mine([sailor()], stock_encoder, MineSettings(negatives=5), judge=WordJudge("catamaran", fails="dinghy"))
    assert result.report.skipped["queries that the judge failed on"] == 1
    assert len(result.examples) == len(mine([sailor()], stock_encoder).examples)


def test_a_judge_that_always_fails_stops_the_miner(stock_encoder):
    log = sailor()
    asked = log.retrievals[0]
    log = replace(log, feedback=tuple(Feedback(one.memory_id, "POSITIVE", asked.id) for one in asked.results))
    with pytest.raises(HinsError, match="does not like"):
        mine([log], stock_encoder, MineSettings(guard=None), PUBLIC, judge=WordJudge("", fails="?"))
