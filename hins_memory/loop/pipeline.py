"""The loop: capture, mine, train, gate, swap. No other module imports all the stages."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hins_memory.config import Settings
from hins_memory.data.examples import read_examples
from hins_memory.database.engine import open_database
from hins_memory.encoders.manifest import Description
from hins_memory.encoders.starter import default_base
from hins_memory.errors import AgentError, ConfigError, GateError, NotEnoughDataError
from hins_memory.evaluation.gate import GateReport, evaluate_gate
from hins_memory.log.capture import flush_all
from hins_memory.log.copies import work_folder, writing_copy
from hins_memory.log.purge import PurgedError, purge_count
from hins_memory.loop.data import Progress, public_texts
from hins_memory.loop.deep import DeepTrial, deep_settings
from hins_memory.loop.keyword_weight import new_keyword_weight
from hins_memory.loop.mode import chosen_mode, training_base
from hins_memory.loop.quality import Quality, judge_project
from hins_memory.loop.reports import RunReport, Status, read_status
from hins_memory.loop.schedule import Rounds
from hins_memory.loop.settings import LoopSettings
from hins_memory.loop.shards import loop_data, spread_encoder
from hins_memory.loop.split import HeldOutSets, search_replay
from hins_memory.loop.stored_memories import stored_memories
from hins_memory.loop.train import train_run
from hins_memory.mining import MineReport, MineResult
from hins_memory.mining.storage.evidence import EvidenceStore
from hins_memory.plugins.manager import agent_of
from hins_memory.registry.loader import EncoderSource, shared_encoder
from hins_memory.registry.registry import EncoderVersion, Registry
from hins_memory.swapping import Scale, SwapPlan, SwapReport, plan_swap, retire_agent, rollback_agent, swap_agent
from hins_memory.training.settings import DOCUMENTS_STAY, TrainSettings
from hins_memory.types import Scope

if TYPE_CHECKING:
    from hins_memory.encoders.encoder import Encoder
    from hins_memory.plugins.protocols import Agent
    from hins_memory.training import RunContent, TrainingRun

__all__ = ["LoopSettings", "Pipeline", "Progress", "RunReport", "Status", "public_texts"]


class Pipeline:
    """The stages over one project, and over one live agent where a stage needs it. `ScopedPipeline` is for one scope.

    Args:
        settings: the project; None means the defaults of `Settings`.
        memory: a live agent object that hins is attached to, e.g. `hins_memory.Memory()`; `swap`, `rollback`,
            `retire` and `run` need it, and `gate` uses its cut-offs and the encoder that serves it.
        loop: settings of every stage; None means those of the project's `hins.toml`, else the defaults.
        progress: called while a stage runs.

    Every method raises a `HinsError` that says what is missing when it cannot do its work.
    """

    #: the scope that is trained and served alone; None for everyone
    scope: Scope | None = None
    _key = ""

    def __init__(
        self,
        settings: Settings | None = None,
        memory: Any = None,
        *,
        loop: LoopSettings | None = None,
        progress: Progress | None = None,
    ) -> None:
        self.settings = settings or Settings()
        self.loop = loop or LoopSettings.from_file(self.settings.file())
        self._memory = memory
        self._progress = progress
        self._engine = open_database(self.settings.database_url)
        self.registry = Registry(self.settings, self._engine)
        self._data = loop_data(self.settings, self.loop, progress)
        self._spread = partial(spread_encoder, self.settings, self.loop)
        self._source = EncoderSource(self.registry, self.loop.base)
        self._encoders: dict[str, Encoder] = {}

    def status(self) -> Status:
        """Return what the log and the registry hold."""
        flush_all()
        return read_status(self.settings, self._engine, self.registry)

    def judge(self) -> Quality:
        """Judge the latest searches by their outcomes, beside what the gate measured of the version that serves."""
        flush_all()
        return judge_project(self.settings, self.registry, self._load(self._serving_version()))

    def mine(self, owners: Sequence[Scope] | None = None) -> MineResult:
        """Mine what training would use now: everything but the conversations held out for the gate.

        Args:
            owners: whose data; None means all owners'.

        Raises:
            NotEnoughDataError: the log holds no query with a known positive, or only one conversation with any.
        """
        with self._read_log(owners) as evidence:
            path = evidence.folder / "examples.parquet"
            report = self._data.mine_file(evidence, path, self._agent_if_any())
            return MineResult(list(read_examples(path)), report)

    def mine_to(self, path: Path, owners: Sequence[Scope] | None = None) -> MineReport:
        """Mine what training would read into a Parquet file; the same call continues an interrupted run.

        Args:
            path: the file; one that is there is replaced at the end.
            owners: whose data; None means all owners'.

        Raises:
            NotEnoughDataError: as for `mine`.
            PurgedError: the log was purged meanwhile; there is no file.
            HinsError: the file cannot be written.
        """
        work = work_folder(path)
        try:
            with (
                writing_copy(self.settings.root, self._engine, path, "hins mine --output"),
                self._evidence_store(work) as evidence,
            ):
                self._data.collect(evidence, owners)
                return self._data.mine_file(evidence, path, self._agent_if_any())
        except NotEnoughDataError:
            # It holds texts, and there is nothing to continue.
            shutil.rmtree(work, ignore_errors=True)
            raise

    def _evidence_store(self, folder: Path) -> EvidenceStore:
        encoder = self._load(self._serving_version())
        stored = None if self._memory is None or self.loop.ray else stored_memories(self._agent(), encoder)
        return EvidenceStore(folder, encoder, self.loop.mine, stored)

    @contextlib.contextmanager
    def _read_log(self, owners: Sequence[Scope] | None = None) -> Iterator[EvidenceStore]:
        """Read the log once, for a round or a stage; the evidence is removed at the end.

        What a killed process had made of it is kept, as far as the log is the same.
        """
        from hins_memory.training.run import scratch_folder

        with scratch_folder(self.settings.training, "evidence") as folder, self._evidence_store(folder) as evidence:
            self._data.collect(evidence, owners)
            yield evidence

    def train(self, *, resume: bool = False) -> EncoderVersion:
        """Mine, train from the base encoder, and register the new version; nothing serves with it yet.

        Under ``torchrun`` or ``accelerate launch`` every process calls this; the first one mines and registers. Where
        the settings name a Ray cluster, it trains there.

        Args:
            resume: instead, continue the last interrupted training, with its own settings and examples.

        Raises:
            NotEnoughDataError: too few examples.
            TrainingError: training failed, or there is none to continue.
            PurgedError: the log was purged since it was read; there is no version.
        """
        return self._train(resume=resume)[0]

    def _train(
        self, settings: TrainSettings | None = None, evidence: EvidenceStore | None = None, *, resume: bool = False
    ) -> tuple[EncoderVersion, dict[str, Any]]:
        from hins_memory.training import discard_runs
        from hins_memory.training.fit.processes import is_main

        try:
            return self._train_run(settings or self.loop.train, evidence, resume)
        except PurgedError:
            # The run's examples still hold what was purged, so that it must not be continued.
            if is_main():
                discard_runs(self.settings.training)
            raise

    def _train_run(
        self, settings: TrainSettings, evidence: EvidenceStore | None, resume: bool
    ) -> tuple[EncoderVersion, dict[str, Any]]:
        from hins_memory.training import open_run
        from hins_memory.training.fit.processes import from_main

        with contextlib.ExitStack() as stack:

            def make() -> RunContent:
                return self._training_content(evidence or stack.enter_context(self._read_log()), settings)

            run = stack.enter_context(open_run(self.settings.training, None if resume else make))
            # The run may have been killed after its version was registered.
            name = from_main(lambda: self._registered_version(run))
            if name is None:
                trained = train_run(run, self.loop, self._progress)
                about = run.content.about
                manifest = replace(
                    trained.manifest,
                    ratio=about.ratio,
                    mix=about.mix,
                    scope=about.scope,
                    trained_conversations=about.trained_conversations,
                    run=replace(trained.manifest.run, id=run.id),
                )
                name = from_main(lambda: self._register(run, trained.folder, manifest))
        return self.registry.get(name), run.content.mined

    def _training_content(self, evidence: EvidenceStore, settings: TrainSettings) -> RunContent:
        from hins_memory.training import RunContent

        serving, version = evidence.encoder, self._serving_version()
        agent = self._agent_if_any()
        settings = replace(settings, mode=chosen_mode(settings.mode, self._source, serving, version, agent))
        path = evidence.folder / "examples.parquet"
        stored = evidence.folder / "stored"
        shutil.rmtree(stored, ignore_errors=True)
        mined = self._data.mine(evidence, path, stored if settings.mode == "tower" else None, agent)
        if agent is not None and agent.score_thresholds:
            settings = replace(settings, score_thresholds=agent.score_thresholds)
        base, known = training_base(settings.mode, self._source, serving, version)
        trained_on = frozenset(example.positive.query for example in read_examples(path))
        auxiliary = mined.auxiliary_data(trained_on)
        auxiliary = replace(auxiliary, general_loss=self.loop.gate.general_loss_in_training)
        about = Description(ratio=mined.report.ratio, mix=mined.mix, scope=self._key)
        about = replace(about, trained_conversations=(*mined.conversations, *known))
        return RunContent(
            read_examples(path), settings, base, auxiliary, about, mined.report.to_dict(), evidence.purges
        )

    def _registered_version(self, run: TrainingRun) -> str | None:
        """Return the version that a run has registered; if there is none, check that the run may continue."""
        registered = next((one.id for one in self.registry.versions() if one.manifest.run.id == run.id), None)
        if registered is None:
            self._check_unpurged(run)
        return registered

    def _register(self, run: TrainingRun, folder: Path, manifest: Description) -> str:
        weight = new_keyword_weight(self._agent_if_any(), run.content, folder)
        self._check_unpurged(run)
        return self.registry.add(folder, replace(manifest, keyword_weight=weight)).id

    def _check_unpurged(self, run: TrainingRun) -> None:
        if run.content.purges not in (None, purge_count(self._engine)):
            raise PurgedError("the training")

    def gate(self, version_id: str | None = None, *, page: Path | None = None) -> GateReport:
        """Compare a version with the encoder that serves, on conversations that it was not trained on.

        The verdict is recorded with the version.

        Args:
            version_id: which version; None means the newest.
            page: where to write the verdict as an HTML page, with queries and memories in it.

        Raises:
            NotEnoughDataError: there is no version, or too little held-out traffic.
            PurgedError: the log was purged meanwhile; there is no page.
        """
        version = self._version(version_id)
        with contextlib.ExitStack() as stack:
            if page is not None:
                stack.enter_context(writing_copy(self.settings.root, self._engine, page, "hins gate --report"))
            return self._gate(version, stack.enter_context(self._read_log()), page)

    def _gate(self, version: EncoderVersion, evidence: EvidenceStore, page: Path | None = None) -> GateReport:
        from hins_memory.evaluation import skill_sets
        from hins_memory.evaluation.general import load_general

        trained = set(version.manifest.trained_conversations)
        conversations = [one for one in self._data.labelled(evidence) if one.digest not in trained]
        cutoffs = self._agent().score_thresholds if self._memory is not None else ()
        replay = search_replay(self._agent_if_any())
        # Not that of the evidence: in a round of two swaps, the first has changed what serves.
        candidate, incumbent = (self._spread(self._load(one)) for one in (version.id, self._serving_version()))
        held_out = HeldOutSets(evidence, conversations, self._data.unit)
        general, skills = load_general("judge"), skill_sets("judge", self.loop.gate.skills)
        report = evaluate_gate(candidate, incumbent, held_out, general, cutoffs, self.loop.gate, replay, skills)
        self.registry.record_gate(version.id, {"forced": False, **report.verdict()})
        if page is not None:
            from hins_memory.evaluation.gate_page import write_gate_page

            write_gate_page(page, report, candidate, incumbent, version.manifest)
        return report

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
        serving = self._replaced(agent)
        if serving != version.id:
            report = None if force else self.gate(version.id)
            if report is not None and not report.passed:
                reasons = " ".join(rule.sentence for rule in report.failures)
                raise GateError(f"The gate refused {version.id}: {reasons}", "`--force` swaps it anyway.")
        return self._swap(agent, version.id, None if force else serving)

    def _swap(self, agent: Agent, version_id: str, replaces: str | None) -> SwapReport:
        """Swap to a version that the gate let replace another one, or (None) that was not judged."""
        encoder = self._load(version_id)
        if replaces is None and (before := self._replaced(agent)) != version_id:
            # Before the swap, so that a kill cannot leave a forced swap that is not recorded as forced.
            self.registry.record_gate(version_id, {"passed": None, "forced": True, "incumbent": before, "failures": []})
        return self._flip(agent, encoder, replaces)

    def _flip(self, agent: Agent, encoder: Encoder, replaces: str | None) -> SwapReport:
        many, told = self._spread(encoder), self._progress
        return swap_agent(agent, encoder.version, many, self.registry, replaces=replaces, progress=told)

    def _replaced(self, agent: Agent) -> str:
        """Return the version that a swap would replace."""
        return agent.encoder_version

    def plan(self, version_id: str | None = None, scale: Scale | None = None) -> SwapPlan:
        """Return what a swap would take (dry run), at another size too if one is given; nothing changes."""
        return plan_swap(self._agent(), self._load(self._version(version_id).id), self.registry, scale)

    def rollback(self) -> SwapReport:
        """Return the live agent to the index and the encoder before the last swap, with the writes since."""
        return rollback_agent(self._agent(), self.registry, self._load, progress=self._progress)

    def retire(self) -> list[str]:
        """Drop the index that `rollback` would return to; return the names of what was dropped."""
        return retire_agent(self._agent(), self.registry)

    def run(self) -> RunReport:
        """Run the whole loop once: mine, train, gate, and swap when the gate lets the candidate pass.

        A round that re-embeds nothing then asks whether a deep one would gain enough (`LoopSettings.deep`), and with
        ``auto`` takes it; meanwhile the agent serves with what the first part swapped to.
        """
        agent = self._agent()
        flush_all()
        with Rounds(self._engine).record(agent.name, self.scope) as this, self._read_log() as evidence:
            report = self._round(agent, evidence, self.loop.train)
            this.end(report.swapped, report.version)
            if report.mode not in DOCUMENTS_STAY or self.loop.deep == "never":
                return report
            trial = DeepTrial(evidence, self.loop, self._data, self._source, self._progress)
            version, encoder = self.registry.get(report.version), self._load(report.version)
            report = replace(report, advice=trial.advice(agent, version, encoder, report.mine["examples"]))
            if self.loop.deep == "auto" and report.advice is not None and report.advice.advised:
                deep = self._round(agent, evidence, deep_settings(self.loop.train))
                report = replace(report, deep=deep)
                this.end(report.swapped, deep.version if deep.swapped else report.version)
        return report

    def _round(self, agent: Agent, evidence: EvidenceStore, settings: TrainSettings) -> RunReport:
        version, mined = self._train(settings, evidence)
        serving = self._replaced(agent)
        report = self._gate(version, evidence)
        swapped = self._swap(agent, version.id, serving) if report.passed else None
        return RunReport(mined, version.id, report, swapped, mode=version.manifest.mode)

    def _agent_if_any(self) -> Agent | None:
        return None if self._memory is None else self._agent()

    def _agent(self) -> Agent:
        if self._memory is None:
            raise AgentError("No agent was given.", "Pass the live memory object: Pipeline(settings, memory).")
        return agent_of(self._memory)

    def _version(self, version_id: str | None) -> EncoderVersion:
        """Return a version that was made for whom this is, by default the newest."""
        if version_id is not None:
            version = self.registry.get(version_id)
            if (scope := version.manifest.scope) != self._key:
                raise ConfigError(
                    f"{version_id} was made for {scope or 'everyone'}, not for {self._key or 'everyone'}.",
                    "Name its scope with --owner and --tenant, or leave them out.",
                )
            return version
        versions = [one for one in self.registry.versions() if one.manifest.scope == self._key]
        if not versions:
            whose = f" for {self._key}" if self._key else ""
            raise NotEnoughDataError(f"No encoder was trained{whose} yet.", "Run `hins train` first.")
        return self.registry.get(versions[-1].id)

    def _serving_version(self) -> str:
        return self._source.serving_version(self._agent().encoder_version if self._memory is not None else "")

    def _load(self, version_id: str) -> Encoder:
        """Return a version's encoder, sharing the agent's where it is loaded; an unknown version means the base."""
        source = self._source.source(version_id) or self.loop.base or default_base()
        # Kept here, because `shared_encoder` holds weak references only.
        return self._encoders.setdefault(version_id, shared_encoder(source))
