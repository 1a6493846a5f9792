"""Evaluation sets scored by MTEB's own task code, and which of MTEB's memory tasks (LMEB) can be loaded here."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from hins_memory.errors import ConfigError
from hins_memory.evaluation import EvalSet, mteb_model

if TYPE_CHECKING:
    from hins_memory.encoders.encoder import Encoder

__all__ = ["DEFAULT_TASKS", "lmeb_tasks", "run_task", "task_scores"]

#: LMEB's tasks about dialogues between people, which is what agents remember.
DEFAULT_TASKS = ("LoCoMo", "REALTALK", "LongMemEval")
_SPLIT = "test"


def lmeb_tasks() -> list[str]:
    """Return the names of all tasks of the installed MTEB's LMEB benchmark.

    Raises:
        ConfigError: mteb is not installed, or is too old to know LMEB.
    """
    mteb = _mteb()
    try:
        return [str(task.metadata.name) for task in mteb.get_benchmark("LMEB").tasks]
    except KeyError as error:
        raise ConfigError(f"mteb {mteb.__version__} does not know LMEB.", "Install mteb 2.26 or newer.") from error


def run_task(name: str, encoder: Encoder) -> dict[str, dict[str, float]]:
    """Download one of MTEB's tasks and score an encoder on it: subset -> MTEB's scores, 0 to 1.

    Raises:
        ConfigError: the task's data cannot be fetched; the message says why.
    """
    task = _mteb().get_task(name)
    try:
        task.load_data()
    except Exception as error:  # whatever the hub's client raises: no network, offline mode, a moved revision
        source = task.metadata.dataset
        raise ConfigError(
            f"The data of {name} ({source['path']}, revision {source['revision'][:8]}) cannot be fetched from the "
            f"Hugging Face hub: {type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}",
            "Run this where the hub can be reached (HF_HUB_OFFLINE unset), or check the scorer alone with --data FILE.",
        ) from error
    return _scores(task, encoder)


def task_scores(sets: Sequence[EvalSet], encoder: Encoder) -> dict[str, dict[str, float]]:
    """Score evaluation sets by the code of MTEB's LoCoMo task: group -> MTEB's scores, 0 to 1.

    The candidates of a query are the documents of its own set. In the hub's data too, each query has those of its
    conversation alone.
    """
    from datasets import Dataset

    task = _mteb().get_task("LoCoMo")
    groups = sorted({query.group for one in sets for query in one.queries})
    task.dataset = {}
    for group in groups:
        queries: dict[str, str] = {}
        relevant: dict[str, dict[str, int]] = {}
        candidates: dict[str, list[str]] = {}
        for one in sets:
            names = {name: f"{one.name}/{name}" for name in one.documents}
            for number, query in enumerate(one.queries):
                if query.group == group:
                    key = f"{one.name}?{number}"
                    queries[key] = query.text
                    relevant[key] = {names[name]: 1 for name in query.relevant}
                    candidates[key] = list(names.values())
        used = {name for ids in candidates.values() for name in ids}
        corpus = [
            {"id": key, "text": text, "title": ""}
            for one in sets
            for name, text in one.documents.items()
            if (key := f"{one.name}/{name}") in used
        ]
        rows = [{"id": key, "text": text} for key, text in queries.items()]
        task.dataset[group] = {
            _SPLIT: {
                "queries": Dataset.from_list(rows),
                "corpus": Dataset.from_list(corpus),
                "relevant_docs": relevant,
                "top_ranked": candidates,
            }
        }
    task.hf_subsets, task.data_loaded = groups, True
    return _scores(task, encoder)


def _scores(task: Any, encoder: Encoder) -> dict[str, dict[str, float]]:
    from datasets import disable_progress_bars

    disable_progress_bars()
    logging.getLogger("mteb").setLevel(logging.WARNING)
    encode = {"batch_size": 32, "show_progress_bar": False}
    found: Mapping[str, Mapping[str, Any]] = task.evaluate(mteb_model(encoder), split=_SPLIT, encode_kwargs=encode)
    return {
        subset: {name: float(value) for name, value in scores.items() if isinstance(value, float)}
        for subset, scores in found.items()
    }


def _mteb() -> Any:
    try:
        import mteb
    except ImportError as error:
        raise ConfigError(
            f"MTEB cannot be imported: {error}.",
            'Install it with: pip install "hins-memory[mteb]" (Python 3.11 or newer)',
        ) from error
    return mteb
