"""The loop: capture -> mine -> train -> gate -> swap. The only module that knows all the stages."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hins_memory.capture import flush_all
from hins_memory.config import Settings
from hins_memory.errors import AgentError, GateError, NotEnoughDataError
from hins_memory.gate import GateReport, GateSettings, judge
from hins_memory.holdout import HoldoutSettings, JudgedConversation, conversation_digest, judged, latest, without
from hins_memory.log.database import open_database
from hins_memory.log.reader import LogCounts, LogReader
from hins_memory.mine import MineReport, MineResult, MineSettings, mine, mine_to_parquet
from hins_memory.plugins import get_plugin_manager
from hins_memory.registry import EncoderVersion, Registry
from hins_memory.swap import SwapPlan, SwapReport, plan_swap, retire_agent, rollback_agent, swap_agent
from hins_memory.train.settings import TrainSettings
from hins_memory.types import Scope, ScopeLog

if TYPE_CHECKING:
    from hins_memory.agent import Agent
    from hins_memory.encoder import Encoder

__all__ = ["LoopSettings", "Pipeline", "Progress", "RunReport", "Status", "public_texts"]

#: Called with the stage, how much of it is done, and how much there is.
Progress = Callable[[str, int, int], None]


@dataclass(frozen=True, slots=True)
class LoopSettings:
    """Settings of every stage.

    Args:
        mine: what becomes an example.
        holdout: how much is kept for the gate.
        train: how the encoder is trained.
        gate: what the candidate has to show.
        base: the encoder that training starts from, as for `Encoder.load`.
    """

    mine: MineSettings = field(default_factory=MineSettings)
    holdout: HoldoutSettings = field(default_factory=HoldoutSettings)
    train: TrainSettings = field(default_factory=TrainSettings)
    gate: GateSettings = field(default_factory=GateSettings)
    base: str = "stock"


@dataclass(frozen=True, slots=True)
class Status:
    """Where a project stands. `current` is the id of the current version, "" for the stock encoder."""

    project: str
    root: str
    database: str
    log: LogCounts
    versions: tuple[str, ...]
    current: str

    def to_dict(self) -> dict[str, Any]:
        """Return the status as JSON-able values."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class RunReport:
    """What one round of the loop did; `swap` is None when the gate refused the candidate."""

    mine: dict[str, Any]
    version: str
    gate: GateReport
    swap: SwapReport | None

    @property
    def swapped(self) -> bool:
        """Whether the agent serves with the new version now."""
        return self.swap is not None

    def to_dict(self) -> dict[str, Any]:
        """Return the report as JSON-able values."""
        return {
            "mine": self.mine,
            "version": self.version,
            "gate": self.gate.to_dict(),
            "swap": self.swap.to_dict() if self.swap else None,
            "swapped": self.swapped,
        }


def public_texts() -> list[str]:
    """Return texts that belong to nobody, for easy negatives: the packaged conversations as `Speaker: text`."""
    from hins_memory.sample import load_sample

    return [f"{turn.speaker}: {turn.text}" for one in load_sample() for turn in one.turns]


class Pipeline:
    """The stages over one project, and over one live agent where a stage needs it.

    Args:
        settings: the project; None means the defaults of `Settings`.
        memory: a live agent object that hins is attached to, e.g. `hins_memory.Memory()`; `swap`, `rollback`,
            `retire` and `run` need it, and `gate` uses its cut-offs and the encoder that serves it.
        loop: settings of every stage.
        progress: called while a stage runs.

    Every method raises a `HinsError` that says what is missing when it cannot do its work.
    """

    def __init__(
        self,
        settings: Settings | None = None,
        memory: Any = None,
        *,
        loop: LoopSettings | None = None,
        progress: Progress | None = None,
    ) -> None:
        self.settings = settings or Settings()
        self.loop = loop or LoopSettings()
        self._memory = memory
        self._progress = progress
        self._engine = open_database(self.settings.database_url)
        self.registry = Registry(self.settings, self._engine)
        self._encoders: dict[str, Encoder] = {}

    def status(self) -> Status:
        """Return what the log and the registry hold."""
        flush_all()
        current = self.registry.current()
        return Status(
            project=self.settings.project,
            root=str(self.settings.root),
            database=self._engine.url.render_as_string(hide_password=True),
            log=LogReader(self._engine).counts(),
            versions=tuple(version.id for version in self.registry.versions()),
            current=current.id if current else "",
        )

    def mine(self, owners: Sequence[Scope] | None = None) -> MineResult:
        """Mine what training would use now: everything but the conversations held out for the gate.

        Args:
            owners: whose data; None means everybody's.

        Raises:
            NotEnoughDataError: the log holds no query with a known positive, or only one conversation with any.
        """
        return mine(self._training_logs(owners, []), self._serving(), self.loop.mine, self._public())

    def mine_to(self, path: Path, owners: Sequence[Scope] | None = None) -> MineReport:
        """Mine the same into a Parquet file, within the memory budget; a killed run is taken up by the same call.

        Args:
            path: the file; one that is there is replaced at the end.
            owners: whose data; None means everybody's.

        Raises:
            NotEnoughDataError: as for `mine`.
            HinsError: the file cannot be written.
        """
        return mine_to_parquet(self._training_logs(owners, []), self._serving(), path, self.loop.mine, self._public())

    def _training_logs(self, owners: Sequence[Scope] | None, used: list[str]) -> Iterator[ScopeLog]:
        """Return the logs without what is held out; the digests of what is left are added to `used` on the way."""
        held = latest(self._judged(self._serving(), owners), self.loop.holdout)

        def logs() -> Iterator[ScopeLog]:
            for log in self._logs(owners, "mine"):
                kept = without(log, held)
                used.extend(sorted(conversation_digest(kept, name) for name in kept.conversations()))
                yield kept

        return logs()

    def _public(self) -> list[str]:
        """Return public texts, but none that is stored: who plays the packaged conversations has them as memories."""
        public = public_texts()
        stored = LogReader(self._engine).stored(public)
        return [text for text in public if text not in stored]

    def train(self) -> EncoderVersion:
        """Mine, train from the base encoder, and register the new version; nothing serves with it yet.

        Raises:
            NotEnoughDataError: too few examples.
            TrainingError: training did not end well.
        """
        return self._train()[0]

    def _train(self) -> tuple[EncoderVersion, MineReport]:
        from hins_memory.train import train_encoder

        used: list[str] = []
        mined = mine(self._training_logs(None, used), self._serving(), self.loop.mine, self._public())
        self.settings.encoders.mkdir(parents=True, exist_ok=True)
        # Beside the versions, so that the move into them stays on one file system.
        scratch = Path(tempfile.mkdtemp(prefix=".training-", dir=self.settings.encoders))
        try:
            trained = train_encoder(
                mined.examples,
                scratch / "model",
                base=self.loop.base,
                settings=self.loop.train,
                progress=self._progress,
            )
            manifest = trained.manifest | {"ratio": mined.report.to_dict()["ratio"], "trained_conversations": used}
            version = self.registry.add(trained.folder, manifest)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
        return version, mined.report

    def gate(self, version_id: str | None = None) -> GateReport:
        """Judge a version against the encoder that serves, on conversations that it was not trained on.

        Args:
            version_id: which version; None means the newest.

        Raises:
            NotEnoughDataError: there is no version, or too little held-out traffic.
        """
        from hins_memory.general import load_general

        version = self._version(version_id)
        incumbent = self._serving()
        trained = set(version.manifest.get("trained_conversations", ()))
        held = [one.evaluation for one in self._judged(incumbent) if one.digest not in trained]
        cutoffs = self._agent().cutoffs if self._memory is not None else ()
        return judge(self._load(version.id), incumbent, held, load_general(), cutoffs, self.loop.gate)

    def swap(self, version_id: str | None = None, *, force: bool = False) -> SwapReport:
        """Gate a version and make the live agent serve with it; the old index is kept for `rollback`.

        Args:
            version_id: which version; None means the newest.
            force: swap although the gate refuses; recorded with the version.

        Raises:
            GateError: the gate refused and `force` is not set.
            SwapError: the swap did not finish; the agent serves as before.
        """
        agent = self._agent()
        version = self._version(version_id)
        if agent.encoder_version != version.id:
            report = None if force else self.gate(version.id)
            if report is not None and not report.passed:
                reasons = " ".join(rule.sentence for rule in report.failures)
                raise GateError(f"The gate refused {version.id}: {reasons}", "`--force` swaps all the same.")
        return self._swap(agent, version.id, force)

    def _swap(self, agent: Agent, version_id: str, force: bool) -> SwapReport:
        report = swap_agent(agent, version_id, self._load(version_id), self.registry, progress=self._progress)
        if report.changed:
            self.registry.promote(version_id, forced=force)
        return report

    def plan(self, version_id: str | None = None) -> SwapPlan:
        """Return what a swap would take (dry run); nothing changes."""
        return plan_swap(self._agent(), self._load(self._version(version_id).id))

    def rollback(self) -> SwapReport:
        """Return the live agent to the index and the encoder before the last swap, with the writes since."""
        return rollback_agent(self._agent(), self.registry, self._load, progress=self._progress)

    def retire(self) -> list[str]:
        """Drop the index that `rollback` would return to; return the names of what was dropped."""
        return retire_agent(self._agent(), self.registry)

    def run(self) -> RunReport:
        """Run the whole loop once: mine, train, gate, and swap when the gate lets the candidate pass."""
        agent = self._agent()
        version, mined = self._train()
        report = self.gate(version.id)
        swapped = self._swap(agent, version.id, force=False) if report.passed else None
        return RunReport(mined.to_dict(), version.id, report, swapped)

    def _judged(self, encoder: Encoder, owners: Sequence[Scope] | None = None) -> list[JudgedConversation]:
        found = judged(self._logs(owners, "judge"), encoder, self.loop.mine)
        if len(found) < 2:
            counts = LogReader(self._engine).counts()
            raise NotEnoughDataError(
                f"The log has {counts.retrievals} retrievals, {counts.answers} answers and {counts.feedback} feedbacks "
                f"in {counts.conversations} conversations; queries with a known positive are in {len(found)} of them.",
                "At least 2 such conversations are needed, one to train on and one to judge on: "
                "record answers with answered() and opinions with feedback().",
            )
        return found

    def _logs(self, owners: Sequence[Scope] | None, stage: str) -> Iterator[ScopeLog]:
        flush_all()
        reader = LogReader(self._engine)
        wanted = [scope.owner for scope in owners] if owners is not None else reader.owners()
        for done, owner in enumerate(wanted):
            yield from reader.scope_logs([owner])
            if self._progress:
                self._progress(stage, done + 1, len(wanted))

    def _agent(self) -> Agent:
        if self._memory is None:
            raise AgentError("No agent was given.", "Pass the live memory object: Pipeline(settings, memory).")
        agent: Agent | None = get_plugin_manager().hook.hins_agent(memory=self._memory)
        if agent is None:
            raise AgentError(
                f"hins is not attached to this {type(self._memory).__name__} as its embedder.",
                'Use hins_memory.attach(memory, embedder="hins") first.',
            )
        return agent

    def _version(self, version_id: str | None) -> EncoderVersion:
        if version_id is not None:
            return self.registry.get(version_id)
        versions = self.registry.versions()
        if not versions:
            raise NotEnoughDataError("No encoder was trained yet.", "Run `hins train` first.")
        return self.registry.get(versions[-1].id)

    def _serving(self) -> Encoder:
        """Return the encoder that serves: the live agent's, else the current version, else the base."""
        if self._memory is not None and (version := self._agent().encoder_version):
            return self._load(version)
        current = self.registry.current()
        return self._load(current.id if current else "")

    def _load(self, version_id: str) -> Encoder:
        """Return a version's encoder, loaded once; names that are no version of ours stand for the base."""
        from hins_memory.encoder import Encoder

        if version_id not in self._encoders:
            known = {version.id for version in self.registry.versions()}
            source: str | Path = self.registry.get(version_id).path if version_id in known else self.loop.base
            self._encoders[version_id] = Encoder.load(source)
        return self._encoders[version_id]
