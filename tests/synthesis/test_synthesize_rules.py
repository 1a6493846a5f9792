"""Corpora, conversations by rules, quality controls, and the log that comes of them."""

import re
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from synthesis_corpus import write_corpus

from hins_memory.config import Settings
from hins_memory.data.sample_conversations import load_sample
from hins_memory.database.engine import open_database
from hins_memory.encoders.encoder import Encoder
from hins_memory.errors import ConfigError, NotEnoughDataError
from hins_memory.log.reader import LogReader
from hins_memory.log.writer import LogWriter
from hins_memory.mining import MineSettings, mine
from hins_memory.synthesis import (
    FIRST_NAMES,
    Conversation,
    Exclusion,
    RuleSettings,
    conversations_by_rules,
    conversations_of_logs,
    read_corpus,
    read_personas,
    write_conversations,
)
from hins_memory.synthesis.filters import Selection
from hins_memory.types import Event, Scope, ScopeLog, Turn

# Conversations with an assistant have packaged facts alone: tests/synthesis/test_synthesize_placing.py.
RULES = RuleSettings(assistants=0)
SESSIONS = "hins_memory.synthesis.rules.rules.SESSIONS"


@pytest.fixture(autouse=True)
def short_conversations(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(SESSIONS, 2)


@pytest.fixture
def made(tmp_path: Path) -> list[tuple[str, Conversation]]:
    return list(conversations_by_rules(read_corpus([write_corpus(tmp_path / "talks.csv")]), RULES))


@pytest.fixture
def tiny(tiny_folder: Path) -> Encoder:
    return Encoder.load(tiny_folder)


def texts(conversation: Conversation) -> list[str]:
    return [item.text for item in conversation.items] + [query.text for query in conversation.queries]


def test_a_corpus_is_read_with_placeholders_for_the_names(tmp_path: Path) -> None:
    dialogues = read_corpus([write_corpus(tmp_path / "talks.csv", copies=1)])
    assert len(dialogues) == 2
    assert dialogues[1].turns[2] == (0, "I'm 40 years old. My name is {0}.")
    assert dialogues[0].facts[1] == ("I like to paint.", "I am from Chile.")


@pytest.mark.parametrize("content", ["", "a,b\n1,2\n", "user 1 personas\nx\n"])
def test_a_file_of_another_form_is_a_clear_error(tmp_path: Path, content: str) -> None:
    path = tmp_path / "talks.csv"
    path.write_text(content)
    with pytest.raises(ConfigError, match="columns"):
        read_corpus([path])
    with pytest.raises(ConfigError, match="cannot be read"):
        read_corpus([tmp_path / "none.csv"])


def test_personas_are_read_from_json_and_text(tmp_path: Path) -> None:
    as_json, as_text = tmp_path / "one.json", tmp_path / "one.txt"
    as_json.write_text('{"train": [["I sing.", "I ski."]], "valid": [["I cook."]]}')
    as_text.write_text("I sing.\nI ski.\n\nI cook.\n")
    assert read_personas(as_json) == read_personas(as_text) == [["I sing.", "I ski."], ["I cook."]]
    as_json.write_text("{}")
    with pytest.raises(ConfigError, match="no persona"):
        read_personas(as_json)


def test_conversations_join_sessions_and_ask_about_their_items(made: list[tuple[str, Conversation]]) -> None:
    assert len(made) == 6
    for _, one in made:
        assert {item.session for item in one.items} == {0, 1}
        assert set(one.speakers) <= FIRST_NAMES
        assert one.queries
        for query in one.queries:
            asks_for_oneself = re.search(r"\b(I|me|my|mine|we|us|our)\b", query.text)
            # A thread is of both; what is told about one may answer what is asked about the other.
            named = one.speakers if query.kind == "thread" else (one.items[query.items[0]].speaker,)
            assert asks_for_oneself or any(name in query.text for name in named)
        assert not any("{" in text or "User" in text for text in texts(one))


@pytest.mark.parametrize("facts", [0, 1])
def test_turns_or_facts_are_stored(tmp_path: Path, facts: int) -> None:
    dialogues = read_corpus([write_corpus(tmp_path / "talks.csv")])
    for _, one in conversations_by_rules(dialogues, replace(RULES, facts=facts, told=0)):
        assert any(not item.turns for item in one.items) is bool(facts)  # packaged ones
        for item in (item for item in one.items if item.turns):
            turn = one.turns[item.turns[0]]
            assert turn.speaker == item.speaker
            assert (item.text == f"{turn.speaker}: {turn.text}") is (facts == 0)


def test_the_same_seed_gives_the_same_conversations(tmp_path: Path) -> None:
    dialogues = read_corpus([write_corpus(tmp_path / "talks.csv")])
    first = list(conversations_by_rules(dialogues, RULES))
    assert first == list(conversations_by_rules(dialogues, RULES))
    assert first != list(conversations_by_rules(dialogues, replace(RULES, seed=1)))
    assert len(list(conversations_by_rules(dialogues, RULES, limit=2))) == 2


def test_too_small_a_corpus_and_wrong_settings_are_clear_errors(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dialogues = read_corpus([write_corpus(tmp_path / "talks.csv", copies=1)])
    monkeypatch.setattr(SESSIONS, 6)
    with pytest.raises(ConfigError, match="needs 6"):
        list(conversations_by_rules(dialogues, RuleSettings()))
    with pytest.raises(ConfigError, match="facts"):
        RuleSettings(facts=2)


def test_excluded_names_and_wordings_do_not_occur(tmp_path: Path) -> None:
    names = sorted(FIRST_NAMES)[:100]
    exclusion = Exclusion.of(["Hi! I work as a nurse at a small hospital. What do you do?"], names)
    dialogues = read_corpus([write_corpus(tmp_path / "talks.csv")])
    for _, one in conversations_by_rules(dialogues, RULES, exclusion):
        assert all(exclusion.allows(text) for text in texts(one))
        assert not set(one.speakers) & set(names)
        assert not any("nurse at a small hospital" in text for text in texts(one))
    with pytest.raises(ConfigError, match="first name"):
        list(conversations_by_rules(dialogues, RULES, Exclusion.of([], FIRST_NAMES)))


def test_no_packaged_speaker_has_a_name_of_the_list() -> None:
    assert not {name for one in load_sample() for name in one.speakers} & FIRST_NAMES


def test_an_exclusion_of_a_file_takes_names_and_wordings(tmp_path: Path) -> None:
    path = tmp_path / "evaluation.txt"
    path.write_text("Zora: We went to the old mill by the river on Sunday.\nGreta is nice.\n")
    exclusion = Exclusion.of_file(path)
    assert not exclusion.allows("Ask Zora!")
    assert not exclusion.allows("Greta again")
    assert not exclusion.allows("They said: we went to the old mill by the river, yes.")
    assert exclusion.allows("We went to the old mill.")
    with pytest.raises(ConfigError, match="cannot be read"):
        Exclusion.of_file(tmp_path / "none.txt")


def test_questions_are_spread_and_not_repeated(
    made: list[tuple[str, Conversation]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hins_memory.synthesis.filters._REPEATS", 1)
    selection = Selection(24, len(made), 0, Counter())
    kept = [selection.select(one) for _, one in made]
    assert sum(len(one.queries) for one in kept) == 24
    bare = [
        query.text.replace(one.speakers[0], "").replace(one.speakers[1], "") for one in kept for query in one.queries
    ]
    assert len(set(bare)) == len(bare)


@pytest.mark.slow
def test_the_log_is_ordinary_and_writing_it_twice_adds_nothing(
    made: list[tuple[str, Conversation]], tiny: Encoder, settings: Settings
) -> None:
    engine = open_database(settings.database_url)
    writer = LogWriter(engine)
    report = write_conversations(made, tiny, writer.write)
    counts = LogReader(engine).counts()
    assert (counts.turns, counts.memories, counts.retrievals) == (report.turns, report.memories, report.questions)
    assert report.questions == sum(report.kinds.values()) > 50
    write_conversations(made, tiny, writer.write)
    assert LogReader(engine).counts() == counts
    mined = mine(LogReader(engine).scope_logs(), tiny, MineSettings(guard=None, duplicate_similarity=1.0))
    assert len(mined.examples) > 50
    assert {example.positive.source for example in mined.examples} == {"synthesis"}
    assert all(example.scope.synthetic for example in mined.examples)
    owners = LogReader(engine).owners()
    assert len(owners) == 2
    assert all(owner.synthetic for owner in owners)


@pytest.mark.slow
def test_a_write_that_fails_leaves_whole_conversations(
    made: list[tuple[str, Conversation]], tiny: Encoder, settings: Settings
) -> None:
    engine = open_database(settings.database_url)
    written: list[int] = []

    def write(events: "list[Event]") -> None:
        if len(written) == 2:
            raise OSError("no space left on device")
        LogWriter(engine).write(events)
        written.append(len(events))

    with pytest.raises(OSError, match="no space"):
        write_conversations(made, tiny, write)  # type: ignore[arg-type]
    assert LogReader(engine).counts().conversations == 2
    report = write_conversations(made, tiny, LogWriter(engine).write)
    assert LogReader(engine).counts().conversations == len(made) == report.conversations


def test_captured_conversations_stay_their_users(tiny: Encoder, settings: Settings) -> None:
    scope = Scope(user="bea", agent="bot")
    said = ["I have two cats.", "Nice, Bea! I play the cello.", "I moved to a farm in Peru.", "I sold my red car."]
    turns = tuple(
        Turn(scope, "c1", ("Bea", "Ole")[place % 2], text, float(place), f"t{place}") for place, text in enumerate(said)
    )
    made = list(conversations_of_logs([ScopeLog(scope, turns=turns)], RuleSettings(facts=0, told=0, assistants=0)))
    assert [owner for owner, _ in made] == [Scope(user="bea", agent="bot", tenant="hins-synthetic/")]
    assert not any("Bea" in text or "Ole" in text for text in texts(made[0][1]))
    engine = open_database(settings.database_url)
    write_conversations(made, tiny, LogWriter(engine).write)
    assert LogReader(engine).counts().memories == len(said)
    LogWriter(engine).purge("bea")
    assert LogReader(engine).counts().memories == 0
    with pytest.raises(NotEnoughDataError, match="two speakers"):
        list(conversations_of_logs([], RuleSettings()))


def test_equal_names_of_two_tenants_or_agents_stay_apart(tiny: Encoder, settings: Settings) -> None:
    said = ["I have two {}.", "Nice! I play the cello.", "I moved to a farm in {}.", "I sold my red car."]
    places = {
        Scope(user="bea", tenant="acme"): ("cats", "Peru"),
        Scope(user="bea", tenant="globex"): ("ponies", "Kenya"),
        Scope(user="bea", agent="bot", tenant="globex"): ("parrots", "Norway"),
        Scope(user="bea"): ("lizards", "Iceland"),
    }
    logs = []
    for scope, words in places.items():
        texts = [said[0].format(words[0]), said[1], said[2].format(words[1]), said[3]]
        turns = (Turn(scope, "c1", ("Bea", "Ole")[at % 2], text, float(at)) for at, text in enumerate(texts))
        logs.append(ScopeLog(scope, turns=tuple(turns)))
    engine = open_database(settings.database_url)
    write_conversations(
        conversations_of_logs(logs, RuleSettings(facts=0, told=0, assistants=0)), tiny, LogWriter(engine).write
    )
    found = list(LogReader(engine).scope_logs())
    assert len(found) == len(places)
    assert all(log.scope.synthetic for log in found)
    told = [" ".join(memory.text for memory in log.memories) for log in found]
    assert all(sum(words[0] in text for words in places.values()) == 1 for text in told)
    LogWriter(engine).purge("bea", tenant="globex")
    assert {log.scope.tenant for log in LogReader(engine).scope_logs()} == {"hins-synthetic/acme", "hins-synthetic/"}
