"""The general-retrieval set: its size and variety, that it tests more than word matching, the stock encoder's score."""

import json
import re
from collections import Counter
from importlib import resources
from itertools import combinations

import pytest

from hins_memory.encoders.encoder import DEFAULT_MODEL, Encoder
from hins_memory.errors import HinsError
from hins_memory.evaluation import evaluate_encoder
from hins_memory.evaluation.general import GENERAL_SET_NAME, _read, load_general

STOP_WORDS = """
a an the of to in on at is are was were be been it its s t that this what which who whom when where why how do does did
can could should would i my me you your we our us they them their he his she her and or but not no without with for from
by as than then if so into over one two
"""


def words(text):
    return re.findall(r"[^\W_]+", text.lower())


def content_words(text):
    return set(words(text)) - set(words(STOP_WORDS))


def read_rows():
    text = (resources.files("hins_memory") / "data" / "general.jsonl").read_text(encoding="utf-8")
    return [json.loads(line) for line in text.strip().split("\n")]


def test_rows_have_exactly_the_documented_fields():
    rows = read_rows()
    assert len(rows) >= 320
    for number, row in enumerate(rows, start=1):
        assert list(row) == ["id", "domain", "query", "passage", "distractor"]
        assert row["id"] == f"g{number:03d}"
        for key in ("domain", "query", "passage"):
            assert row[key] == row[key].strip() != ""


def test_ids_queries_and_texts_occur_once():
    rows = read_rows()
    texts = [row["passage"] for row in rows] + [row["distractor"] for row in rows if row["distractor"] is not None]
    for values in ([row["id"] for row in rows], [row["query"].lower() for row in rows], texts):
        assert [value for value, count in Counter(values).items() if count > 1] == []


def test_no_two_documents_are_near_copies():
    documents = {name: content_words(text) for name, text in load_general().documents.items()}
    alike = [
        (one, other)
        for (one, a), (other, b) in combinations(documents.items(), 2)
        if len(a & b) > 0.5 * min(len(a), len(b))
    ]
    assert alike == []


def test_domains_are_many_and_none_dominates():
    domains = Counter(row["domain"] for row in read_rows())
    assert len(domains) >= 30
    assert min(domains.values()) >= 5
    assert max(domains.values()) <= 0.05 * sum(domains.values())


def test_queries_are_a_mix_of_questions_and_searches():
    queries = [row["query"] for row in read_rows()]
    questions = sum(query.endswith("?") for query in queries)
    assert 0.25 * len(queries) <= questions <= 0.75 * len(queries)


def test_at_least_half_of_the_queries_have_a_distractor():
    rows = read_rows()
    assert 2 * sum(row["distractor"] is not None for row in rows) >= len(rows)


def test_passages_and_distractors_are_of_similar_length():
    rows = read_rows()
    assert [row["id"] for row in rows if not 25 <= len(row["passage"].split()) <= 60] == []
    assert [row["id"] for row in rows if row["distractor"] and not 16 <= len(row["distractor"].split()) <= 60] == []


def test_no_passage_copies_its_query():
    for row in read_rows():
        asked = content_words(row["query"])
        shared = asked & content_words(row["passage"])
        assert asked, row
        assert len(shared) <= 0.5 * len(asked), (row["id"], shared)


def test_the_halves_share_no_query_and_no_domain():
    whole, choose, judge = load_general(), load_general("choose"), load_general("judge")
    assert len(choose.queries) + len(judge.queries) == len(whole.queries)
    assert min(len(choose.queries), len(judge.queries)) > 0.4 * len(whole.queries)
    assert not {query.group for query in choose.queries} & {query.group for query in judge.queries}
    assert choose.documents == judge.documents == whole.documents


def test_load_general_holds_every_text_and_one_answer_a_query():
    rows, loaded = read_rows(), load_general()
    assert loaded.name == GENERAL_SET_NAME
    assert len(loaded.documents) == len(rows) + sum(row["distractor"] is not None for row in rows)
    for row, query in zip(rows, loaded.queries, strict=True):
        assert (query.text, query.group) == (row["query"], row["domain"])
        assert [loaded.documents[name] for name in query.relevant] == [row["passage"]]


@pytest.mark.parametrize("content", [None, b"", b"{not json}\n", b'{"id": "g001"}\n', b"[]\n", b"\xff\n"])
def test_a_damaged_file_is_a_clear_error(tmp_path, content):
    path = tmp_path / "general.jsonl"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(HinsError, match=r"general\.jsonl cannot be read") as caught:
        _read(path)
    assert "Reinstall" in caught.value.hint


def test_a_line_separator_inside_a_text_does_not_break_the_row(tmp_path):
    row = {"id": "g001", "domain": "d", "query": "q", "passage": "one\u2028two", "distractor": None}
    path = tmp_path / "general.jsonl"
    path.write_text(json.dumps(row, ensure_ascii=False) + "\n", encoding="utf-8")
    assert dict(_read(path).documents) == {"g001": "one\u2028two"}


@pytest.mark.slow
def test_stock_encoder_does_well_with_room_to_lose():
    scores = evaluate_encoder(Encoder.load(DEFAULT_MODEL), [load_general()]).mean()
    # measured: nDCG@10 0.85; near 1 a loss would not show, far lower the set would measure noise
    assert 0.80 <= scores["ndcg@10"] <= 0.92
    assert scores["recall@10"] >= 0.93
