"""Schedules: what a condition means, when a round is worth it, and that neither clocks nor kills nor purges fool it."""

import json
import os
import subprocess
import sys
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from hins_memory.cli import app
from hins_memory.config import Settings
from hins_memory.database.engine import open_database
from hins_memory.database.leases import Leases
from hins_memory.errors import ConfigError, NotEnoughDataError
from hins_memory.log.retain import retain
from hins_memory.log.writer import LogWriter
from hins_memory.loop.schedule import Rounds, Term, When, parse_when
from hins_memory.types import Answer, Feedback, RankedMemory, Retrieval, Scope

DAY = 86400.0


class Project:
    """A log that is written to, rounds, and a clock that can be set."""

    def __init__(self, engine):
        self.engine = engine
        self.time = 100 * DAY
        self.number = 0
        self.rounds = Rounds(engine, lambda _: self.time)

    def add(self, answers=0, feedback=0, user="ann"):
        events = []
        for kind in ["answer"] * answers + ["feedback"] * feedback:
            self.number += 1
            one = Retrieval(Scope(user=user), "What?", (RankedMemory("m", "text", 0.5),), id=f"r{self.number}")
            made = Answer(one.id, "That.", self.number) if kind == "answer" else Feedback("m", "POSITIVE", one.id)
            events += [one, made]
        LogWriter(self.engine).write(events)

    def run(self, swapped=True, agent="mem0"):
        with self.rounds.record(agent) as this:
            this.end(swapped, "v0001-01234567")

    def due(self, when, agent="mem0"):
        return self.rounds.decide(parse_when(when), agent)


@pytest.fixture
def project(tmp_path):
    return Project(open_database(f"sqlite:///{tmp_path / 'log.db'}"))


@pytest.mark.parametrize(
    ("text", "groups"),
    [
        ("200 new outcomes or 7 days", (((200, "outcome"),), ((7, "day"),))),
        ("1 answer", (((1, "answer"),),)),
        ("50 feedback AND 12 Hours or 2.5 weeks", (((50, "feedback"), (12, "hour")), ((2.5, "week"),))),
        ("  7   days ", (((7, "day"),),)),
    ],
)
def test_conditions_are_read(text, groups):
    assert parse_when(text) == When(tuple(tuple(Term(*term) for term in group) for group in groups))


@pytest.mark.parametrize(
    "text",
    ["", "days", "7", "-1 days", "0 days", "7 days or", "7 days, 2 hours", "or 7 days", "7 nights", "7 new", "7days"],
)
def test_what_is_no_condition_is_refused_with_an_example(text):
    with pytest.raises(ConfigError, match="200 new outcomes or 7 days"):
        parse_when(text)


UNITS = ["outcome", "answer", "feedback", "hour", "day", "week"]
TERMS = st.builds(Term, st.sampled_from([0.5, 1.0, 2.25, 7.0, 200.0, 99_999.0]), st.sampled_from(UNITS))
GROUPS = st.lists(st.lists(TERMS, min_size=1, max_size=3).map(tuple), min_size=1, max_size=3)


@given(GROUPS)
def test_a_condition_reads_back_as_it_is_shown(groups):
    when = When(tuple(groups))
    assert parse_when(str(when)) == when


def test_new_outcomes_are_what_came_since_the_last_round_that_was_one(project):
    when = "10 new outcomes"
    project.add(answers=6, feedback=3)
    decision = project.due(when)
    assert (decision.due, decision.why) == (False, "9 of 10 new outcomes.")
    project.add(feedback=1)
    assert project.due(when).due
    project.run(swapped=False)
    assert project.due(when).why == "0 of 10 new outcomes."
    project.add(answers=4)
    assert project.due(when).new == {"answers": 4, "feedback": 0, "outcomes": 4, "days": 0.0}
    assert not project.due("5 answers or 1 feedback").due
    assert project.due("4 answers").due
    # another agent of the project has had no round
    assert project.due(when, "memoryos").why == "14 of 10 new outcomes."


def test_a_scope_has_rounds_and_outcomes_of_its_own(project):
    def due(**names):
        return project.rounds.decide(parse_when("4 answers"), "mem0", Scope(**names))

    project.add(answers=3)
    project.add(answers=2, user="bob")
    with project.rounds.record("mem0", Scope(user="ann")) as this:
        this.end(True, "v0001-01234567")
    project.add(answers=4)
    assert due(user="ann").new["answers"] == 4
    assert due(user="bob").why == "2 of 4 new answers."
    assert due(tenant="acme").new["answers"] == due(user="ann", agent="bot").new["answers"] == 0
    assert project.due("9 answers").due, "the round of everyone is still to come"


def test_days_and_both(project):
    assert project.due("7 days").why == "there was no round yet."
    project.run()
    project.time += 6.9 * DAY
    assert project.due("7 days").why == "6.9 of 7 days since the last round."
    assert project.due("200 outcomes or 7 days").why == "0 of 200 new outcomes; 6.9 of 7 days since the last round."
    project.time += 0.1 * DAY
    assert project.due("200 outcomes or 7 days").due
    assert project.due("168 hours").due
    assert project.due("1 week").due
    assert project.due("7 days and 3 answers").why == "0 of 3 new answers."
    project.add(answers=3)
    assert project.due("7 days and 3 answers").why == "7.0 of 7 days since the last round, 3 of 3 new answers."


def test_a_clock_that_goes_back_neither_runs_at_once_nor_waits_forever(project):
    project.run()
    project.time -= 0.01 * DAY
    assert project.due("7 days").why == "0.0 of 7 days since the last round."
    project.time -= 300 * DAY
    assert "clock was set back" in project.due("7 days").why
    assert project.due("7 days").due
    project.run()
    assert not project.due("7 days").due
    project.time += 7 * DAY
    assert project.due("7 days").due


def test_a_clock_that_jumps_does_not_change_what_is_new(project):
    project.add(answers=5)
    project.run()
    project.time -= 50 * DAY
    project.add(answers=2)
    project.time += 90 * DAY
    assert project.due("3 answers").why == "2 of 3 new answers."


def test_a_round_that_failed_is_tried_again_but_not_with_every_call(project):
    project.add(answers=5)
    with pytest.raises(OSError, match="full"), project.rounds.record("mem0"):
        raise OSError("full")
    assert "last round failed 0 minutes ago" in project.due("5 answers").why
    project.time += 3600
    assert project.due("5 answers").due
    project.time -= 2 * 3600
    assert project.due("5 answers").due  # the clock went back: no reason to wait


def test_too_little_data_is_no_failure(project):
    project.add(answers=5)
    with pytest.raises(NotEnoughDataError), project.rounds.record("mem0"):
        raise NotEnoughDataError("too little")
    assert project.due("5 answers").why == "0 of 5 new answers."


KILLED = """
import os, signal, sys
from hins_memory.database.engine import open_database
from hins_memory.loop.schedule import Rounds
with Rounds(open_database(sys.argv[1])).record("mem0"):
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.slow
def test_a_round_that_was_killed_is_tried_again_after_an_hour(project):
    project.add(answers=5)
    subprocess.run([sys.executable, "-c", KILLED, str(project.engine.url)])
    project.time = time.time() + 60
    assert "did not come to its end" in project.due("5 answers").why
    project.time += 3600
    assert project.due("5 answers").due


@pytest.mark.parametrize(
    "remove",
    [lambda engine: LogWriter(engine).purge("bob"), lambda engine: retain(engine, 1e-9)],
    ids=["purge", "retain"],
)
def test_a_purge_or_a_retention_makes_nothing_old_that_is_new(project, remove):
    project.add(answers=5, user="bob")
    project.run()
    remove(project.engine)
    assert project.due("1 answer").why == "0 of 1 new answer."
    project.add(answers=3)
    assert project.due("3 answers").due


def cli(settings, *arguments):
    options = ["--home", str(settings.home), "--project", settings.project, "run", *arguments, "--json"]
    result = CliRunner().invoke(app, options)
    return result.exit_code, json.loads(result.stdout)


def test_the_command_says_why_not_with_status_0_and_opens_no_agent(settings):
    code, said = cli(settings, "--when", "1 answer", "--agent", "nope")
    assert (code, said["ran"]) == (0, False)
    assert said["schedule"]["why"] == "0 of 1 new answer."
    assert not (settings.root / "mem0").exists()
    code, said = cli(settings, "--when", "sometimes")
    assert (code, said["error"]["type"]) == (2, "ConfigError")


def test_while_a_round_runs_a_schedule_lets_it_and_a_person_is_told(settings: Settings):
    engine = open_database(settings.database_url)
    with Leases(engine, settings.root / "another host").hold("round"):
        code, said = cli(settings, "--when", "7 days")
        assert (code, said["ran"]) == (0, False)
        assert f"Another round runs: process {os.getpid()} on" in said["schedule"]["why"]
        code, said = cli(settings)
        assert (code, said["error"]["type"]) == (1, "LeaseHeldError")


@pytest.mark.slow
def test_a_due_round_with_too_little_data_is_no_error_and_not_repeated(settings: Settings):
    code, said = cli(settings, "--when", "7 days")
    assert (code, said["ran"], said["schedule"]["due"]) == (0, False, True)
    assert "0 retrievals" in said["problem"]
    code, said = cli(settings, "--when", "7 days")
    assert said["schedule"]["why"] == "0.0 of 7 days since the last round."
    code, said = cli(settings)
    assert (code, said["error"]["type"]) == (3, "NotEnoughDataError")
