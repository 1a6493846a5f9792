"""A project with two encoder versions and a small agent, as the tests of the swap need it."""

import shutil

from small_agent import SmallAgent, SmallIndex

from hins_memory.config import Settings
from hins_memory.encoders.encoder import Encoder
from hins_memory.plugins.protocols import Record
from hins_memory.registry.registry import Registry
from hins_memory.swapping import swap_agent

SUBJECTS = ("Ann", "Bob", "Chidi", "Dai", "Eva", "Farid", "Gül", "Hana", "Ivo", "Jun")
FACTS = (
    "plays the cello",
    "grows tomatoes",
    "repairs bicycles",
    "lives in Lisbon",
    "likes tea 🍵",
    "学习法语",
    "has a cat",
)


def text_of(number):
    return f"{SUBJECTS[number % 10]} {FACTS[number // 10 % 7]}, said on day {number}."


class World:
    """A project with an encoder version to swap to, and an agent with some memories."""

    def __init__(self, home, stock, other_folder):
        self.settings = Settings(home=home, project="test")
        self.registry = Registry(self.settings)
        self.versions = []
        for name in ("one", "two"):
            copy = home / name
            shutil.copytree(other_folder, copy)
            self.versions.append(self.registry.add(copy, {"name": name}))
        self.one, self.two = (version.id for version in self.versions)
        self.encoders = {"": stock, stock.version: stock}
        self.stock = stock
        self.path = home / "store.db"
        self.other = None

    def load(self, version):
        if version not in self.encoders:
            if self.other is None:
                self.other = Encoder.load(self.registry.get(version).path)
            # the two versions have the same weights: one model in memory does for both
            self.encoders[version] = Encoder(self.other.model, version)
        return self.encoders[version]

    def agent(self, count=0, index_type=SmallIndex):
        agent = SmallAgent(self.path, self.registry, self.load, index_type)
        fill(agent, count)
        return agent

    def swap(self, agent, version=None, **options):
        version = version or self.one
        return swap_agent(agent, version, self.load(version), self.registry, **options)


def fill(agent, count):
    records = [Record(f"m{n:04}", text_of(n), {"data": text_of(n), "n": n, "tags": ["é", None]}) for n in range(count)]
    agent.binding.indexes["memories"].upsert(records, agent.binding.encoder.encode([record.text for record in records]))
    names = SUBJECTS[: 10 if count else 0]
    entities = [Record(f"e{n}", name, {"data": name, "linked": [f"m{n:04}"]}) for n, name in enumerate(names)]
    agent.binding.indexes["entities"].upsert(entities, agent.binding.encoder.encode(list(names)))
