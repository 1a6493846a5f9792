"""Mining into a file: the same examples, taken up after a kill, bounded, and safe from a second process."""

import sqlite3
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
from child_process import Child, children, run_python
from mine_logs import PUBLIC, mine_slowly, sailor

from hins_memory.data.examples import write_examples
from hins_memory.encoders.encoder import Encoder
from hins_memory.errors import HinsError, NotEnoughDataError
from hins_memory.mining import MineSettings, mine, mine_to_parquet, read_examples
from hins_memory.mining.negatives.pool import PartialExample
from hins_memory.mining.storage.mining_store import MiningStore
from hins_memory.types import Feedback, Negative, Positive, Scope, Tier, TieredExample

OWNERS = ("ann", "bea", "cem", "dov", "eva")


@pytest.mark.parametrize("share", [False, True])
def test_the_file_holds_what_mine_gives(stock_encoder, tmp_path, share):
    logs = [sailor(name, 1 + number % 2) for number, name in enumerate(OWNERS)]
    options = MineSettings(share_scopes=share, negatives=4, max_owner_share=0.25)
    path = tmp_path / "deep" / "examples.parquet"
    report = mine_to_parquet(iter(logs), stock_encoder, path, options, PUBLIC)
    expected = mine(logs, stock_encoder, options, PUBLIC)
    assert list(read_examples(path)) == expected.examples
    assert len(expected.examples) > len(OWNERS)
    assert report == expected.report
    assert [one.name for one in path.parent.iterdir()] == ["examples.parquet"]


def test_an_empty_log_is_an_empty_file(stock_encoder, tmp_path):
    report = mine_to_parquet([], stock_encoder, tmp_path / "x", None)
    assert report.examples == 0
    assert list(read_examples(tmp_path / "x")) == []


def test_other_tools_can_read_the_file(stock_encoder, tmp_path):
    from datasets import Dataset

    report = mine_to_parquet([sailor()], stock_encoder, tmp_path / "x.parquet")
    data = Dataset.from_parquet(str(tmp_path / "x.parquet"), cache_dir=str(tmp_path / "cache"))
    assert len(data) == report.examples
    assert data[0]["negatives"][0]["tier"] in ("easy", "medium", "hard")


def test_a_tier_of_another_version_is_a_clear_error(stock_encoder, tmp_path):
    import pyarrow.parquet as pq

    mine_to_parquet([sailor()], stock_encoder, tmp_path / "x", MineSettings(max_owner_share=1.0))
    table = pq.read_table(tmp_path / "x")
    rows = [{**row, "negatives": [{**one, "tier": "sibling"} for one in row["negatives"]]} for row in table.to_pylist()]
    pq.write_table(table.from_pylist(rows, schema=table.schema), tmp_path / "y")
    with pytest.raises(HinsError, match="sibling"):
        list(read_examples(tmp_path / "y"))


def test_lone_surrogates_do_not_stop_it(stock_encoder, tmp_path):
    log = sailor("\ud800")
    mine_to_parquet([log], stock_encoder, tmp_path / "x")
    assert {one.scope.user for one in read_examples(tmp_path / "x")} == {"?"}


def test_a_missing_and_a_foreign_file_are_clear_errors(tmp_path):
    with pytest.raises(NotEnoughDataError):
        list(read_examples(tmp_path / "absent"))
    (tmp_path / "text").write_text("no parquet")
    with pytest.raises(HinsError, match="cannot be read"):
        list(read_examples(tmp_path / "text"))


class CountingEncoder:
    """The stock encoder, counting the texts that it was asked for."""

    def __init__(self, encoder):
        self.encoder, self.version, self.texts = encoder, encoder.version, 0

    def encode(self, texts, role="document"):
        self.texts += len(texts)
        return self.encoder.encode(texts, role=role)


def interrupted(logs, after):
    """The logs, ending as by Ctrl-C after so many."""
    yield from logs[:after]
    raise KeyboardInterrupt


@pytest.fixture
def kept_at_once(monkeypatch):
    """What each owner gave is kept at once, not when a second has passed."""
    monkeypatch.setattr("hins_memory.mining.storage.mining_store._COMMIT_SECONDS", 0.0)


@pytest.mark.slow
@pytest.mark.usefixtures("kept_at_once")
def test_finished_owners_are_not_mined_again_unless_they_changed(stock_encoder, tmp_path):
    logs, path = [sailor(name) for name in OWNERS], tmp_path / "x"
    encoder = CountingEncoder(stock_encoder)
    with pytest.raises(KeyboardInterrupt):
        mine_to_parquet(interrupted(logs, 4), encoder, path)
    assert not path.exists()
    each, encoder.texts = encoder.texts // 4, 0
    changed = replace(logs[1], feedback=(Feedback(logs[1].memories[3].id, "POSITIVE", logs[1].retrievals[0].id),))
    now = [logs[4], logs[0], changed, logs[3]]
    report = mine_to_parquet(now, encoder, path)
    assert encoder.texts == pytest.approx(2 * each, abs=2)
    undisturbed = mine(now, stock_encoder)
    assert list(read_examples(path)) == undisturbed.examples
    assert report == undisturbed.report


def _partial(name, place, chars):
    scope = Scope(user=name)
    positive = Positive(f"query {place}", f"id {place}", "p" * chars, "feedback", 1.0, "r")
    return PartialExample(TieredExample(scope, "talk", positive, (Negative("other", "n" * chars, Tier.EASY, 0.5),)))


@pytest.mark.parametrize("chars", [10, 20_000])
def test_examples_come_in_their_order_whether_they_were_written_or_are_still_held(tmp_path, chars):
    # At most half a megabyte is held, so that some of the long ones are written in the midst of an owner.
    store = MiningStore(tmp_path / "journal.db", "identity", 16 * 2**20)
    given = []
    for name in ("first", "second"):
        number = store.add(Scope(user=name), "content")
        for start in range(0, 7, 2):
            some = [(place, _partial(name, place, chars)) for place in range(start, start + 2)]
            store.add_examples(number, some)
            given += [partial.example for _, partial in some]
        store.finish(number, {})
    assert store.counts() == {8: 2}
    assert [partial.example for _, partial in store.examples()] == given
    store.close()


def test_the_surest_of_an_owner_stay_whether_they_were_written_or_not(tmp_path):
    store = MiningStore(tmp_path / "journal.db", "identity", 16 * 2**20)
    number = store.add(Scope(user="one"), "content")
    for place, confidence in enumerate((0.5, 0.9, 0.7)):
        partial = _partial("one", place, 10)
        sure = replace(partial.example, positive=replace(partial.example.positive, confidence=confidence))
        store.add_examples(number, [(place, PartialExample(sure))])
    assert store.cut(2) == 1
    assert [partial.example.positive.query for _, partial in store.examples()] == ["query 1", "query 2"]
    store.close()


def test_a_store_of_an_older_version_is_emptied_whatever_tables_it_has(tmp_path):
    with closing(sqlite3.connect(tmp_path / "journal.db")) as old:
        old.executescript(
            "CREATE TABLE identity (value TEXT); INSERT INTO identity VALUES ('older');"
            "CREATE TABLE owners (id INTEGER PRIMARY KEY, key TEXT); INSERT INTO owners VALUES (1, 'someone');"
        )
    store = MiningStore(tmp_path / "journal.db", "newer", 16 * 2**20)
    number = store.add(Scope(user="one"), "content")
    store.add_examples(number, [(0, _partial("one", 0, 10))])
    store.finish(number, {})
    assert [key for key, _ in store.summaries()] == [Scope(user="one").owner.key]
    store.close()


@pytest.mark.slow
@pytest.mark.usefixtures("kept_at_once")
def test_other_settings_begin_anew(stock_encoder, tmp_path):
    logs, path = [sailor(name) for name in OWNERS], tmp_path / "x"
    with pytest.raises(KeyboardInterrupt):
        mine_to_parquet(interrupted(logs, 4), stock_encoder, path)
    mine_to_parquet(logs, stock_encoder, path, MineSettings(seed=5))
    assert list(read_examples(path)) == mine(logs, stock_encoder, MineSettings(seed=5)).examples


def _rounded(example):
    negatives = tuple((one.memory_id, one.text, one.tier, round(one.score, 4)) for one in example.negatives)
    return example.scope, example.conversation, example.positive.query, example.positive.text, negatives


@pytest.mark.slow
def test_a_killed_run_is_taken_up_and_a_second_process_is_refused(shallow_folder, tmp_path):
    path, shallow = tmp_path / "x", Encoder.load(shallow_folder)
    with children(Child(mine_slowly, shallow_folder, path)) as (child,):
        while (reached := child.read()) < 60:
            continue
        with pytest.raises(HinsError, match="Another process"):
            mine_to_parquet([sailor()], shallow, path)
        child.kill()
    assert not path.exists()
    assert (tmp_path / "x.work").is_dir()
    logs = [sailor(f"user{number}") for number in range(reached)]
    encoder = CountingEncoder(shallow)
    report = mine_to_parquet(logs, encoder, path)
    undisturbed = mine(logs, shallow)
    # Another process's vectors differ in the last digits: a batch of other lengths is padded otherwise.
    assert [_rounded(one) for one in read_examples(path)] == [_rounded(one) for one in undisturbed.examples]
    assert report.negatives == undisturbed.report.negatives
    # Each owner took a fiftieth of a second, so of 60 about ten at most are lost.
    assert encoder.texts < 0.7 * reached * (len(sailor().memories) + 3 * len(sailor().retrievals))
    assert not (tmp_path / "x.work").exists()


@pytest.mark.slow
def test_a_full_disk_is_a_clear_error_and_loses_nothing(tmp_path):
    # Files of this process may have 200 kB: the store cannot grow, as on a full disk.
    script = f"""
import resource, signal, sys
from pathlib import Path
sys.path.insert(0, {str(Path(__file__).parent)!r})
from mine_logs import sailor
from hins_memory.encoders.encoder import Encoder
from hins_memory.errors import HinsError
from hins_memory.mining import mine_to_parquet
from hins_memory.mining.storage import mining_store
# What each owner gave is written at once: a run of under a second would write nothing to the store.
mining_store._COMMIT_SECONDS = 0.0
encoder = Encoder.load()
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))
try:
    mine_to_parquet((sailor(f"user{{n}}") for n in range(400)), encoder, Path({str(tmp_path / "x")!r}))
except HinsError as error:
    print("refused:", error)
"""
    done = run_python(script)
    assert "refused:" in done.stdout, done.stderr[-2000:]
    assert "run again" in done.stdout
    assert not (tmp_path / "x").exists()


def test_an_owner_that_comes_twice_is_mined_twice(stock_encoder, tmp_path):
    log = sailor()
    parts = [replace(log, retrievals=log.retrievals[:1]), sailor("bea"), replace(log, retrievals=log.retrievals[1:])]
    mine_to_parquet(parts, stock_encoder, tmp_path / "x")
    found = [(one.scope.user, one.positive.query) for one in read_examples(tmp_path / "x")]
    queries = [one.query for one in log.retrievals]
    assert found[0] == ("ilse", queries[0])
    assert found[-2:] == [("ilse", query) for query in queries[1:]]
    assert len(found) == 6


def test_the_name_that_an_older_release_gave_a_source_is_read(tmp_path):
    old = Positive("where is the boat?", "m1", "The boat is in Lagos.", "missed", 0.7)  # type: ignore[arg-type]
    write_examples(tmp_path / "x", [TieredExample(Scope(user="ilse"), "c", old, ())])
    assert [example.positive.source for example in read_examples(tmp_path / "x")] == ["unretrieved"]
