"""A live agent under any order of calls, swaps and kills: nothing acknowledged is lost, nobody sees another's memory.

HINS_AGENT_STEPS=2000 sets how many steps are done on each store; --log-cli-level=INFO says how many kills there were.
"""

from __future__ import annotations

import logging
import os
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

import agent_child
import pytest
from child_process import Child
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from hins_memory.config import Settings
from hins_memory.registry.registry import Registry

logger = logging.getLogger(__name__)

USERS = ("ann", "bob", "安娜")
WORDS = ("cello", "garden", "bicycle", "Lisbon", "tea 🍵", "学习法语", "x" * 300)
KILLED = ("add", "update", "delete", "delete_all", "swap", "rollback")
STEPS = int(os.environ.get("HINS_AGENT_STEPS", "30"))
PER_EXAMPLE = 30

_users = st.sampled_from(USERS)
_words = st.sampled_from(WORDS)
_picks = st.integers(0, 999)
_delays = st.sampled_from((0.0, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3))


class AgentMachine(RuleBasedStateMachine):
    """The agent in a process of its own, and a dict that says what it holds."""

    provider = "qdrant"
    bases: tuple[Path, ...] = ()
    steps = kills = 0

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="hins-agent-"))
        config = {"path": str(self.folder / "store"), "collection_name": "c"}
        if self.provider == "qdrant":
            config["on_disk"] = True  # type: ignore[assignment]
        project = Settings(home=self.folder, project="p", log_url="")
        self.versions = [self._version(project, number) for number in (1, 2)]
        store = {"provider": self.provider, "config": config}
        self.opened = agent_child.Opened(store, project, str(self.bases[0]))
        self.model: dict[str, dict[str, str]] = {user: {} for user in USERS}
        #: memories whose last record was waiting for the disk when the process was killed
        self.unsure: set[str] = set()
        self.waiting: set[str] = set()
        self.number = 0
        self.child = self._open()

    def _version(self, project: Settings, number: int) -> str:
        copy = self.folder / f"base{number}"
        shutil.copytree(self.bases[number], copy)
        return str(Registry(project).add(copy, {"base": f"tiny{number}"}).id)

    def _open(self) -> Child:
        child = Child(agent_child.serve, self.opened)
        assert child.read() == "open"
        return child

    def teardown(self) -> None:
        self.child.kill()
        shutil.rmtree(self.folder, ignore_errors=True)
        logger.info("%s: %d steps, %d kills so far", self.provider, self.steps, self.kills)

    def do(self, name: str, *arguments: Any) -> Any:
        self.child.tell((name, arguments))
        outcome, value = self.child.read()
        assert outcome == "done", f"{name}{arguments}: {value}"
        return value

    def text(self, word: str) -> str:
        self.number += 1
        return f"Fact {self.number}: {word}."

    def pick(self, number: int) -> tuple[str, str] | None:
        """Return the user and id of one memory, always the same for a number and a model."""
        held = [(user, id_) for user in USERS for id_ in self.model[user]]
        return held[number % len(held)] if held else None

    @rule(user=_users, word=_words)
    def add(self, user: str, word: str) -> None:
        text = self.text(word)
        id_ = self.do("add", user, text)
        self.model[user][id_] = text
        self.waiting.add(id_)

    @rule(number=_picks, word=_words)
    def update(self, number: int, word: str) -> None:
        if chosen := self.pick(number):
            user, id_ = chosen
            text = self.text(word)
            self.do("update", id_, text)
            self.model[user][id_] = text
            self.waiting.add(id_)

    @rule(number=_picks)
    def delete(self, number: int) -> None:
        if chosen := self.pick(number):
            user, id_ = chosen
            self.do("delete", id_)
            del self.model[user][id_]
            self.waiting.add(id_)

    @rule(user=_users)
    def delete_all(self, user: str) -> None:
        self.do("delete_all", user)
        self.waiting |= self.model[user].keys()
        self.model[user] = {}

    @rule(number=st.integers(0, 1))
    def swap(self, number: int) -> None:
        self.do("swap", self.versions[number])

    @rule()
    def rollback(self) -> None:
        self.do("rollback")

    @rule()
    def kill(self) -> None:
        """Killed between two calls."""
        self._kill()

    @rule(name=st.sampled_from(KILLED), user=_users, number=_picks, word=_words, delay=_delays)
    def kill_in_a_call(self, name: str, user: str, number: int, word: str, delay: float) -> None:
        """Killed in the middle of one: what it would have done is done or not, and everything else is there."""
        chosen, text = self.pick(number), self.text(word)
        if name in ("update", "delete") and chosen is None:
            return
        owner, id_ = chosen or (user, "")
        arguments = {
            "add": (user, text),
            "update": (id_, text),
            "delete": (id_,),
            "delete_all": (user,),
            "swap": (self.versions[number % 2],),
            "rollback": (),
        }[name]
        self.child.tell((name, arguments))
        time.sleep(delay)
        self._kill()
        stored: dict[str, dict[str, str]] = self.do("look", USERS)["stored"]
        if name == "add":
            new = stored[user].keys() - self.model[user].keys()
            assert [stored[user][one] for one in new] in ([], [text])
            self.model[user].update((one, text) for one in new)
            self.unsure |= new
        elif name == "update":
            self.unsure.add(id_)
            if stored[owner].get(id_) == text:
                self.model[owner][id_] = text
        elif name == "delete":
            self.unsure.add(id_)
            if id_ not in stored[owner]:
                del self.model[owner][id_]
        elif name == "delete_all":
            self.unsure |= self.model[user].keys()
            self.model[user] = {one: held for one, held in self.model[user].items() if one in stored[user]}

    def _kill(self) -> None:
        self.child.kill()
        type(self).kills += 1
        # At most the last second of the log may be missing, never anything of the store.
        self.unsure |= self.waiting
        self.waiting.clear()
        self.child = self._open()

    @invariant()
    def all_is_there_and_whose_it_is(self) -> None:
        type(self).steps += 1
        seen = self.do("look", USERS)
        self.waiting.clear()
        assert seen["stored"] == self.model
        assert seen["wrong"] == [], "vectors of another version"
        owner = {id_: user for user, held in self.model.items() for id_ in held}
        assert seen["rows"] == owner
        for user, found in seen["found"].items():
            assert found.items() <= self.model[user].items(), "a search shows what is not the user's"
        assert set(seen["logged"]) <= set(USERS)
        for user in USERS:
            logged = seen["logged"].get(user, {})
            for id_ in (logged.keys() | self.model[user].keys()) - self.unsure:
                assert logged.get(id_) == self.model[user].get(id_), "the log says otherwise"
            assert all(text.startswith("Fact") for text in logged.values())


@pytest.fixture(scope="module")
def bases(tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, ...]:
    """Three encoders of one size with different weights."""
    import torch
    from sentence_transformers import SentenceTransformer

    made = [tiny_folder]
    for seed in (2, 3):
        model = SentenceTransformer(str(tiny_folder), device="cpu")
        with torch.no_grad():
            generator = torch.Generator().manual_seed(seed)
            for weights in model.parameters():
                weights += 0.05 * torch.randn(weights.shape, generator=generator)
        folder = tmp_path_factory.mktemp("bases") / f"tiny{seed}"
        model.save(str(folder))
        made.append(folder)
    return tuple(made)


@pytest.mark.slow
@pytest.mark.parametrize("provider", ["qdrant", "faiss"])
def test_any_order_of_calls_swaps_and_kills(provider: str, bases: tuple[Path, ...]) -> None:
    machine: Any = type("Machine", (AgentMachine,), {"provider": provider, "bases": bases, "steps": 0, "kills": 0})
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=max(1, STEPS // PER_EXAMPLE),
            stateful_step_count=PER_EXAMPLE,
            deadline=None,
            phases=(Phase.generate,),
            suppress_health_check=list(HealthCheck),
            database=None,
            derandomize="HINS_AGENT_STEPS" not in os.environ,
        ),
    )
    assert machine.kills
