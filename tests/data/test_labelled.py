"""Labelled rows: files of three kinds, rows in memory, and clear errors for what cannot be used."""

from __future__ import annotations

import csv
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from hins_memory.data.labelled import COLUMNS, logs_of, read_rows
from hins_memory.errors import ConfigError, NotEnoughDataError

ROWS = [
    {
        "query": "Which instrument does Ann play?",
        "positive": "I play the oboe. 🎼",
        "speaker": "Ann",
        "conversation": "c",
    },
    {"query": "", "positive": 'Bo said: "no,\nnever"', "speaker": "Bo", "conversation": "c"},
    {"query": "Who has a dog?", "positive": "Cid has a dog.", "conversation": "d", "user": "7", "time": "12.5"},
]


def written(folder, kind):
    path = folder / f"rows.{kind}"
    if kind == "csv":
        with path.open("w", encoding="utf-8-sig", newline="") as stream:
            writer = csv.DictWriter(stream, fieldnames=COLUMNS)
            writer.writeheader()
            writer.writerows(ROWS)
    elif kind == "jsonl":
        path.write_text("\n".join(json.dumps(row) for row in ROWS) + "\n\n", encoding="utf-8")
    else:
        pq.write_table(pa.Table.from_pylist([{name: row.get(name) for name in COLUMNS} for row in ROWS]), path)
    return path


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
def test_files_and_rows_in_memory_are_the_same(tmp_path, kind):
    assert list(read_rows(written(tmp_path, kind))) == list(read_rows(ROWS))


def test_rows_become_the_log_of_each_user():
    log, other = logs_of(
        read_rows(
            [
                *ROWS,
                {"query": "Ann's instrument?", "positive": ROWS[0]["positive"], "speaker": "Ann", "conversation": "c"},
            ]
        )
    )
    assert (log.scope.user, other.scope.user) == ("labelled", "7")
    assert [memory.text for memory in log.memories] == [ROWS[0]["positive"], ROWS[1]["positive"]]
    assert [memory.speaker for memory in log.memories] == ["Ann", "Bo"]
    assert [one.query for one in log.retrievals] == [ROWS[0]["query"], "Ann's instrument?"]
    assert {one.memory_id for one in log.feedback} == {log.memories[0].id}
    assert other.memories[0].time == 12.5
    assert all(one.time > memory.time for one in log.retrievals for memory in log.memories)


def test_a_question_with_several_answers_is_one_search():
    rows = [{"query": "What does Ann own?", "positive": text} for text in ("A cat.", "A boat.")]
    (log,) = logs_of(read_rows(rows))
    assert len(log.retrievals) == 1
    assert len(log.feedback) == 2


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([{"query": "q"}], "Row 1 has no text in the column `positive`"),
        ([{"positive": "a"}, {"positive": "  "}], "Row 2 has no text"),
        ([{"positive": ["a"]}], "no single value in the column `positive`"),
        (["text"], "Row 1 is not a mapping"),
        ([{"positive": "a", "time": "yesterday"}], "the time 'yesterday'"),
        ([{"positive": "a", "user": "a\x00b"}], "cannot be a name"),
    ],
)
def test_rows_that_cannot_be_used_are_clear_errors(rows, message):
    with pytest.raises(ConfigError, match=message):
        logs_of(read_rows(rows))


def test_files_that_cannot_be_used_are_clear_errors(tmp_path):
    with pytest.raises(NotEnoughDataError, match="There is no file"):
        list(read_rows(tmp_path / "absent.csv"))
    with pytest.raises(NotEnoughDataError, match="no rows"):
        list(read_rows([]))
    (tmp_path / "x.txt").write_text("text")
    with pytest.raises(ConfigError, match="no kind that can be read"):
        list(read_rows(tmp_path / "x.txt"))
    for name, content in (("a.jsonl", b"{"), ("b.csv", b"positive\n\xff\xfe"), ("c.parquet", b"PAR1")):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ConfigError, match="cannot be read"):
            list(read_rows(tmp_path / name))
