"""Random logs of people with equal names; a purge of one leaves no byte of theirs, and everybody else complete."""

from __future__ import annotations

import os
import shutil
import tempfile
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from hins_memory.config import Settings
from hins_memory.database.engine import open_database
from hins_memory.log.reader import LogReader
from hins_memory.log.writer import LogWriter
from hins_memory.loop.purge import purge_person
from hins_memory.types import (
    Answer,
    Deletion,
    Feedback,
    Memory,
    RankedMemory,
    Retrieval,
    Scope,
    ScopeLog,
    Turn,
    synthetic_tenant,
)

# (tenant, user): equal names in several tenants, names that begin like others, or look like parts of a key.
PEOPLE = [
    ("", "ann"), ("acme", "ann"), ("acme/x", "ann"), ("acme", "Ann"), ("acme", "an"), ("", "a&user=ann"),
    ("acme", "ann\n"), ("", "波"), ("acme", "波"), ("", "acme"),
]  # fmt: skip
EXAMPLES = int(os.environ.get("HINS_ATTACK_EXAMPLES", "6"))

_person = st.sampled_from(range(len(PEOPLE)))
_agent = st.sampled_from(["", "bot", "b&t"])
_run = st.sampled_from(["", "monday"])
_few = st.lists(st.integers(0, 30), min_size=1, max_size=3)


class Purges(RuleBasedStateMachine):
    """Writes to a log and purges people from it; each text has the mark of the person whose it is."""

    template: Path

    def __init__(self) -> None:
        super().__init__()
        self._folder = tempfile.TemporaryDirectory(prefix="hins-attack-")
        self.settings = Settings(home=Path(self._folder.name), project="test")
        self.settings.root.mkdir()
        shutil.copy(self.template, self.settings.root / "log.db")
        self.engine = open_database(self.settings.database_url)
        self.writer = LogWriter(self.engine)
        self.count = 0
        self.live: list[tuple[int, Memory]] = []
        self.asked: list[tuple[Retrieval, set[int]]] = []

    def teardown(self) -> None:
        self.engine.dispose()
        self._folder.cleanup()

    @initialize()
    def begin(self) -> None:
        for person in range(4):
            self.remember(person, "bot", "", 1)

    def text(self, *people: int) -> str:
        self.count += 1
        return " ".join([f"text {self.count}", *(f"mark{person:02}z" for person in people)])

    def scope(self, person: int, agent: str = "", run: str = "") -> Scope:
        tenant, user = PEOPLE[person]
        return Scope(user=user, tenant=tenant, agent=agent, run=run)

    def ask(self, scope: Scope, query: str, results: list[Memory], people: set[int]) -> Retrieval:
        found = tuple(RankedMemory(one.id, one.text, 0.5) for one in results)
        retrieval = Retrieval(scope, query, found)
        self.writer.write([retrieval])
        self.asked.append((retrieval, people))
        return retrieval

    @rule(person=_person, agent=_agent, run=_run, many=st.integers(1, 3))
    def say(self, person: int, agent: str, run: str, many: int) -> None:
        scope = self.scope(person, agent, run)
        long = self.text(person) * 300
        self.writer.write([Turn(scope, "talk", "me", self.text(person)) for _ in range(many)])
        self.writer.write([Turn(scope, "talk", "me", long)])

    @rule(person=_person, agent=_agent, run=_run, id=st.integers(0, 3))
    def remember(self, person: int, agent: str, run: str, id: int) -> None:
        """Store a memory; id 0 is one that nobody else has, another may be anybody's, and an update of one's own."""
        scope = self.scope(person, agent, run)
        name = f"unique-{self.count}" if id == 0 else str(id)
        memory = Memory(name, scope, "talk", self.text(person), "me")
        self.writer.write([memory])
        same = [one for _, one in self.live if one.id == name and one.scope.owner == scope.owner]
        self.live = [pair for pair in self.live if pair[1] not in same] + [(person, memory)]

    @precondition(lambda self: self.live)
    @rule(at=st.integers(0, 30), text=st.booleans())
    def change(self, at: int, text: bool) -> None:
        """Update a memory, or delete it from the agent: its row stays in the log."""
        person, memory = self.live.pop(at % len(self.live))
        if text:
            changed = replace(memory, text=self.text(person))
            self.writer.write([changed])
            self.live.append((person, changed))
        else:
            self.writer.write([Deletion(memory.scope, memory.id)])

    @rule(person=_person)
    def synthesize(self, person: int) -> None:
        tenant, user = PEOPLE[person]
        scope = Scope(user=user, agent="rules", tenant=synthetic_tenant(tenant))
        self.writer.write([Turn(scope, "made", "x", self.text(person)), Memory("s", scope, "made", self.text(person))])

    @precondition(lambda self: self.live)
    @rule(person=_person, agent=_agent, chosen=_few)
    def search(self, person: int, agent: str, chosen: list[int]) -> None:
        """Search as a user: one's own memories, and those of others in the tenant that no id confuses."""
        tenant = PEOPLE[person][0]
        seen = [
            (whose, one)
            for whose, one in self.live
            if whose == person or (PEOPLE[whose][0] == tenant and one.id.startswith("unique"))
        ]
        results = [seen[at % len(seen)] for at in chosen] if seen else []
        people = {person, *(whose for whose, _ in results)}
        self.ask(self.scope(person, agent), self.text(person), [one for _, one in results], people)

    @precondition(lambda self: self.live)
    @rule(chosen=_few, tenant=st.booleans(), run=_run)
    def search_without_a_user(self, chosen: list[int], tenant: bool, run: str) -> None:
        """Search by agent alone, with or without a tenant; one of those whose memories come back asks."""
        results = [self.live[at % len(self.live)] for at in chosen]
        name = PEOPLE[results[0][0]][0] if tenant else ""
        if tenant:
            results = [pair for pair in results if PEOPLE[pair[0]][0] == name]
        people = {whose for whose, _ in results}
        scope = Scope(agent="bot", tenant=name, run=run)
        self.ask(scope, self.text(results[0][0]), [one for _, one in results], people)

    @rule(person=_person)
    def search_a_store_that_is_older(self, person: int) -> None:
        """Return a memory of which no adding was recorded, to its owner and to a search without a user."""
        scope = self.scope(person)
        unrecorded = Memory(f"old-{self.count}", scope, "talk", self.text(person))
        self.ask(scope, self.text(person), [unrecorded], {person})
        self.ask(Scope(agent="bot"), self.text(person), [unrecorded], {person})

    @precondition(lambda self: self.asked)
    @rule(chosen=_few, feedback=st.booleans())
    def answer(self, chosen: list[int], feedback: bool) -> None:
        """Answer all searches of a turn with one text that quotes what they returned."""
        turn = [self.asked[at % len(self.asked)] for at in chosen]
        text = self.text(*sorted(set().union(*(people for _, people in turn))))
        for retrieval, _ in turn:
            self.writer.write([Answer(retrieval.id, f"{text} and so on", time=float(self.count))])
            if feedback and retrieval.results:
                self.writer.write([Feedback(retrieval.results[-1].memory_id, "POSITIVE", retrieval.id)])

    @rule(person=_person)
    def purge(self, person: int) -> None:
        tenant, user = PEOPLE[person]
        before = self.logs()
        report = purge_person(self.settings, user, tenant)
        assert report.problem == ""
        self.live = [pair for pair in self.live if pair[0] != person]
        self.asked = [pair for pair in self.asked if person not in pair[1]]
        self.check(person, before, self.logs())

    def logs(self) -> dict[Scope, ScopeLog]:
        return {log.scope: log for log in LogReader(self.engine).scope_logs()}

    def check(self, person: int, before: dict[Scope, ScopeLog], after: dict[Scope, ScopeLog]) -> None:
        mark = f"mark{person:02}z"
        for path in self.settings.root.rglob("*"):
            assert not path.is_file() or mark.encode() not in path.read_bytes(), path
        tenant, user = PEOPLE[person]
        tenants = (tenant, synthetic_tenant(tenant))
        found = {one.id for log in after.values() for one in log.retrievals}
        # Searches that may have returned the person's memory go with their answers.
        doubtful = {
            one.id
            for scope, log in before.items()
            for one in log.retrievals
            if not scope.user and one.id not in found and self.ambiguous(one, before)
        }
        texts = {
            answer.text
            for log in before.values()
            for answer in log.answers
            if answer.retrieval_id in doubtful or self.concerns(log, answer, mark, tenants, user)
        }
        for scope, log in before.items():
            left = after.get(scope, ScopeLog(scope))
            if scope.user == user and scope.tenant in tenants:
                assert left == ScopeLog(scope)
                continue
            assert (left.turns, left.memories, left.deleted) == (log.turns, log.memories, log.deleted)
            rows = {(one.id, row.memory_id) for one in log.retrievals for row in one.results if mark in row.text}
            kept = [self.cut(one, mark) for one in log.retrievals if scope.user or not self.has(one, mark)]
            lost = {one.id for one in log.retrievals} - {one.id for one in kept}
            lost |= doubtful
            kept = [one for one in kept if one.id not in doubtful]
            assert list(left.retrievals) == kept
            answers = [one for one in log.answers if one.text not in texts and one.retrieval_id not in lost]
            assert list(left.answers) == answers
            told = [one for one in log.feedback if (one.retrieval_id, one.memory_id) not in rows]
            assert list(left.feedback) == [one for one in told if one.retrieval_id not in lost]

    def concerns(self, log: ScopeLog, answer: Answer, mark: str, tenants: tuple[str, ...], user: str) -> bool:
        if log.scope.user == user and log.scope.tenant in tenants:
            return True
        (asked,) = (one for one in log.retrievals if one.id == answer.retrieval_id)
        return self.has(asked, mark)

    @staticmethod
    def has(retrieval: Retrieval, mark: str) -> bool:
        return any(mark in row.text for row in retrieval.results)

    @staticmethod
    def cut(retrieval: Retrieval, mark: str) -> Retrieval:
        return replace(retrieval, results=tuple(row for row in retrieval.results if mark not in row.text))

    @staticmethod
    def ambiguous(retrieval: Retrieval, before: dict[Scope, ScopeLog]) -> bool:
        """Whether a result has an id that several people have, and a text that nobody's memory has any more."""
        texts = {one.text for log in before.values() for one in log.memories}
        return any(
            not row.memory_id.startswith(("unique", "old")) and row.text not in texts for row in retrieval.results
        )


@pytest.mark.slow
def test_purges_are_complete_and_touch_nobody_else(tmp_path: Path) -> None:
    Purges.template = tmp_path / "log.db"
    open_database(f"sqlite:///{Purges.template}").dispose()
    Purges.TestCase.settings = settings(
        max_examples=EXAMPLES, stateful_step_count=40, deadline=None, suppress_health_check=list(HealthCheck)
    )
    machine = Purges.TestCase()
    machine.runTest()
