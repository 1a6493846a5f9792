"""A training run as a folder: examples, settings and checkpoints, so that an interrupted run can be continued."""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import shutil
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from hins_memory.common.files import file_digest, file_lock
from hins_memory.data.examples import read_examples, write_examples
from hins_memory.data.stored_vectors import StoredVectors
from hins_memory.encoders.manifest import Description
from hins_memory.errors import TrainingError
from hins_memory.evaluation import EvalQuery, EvalSet
from hins_memory.training.auxiliary_data import AuxiliaryData
from hins_memory.training.base import base_digest, check_base
from hins_memory.training.fit.checkpoints import latest_checkpoint
from hins_memory.training.fit.processes import from_main, is_main, wait_for_all
from hins_memory.training.query_samples import QuerySample
from hins_memory.training.settings import TrainSettings
from hins_memory.types import TieredExample

__all__ = ["RunContent", "TrainingRun", "discard_runs", "open_run", "read_run"]

logger = logging.getLogger(__name__)

_PREFIX = "run-"
_CONTENT = "run.json"
_EXAMPLES = "examples.parquet"
_HELD_OUT = "held_out.json"
_STORED = "stored"
_LOCK = "lock"
# The names of the query samples in the folder's record, as version 0.1 wrote them.
_QUERY_SAMPLES = {"training_queries": "traffic", "heldout_queries": "unseen"}


@dataclass(frozen=True, slots=True)
class RunContent:
    """What a run trains on, kept beside its checkpoints: continuing the run needs nothing else.

    Attributes:
        examples: what is learned; read once, and a list in a run that is open.
        settings: how.
        base: the encoder that it starts from, as for `Encoder.load`.
        auxiliary: what training uses beside the examples; the run moves the files of stored vectors into its folder.
        about: what the version's manifest says beside what the trainer reports.
        mined: what the miner reported, as JSON-able values.
        purges: how many purges of the log there had been when it was read; None means not known.
    """

    examples: Iterable[TieredExample]
    settings: TrainSettings
    base: str = "stock"
    auxiliary: AuxiliaryData = field(default_factory=AuxiliaryData)
    about: Description = field(default_factory=Description)
    mined: dict[str, Any] = field(default_factory=dict)
    purges: int | None = None


@dataclass(frozen=True, slots=True)
class TrainingRun:
    """A run that is open in this process, see `open_run`."""

    folder: Path
    content: RunContent

    @property
    def id(self) -> str:
        """The run's own name; the manifest of its version has it, so that no run is registered twice."""
        return self.folder.name

    @property
    def checkpoints(self) -> Path:
        """The folder of the checkpoints."""
        return self.folder / "checkpoints"

    @property
    def model(self) -> Path:
        """Where the trained model is to be written."""
        return self.folder / "model"


@contextlib.contextmanager
def open_run(parent: Path, make: Callable[[], RunContent] | None) -> Iterator[TrainingRun]:
    """Begin a run, or continue the newest interrupted one, in all processes that train together.

    At its end the run is removed. When an exception ends it, it stays if it has a checkpoint to continue from. It holds
    texts of the log, so that only its owner can read it. A new run removes the interrupted ones before it.

    Args:
        parent: the folder of the project's runs, shared by all processes.
        make: returns what to train, called in the first process only; None continues.

    Raises:
        TrainingError: there is nothing to continue; the folder cannot be written; what was to be trained, or the
            encoder that it started from, has changed since.
    """
    with contextlib.ExitStack() as stack:

        def begin() -> str:
            content = None if make is None else make()
            with _disk_errors(parent):
                return str(_resume(parent, stack) if content is None else _begin(parent, content, stack))

        folder = Path(from_main(begin))
        run = read_run(folder)
        try:
            yield run
        except BaseException:
            if is_main() and latest_checkpoint(run.checkpoints) is None:
                shutil.rmtree(folder, ignore_errors=True)
            raise
        wait_for_all()
        if is_main():
            shutil.rmtree(folder, ignore_errors=True)


def read_run(folder: Path) -> TrainingRun:
    """Return a run that another process has open.

    Raises:
        TrainingError: its files, or the encoder that it starts from, have changed since it began.
    """
    return TrainingRun(folder, _read(folder))


@contextlib.contextmanager
def scratch_folder(parent: Path, kind: str = "") -> Iterator[Path]:
    """Make a private folder beside the runs, removed at the end; `discard_runs` removes one that a kill left.

    Args:
        parent: the folder of the project's runs.
        kind: a name for folders of which a killed process's is taken up, with what is in it; "" begins with none.

    Raises:
        TrainingError: the folder cannot be made.
    """
    prefix = f".{_PREFIX}{kind}-"
    with contextlib.ExitStack() as stack:
        with _disk_errors(parent), file_lock(parent / _LOCK):
            left = [one for one in parent.glob(f"{prefix}*") if one.is_dir() and _is_free(one)] if kind else []
            folder = left[0] if left else parent / f"{prefix}{uuid.uuid4().hex}"
            folder.mkdir(mode=0o700, exist_ok=True)
            stack.callback(shutil.rmtree, folder, ignore_errors=True)
            stack.enter_context(file_lock(folder / _LOCK, wait=False))
        yield folder


def discard_runs(parent: Path) -> int:
    """Remove interrupted runs, because of the texts that they hold; return how many. Runs that are open stay."""
    if not parent.is_dir():
        return 0
    with file_lock(parent / _LOCK):
        interrupted = [folder for folder in _folders(parent) if _is_free(folder)]
        for folder in interrupted:
            shutil.rmtree(folder, ignore_errors=True)
    return sum(folder.name.startswith(_PREFIX) for folder in interrupted)


def _folders(parent: Path) -> list[Path]:
    """Return the folders of runs, oldest first; those not yet complete begin with a dot."""
    return sorted(path for path in parent.glob("*") if path.is_dir() and path.name.lstrip(".").startswith(_PREFIX))


def _is_free(folder: Path) -> bool:
    """Return whether no process has the run open."""
    try:
        with file_lock(folder / _LOCK, wait=False):
            return True
    except BlockingIOError:
        return False


def _resume(parent: Path, stack: contextlib.ExitStack) -> Path:
    with file_lock(parent / _LOCK):
        runs = [folder for folder in _folders(parent) if folder.name.startswith(_PREFIX)]
        interrupted = [folder for folder in runs if _is_free(folder)]
        if not interrupted:
            raise TrainingError("There is no unfinished training to continue.", "Start one without --resume.")
        stack.enter_context(file_lock(interrupted[-1] / _LOCK, wait=False))
    # A model that was being saved is saved again.
    shutil.rmtree(interrupted[-1] / "model", ignore_errors=True)
    return interrupted[-1]


def _begin(parent: Path, content: RunContent, stack: contextlib.ExitStack) -> Path:
    if dropped := discard_runs(parent):
        logger.warning("Removed %d unfinished training(s); --resume would have continued the last.", dropped)
    name = f"{_PREFIX}{time.time_ns():020d}-{uuid.uuid4().hex[:8]}"
    incomplete, folder = parent / f".{name}", parent / name
    with file_lock(parent / _LOCK):
        incomplete.mkdir(mode=0o700)
        stack.enter_context(file_lock(incomplete / _LOCK, wait=False))
    write_examples(incomplete / _EXAMPLES, content.examples)
    (incomplete / _HELD_OUT).write_text(
        json.dumps(_sets_to_json(content.auxiliary.early_stopping_sets)), encoding="utf-8"
    )
    extra = {"manifest": content.about.to_dict(), "mine": content.mined}
    record: dict[str, Any] = {"settings": content.settings.to_dict(), "base": content.base, "extra": extra}
    record["base_digest"] = base_digest(content.base)
    stored: list[str] = []
    if content.auxiliary.stored is not None:
        shutil.move(content.auxiliary.stored.folder, incomplete / _STORED)
        stored = sorted(f"{_STORED}/{path.name}" for path in (incomplete / _STORED).iterdir())
    record["digests"] = {name: file_digest(incomplete / name) for name in (_EXAMPLES, _HELD_OUT, *stored)}
    record |= {"purges": content.purges, "general_loss": content.auxiliary.general_loss}
    for name, key in _QUERY_SAMPLES.items():
        record[key] = [asdict(sample) for sample in getattr(content.auxiliary, name)]
    (incomplete / _CONTENT).write_text(json.dumps({"record": record, "digest": _digest(record)}), encoding="utf-8")
    for file in (_HELD_OUT, _CONTENT, *stored):
        with (incomplete / file).open("rb") as stream:
            os.fsync(stream.fileno())
    incomplete.rename(folder)
    return folder


def _digest(record: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()


def _read(folder: Path) -> RunContent:
    """Return what a run trains on, after checking that its files have not changed."""
    try:
        content = json.loads((folder / _CONTENT).read_text(encoding="utf-8"))
        record = dict(content["record"])
        unchanged = _digest(record) == content["digest"]
        unchanged &= all(file_digest(folder / name) == digest for name, digest in record["digests"].items())
    except (OSError, ValueError, TypeError, LookupError, AttributeError) as error:
        raise _changed(folder) from error
    if not unchanged:
        raise _changed(folder)
    check_base(record["base"], record["base_digest"])
    examples = list(read_examples(folder / _EXAMPLES))
    held_out = _sets_from_json(json.loads((folder / _HELD_OUT).read_text(encoding="utf-8")))
    settings = TrainSettings.from_dict(record["settings"])
    samples = {
        name: [QuerySample(tuple(one["queries"]), tuple(one["texts"]), one["results"]) for one in record[key]]
        for name, key in _QUERY_SAMPLES.items()
    }
    auxiliary, extra = AuxiliaryData(samples["training_queries"], samples["heldout_queries"], held_out), record["extra"]
    stored = StoredVectors(folder / _STORED) if (folder / _STORED).is_dir() else None
    auxiliary = replace(auxiliary, general_loss=record.get("general_loss", auxiliary.general_loss), stored=stored)
    about = Description.given(extra.get("manifest", {}))
    return RunContent(examples, settings, record["base"], auxiliary, about, extra.get("mine", {}), record.get("purges"))


def _changed(folder: Path) -> TrainingError:
    return TrainingError(
        f"The unfinished training in {folder} is damaged, or was changed: its files are not those that it began with.",
        "Start a new one without --resume, which removes it.",
    )


def _sets_to_json(sets: Sequence[EvalSet]) -> dict[str, Any]:
    """Return evaluation sets as JSON-able values; documents that several sets share are kept once."""
    indexes: dict[int, int] = {}
    documents: list[dict[str, str]] = []
    for one in sets:
        if id(one.documents) not in indexes:
            indexes[id(one.documents)] = len(documents)
            documents.append(dict(one.documents))
    rows = [
        {
            "name": one.name,
            "documents": indexes[id(one.documents)],
            "queries": [[query.text, sorted(query.relevant), query.group] for query in one.queries],
        }
        for one in sets
    ]
    return {"documents": documents, "sets": rows}


def _sets_from_json(values: dict[str, Any]) -> list[EvalSet]:
    return [
        EvalSet(
            one["name"],
            values["documents"][one["documents"]],
            tuple(EvalQuery(text, frozenset(relevant), group) for text, relevant, group in one["queries"]),
        )
        for one in values["sets"]
    ]


@contextlib.contextmanager
def _disk_errors(parent: Path) -> Iterator[None]:
    try:
        parent.mkdir(parents=True, exist_ok=True)
        yield
    except OSError as error:
        raise TrainingError(
            f"The folder of the training, {parent}, cannot be used: {error}", "Free disk space or fix its permissions."
        ) from error
