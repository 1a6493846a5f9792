"""Answers by language models from what an agent finds with one encoder or another (LoCoMo, arXiv 2402.17753).

    python benchmarks/answers.py --model NAME=URL --sources nothing,stock,starter,evidence --json F.json --page F.md
    python benchmarks/answers.py --model NAME=URL ... --max-total-tokens 1        # asks nothing: what is kept already
    python benchmarks/answers.py --agent memoryos --model NAME=URL ... --conversations 2
    python benchmarks/answers.py --data sample --prompts short,copy,locomo ...    # to choose an instruction
    python benchmarks/answers.py --halves DIR                                     # DIR/train.json and DIR/eval.json

In Mem0 every turn is stored as it is (``infer=False``), in MemoryOS every page: what one says with the reply. MemoryOS
asks a language model for summaries, keywords and continuity, the first that is named. What was found is shown with its
time. The questions, of categories 1 to 4, are drawn
by the seed before anything is asked. Each is answered from every source before the next, so that a run that is stopped
compares the sources on the same questions; replies are kept, so that it goes on where it was. The temperature is 0.
docs/results/answers.md is a page of this command.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import textwrap
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

from hins_memory.errors import ConfigError
from hins_memory.llm import BudgetError
from hins_memory.training.settings import TrainSettings
from parts.agents.hybrid import enable_hybrid
from parts.agents.llm_proxy import LlmProxy
from parts.agents.memoryos import LLM, paged
from parts.common.command import base_parser, exit_status
from parts.common.files import resolve_data, write_whole
from parts.common.results import write_result
from parts.common.screen import show_table, stage
from parts.datasets.locomo import LOCOMO, Conversation, load_locomo, sample_conversations
from parts.locomo.answers import ENDS, answer_all, draw, end_contexts, found_contexts
from parts.locomo.answers_report import answer_rows, figures_of, page
from parts.locomo.deployment import Plan
from parts.locomo.side_by_side import Asked, Retriever
from parts.qa.models import Models
from parts.qa.readers import INSTRUCTIONS, ChatReader
from parts.qa.scores import sentence_splitter

__all__ = ["main"]

_QUICK_QUESTIONS = 5
_MAX_TOKENS = 32
_WIDTH = 120
_SETTINGS = ("agent", "data", "sources", "prompts", "k", "questions", "seed", "quick")


def _parser() -> argparse.ArgumentParser:
    parser = base_parser("LoCoMo: what language models answer from what an agent finds with an encoder.")
    add = parser.add_argument
    add("--data", type=Path, metavar="FILE", help="locomo10.json, a file of its format, or sample")
    add("--agent", choices=["mem0", "memoryos"], default="mem0", help="the memory agent (default mem0)")
    add("--conversations", type=int, metavar="N", help="draw N of the conversations by --seed (default all)")
    add("--model", action="append", default=[], metavar="NAME=URL", help="a model and its endpoint; may be repeated")
    add("--sources", default="nothing,stock,starter,evidence", metavar="SOURCE,...",
        help="what is shown: nothing, evidence (its turns), or an encoder, NAME or NAME=DIR")  # fmt: skip
    add("--base", default="stock", metavar="SOURCE", help="the source that the others are compared with")
    add("--k", default="5", metavar="N,...", help="how many memories are shown (default 5)")
    add("--prompts", default="short", metavar="NAME,...", help=f"instructions: {', '.join(INSTRUCTIONS)}")
    add("--questions", type=int, default=400, metavar="N", help="how many questions are drawn (default 400)")
    add("--hybrid", action="store_true", help="Mem0 searches with BM25 and entities beside cosines")
    add("--page", type=Path, metavar="FILE", help="write a Markdown page there")
    add("--halves", type=Path, metavar="DIR", help="write two halves of the conversations there, by --seed, and end")
    Models.add_arguments(parser, reader=False)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmark and return the exit status."""
    arguments = _parser().parse_args(argv)
    return exit_status(lambda: _halves(arguments) if arguments.halves else _run(arguments))


def _halves(arguments: argparse.Namespace) -> None:
    """Write train.json and eval.json: conversations to train on, and ones to ask about."""
    import numpy as np

    content = json.loads(resolve_data(arguments.data, LOCOMO).read_text(encoding="utf-8"))
    order = np.random.default_rng(arguments.seed).permutation(len(content))
    middle = len(content) // 2
    for name, places in (("train", order[:middle]), ("eval", order[middle:])):
        chosen = [content[place] for place in sorted(places)]
        write_whole(arguments.halves / f"{name}.json", json.dumps(chosen, ensure_ascii=False).encode())
        stage(f"{name}.json: {', '.join(str(one.get('sample_id')) for one in chosen)}")


def _run(arguments: argparse.Namespace) -> None:
    endpoints, sources, limits = _checked(arguments)
    prompts = arguments.prompts.split(",")
    with tempfile.TemporaryDirectory(prefix="hins-answers-") as folder, ExitStack() as stack:
        # Mem0 writes to its own folder on import; a benchmark leaves no trace in the user's.
        os.environ.setdefault("MEM0_DIR", str(Path(folder) / "mem0"))
        os.environ.setdefault("MEM0_TELEMETRY", "False")
        plan = Plan(
            memories="turns",
            base="stock",
            seed=arguments.seed,
            quick=arguments.quick,
            work=Path(folder),
            save=None,
            llm=None,
            mode=TrainSettings().mode,
            hybrid=enable_hybrid(Path(folder) / "bm25") if arguments.hybrid else None,
        )
        data = _load(arguments)
        stored = data
        if arguments.agent == "memoryos":
            model, url = endpoints[0]
            proxy = stack.enter_context(LlmProxy(_models(arguments, url, stack).client(model)))
            # To everything below, pages are stored texts with their evidence, as facts are.
            plan, stored = replace(plan, llm=LLM(proxy.base_url, model, "none"), memories="facts"), [*map(paged, data)]
        asked = _retrieved(plan, arguments, sources, stored)
        drawn = draw(next(iter(asked.values())), _QUICK_QUESTIONS if arguments.quick else arguments.questions,
                     arguments.seed)  # fmt: skip
        if not drawn:
            raise ConfigError("No question has an answer and evidence.", "Check the file.")
        ends = end_contexts(drawn, data)
        rows: list[dict[str, Any]] = []
        for limit in limits:
            contexts = {n: ends[n] if n in ENDS else found_contexts(drawn, asked[n], limit) for n in sources}
            for model, url in endpoints:
                models = _models(arguments, url, stack)
                for prompt in prompts:
                    try:
                        reader = ChatReader(models.client(model), INSTRUCTIONS[prompt], arguments.workers, _MAX_TOKENS)
                    except BudgetError:
                        continue  # nothing of this model is kept
                    answers = answer_all(reader, drawn, contexts, f"{model}, {prompt}, k={limit}")
                    if answers.questions:
                        rows += answer_rows((model, prompt, limit), answers, arguments.base, arguments.seed)
        _report(arguments, rows, {"hybrid": plan.hybrid, "conversations": [one.id for one in data]})


def _checked(arguments: argparse.Namespace) -> tuple[list[tuple[str, str]], dict[str, str], list[int]]:
    """Return the models with their addresses, the sources with their encoders, and how many memories are shown."""
    endpoints = [_pair(text, "--model") for text in arguments.model]
    sources = dict(_pair(text, "--sources") if "=" in text else (text, text) for text in arguments.sources.split(","))
    limits = _limits(arguments.k)
    if unknown := [name for name in arguments.prompts.split(",") if name not in INSTRUCTIONS]:
        raise ConfigError(f"There is no instruction {unknown[0]!r}.", f"Use one of {', '.join(INSTRUCTIONS)}.")
    if arguments.hybrid and arguments.agent != "mem0":
        raise ConfigError("--hybrid is for Mem0.", "Leave out one of the two.")
    if not endpoints or arguments.base not in sources or min(arguments.questions, arguments.workers) < 1:
        raise ConfigError(
            "--model is missing, --base is not among --sources, or --questions or --workers is below 1.",
            "E.g. --model NAME=http://localhost:8000/v1 --sources nothing,stock,starter,evidence.",
        )
    return endpoints, sources, limits


def _models(arguments: argparse.Namespace, url: str, stack: ExitStack) -> Models:
    """Return the models of one address, closed when the stack is."""
    models = Models(argparse.Namespace(**{**vars(arguments), "base_url": url}))
    stack.callback(models.close)
    return models


def _retrieved(
    plan: Plan, arguments: argparse.Namespace, sources: dict[str, str], data: Sequence[Conversation]
) -> dict[str, list[Asked]]:
    """Return what the agent finds of every question with each encoder; with the base's where no encoder is named."""
    encoders = {name: model for name, model in sources.items() if name not in ENDS} or {"stock": "stock"}
    retriever = Retriever(plan, Models(arguments).cache_folder)
    return {name: retriever.retrieve(name, data, dict.fromkeys((one.id for one in data), model))
            for name, model in encoders.items()}  # fmt: skip


def _report(arguments: argparse.Namespace, rows: list[dict[str, Any]], more: dict[str, Any]) -> None:
    if not rows:
        raise ConfigError("Nothing was answered from every source.", "Start it with a model that answers.")
    columns = ["", "questions", "official F1", "gain", "from", "to", "share of the room"]
    lines = [
        [f"{row['model']}, {row['prompt']}, k={row['k']}: {row['source']}", row["questions"], row["official_f1"]]
        + [row.get(name) for name in ("official_f1_gain", "official_f1_low", "official_f1_high", "room")]
        for row in rows
    ]
    show_table(f"LoCoMo, answers, categories 1-4 (percent); difference from {arguments.base}", columns, lines)
    prompts = {name: INSTRUCTIONS[name] for name in arguments.prompts.split(",")}
    settings = {name: getattr(arguments, name) for name in _SETTINGS} | more
    settings["sources"] = [text.partition("=")[0] for text in arguments.sources.split(",")]
    settings |= {"instructions": prompts, "max_tokens": _MAX_TOKENS, "temperature": 0}
    settings["mem0_sentences"] = sentence_splitter()
    write_result(arguments.json, figures_of(rows), rows, settings)
    if arguments.page is not None:
        write_whole(arguments.page, page(rows, "Answers by a real model", _about(settings), arguments.base).encode())
        stage(f"page written to {arguments.page}")


def _about(settings: dict[str, Any]) -> list[str]:
    prompts = [f"* *{name}*: {text}" for name, text in settings["instructions"].items()]
    search = "Mem0's search ({}) finds among the turns".format(
        "BM25 and entities beside cosines" if settings["hybrid"] else "cosines alone"
    )
    if settings["agent"] == "memoryos":
        search = "MemoryOS retrieves among the pages, each what one says with the reply"
    about = (
        f"Written by `benchmarks/answers.py`. A model answers questions of LoCoMo's categories 1-4, drawn with seed "
        f"{settings['seed']} from {', '.join(settings['conversations'])}, from the memories that {search}. *nothing* "
        "shows no memory, *evidence* the turns that hold the answer, as if the retrieval were perfect. A table's "
        "questions are those that were answered from every source when the run was stopped; their order was drawn "
        "beforehand. *stock* is all-MiniLM-L6-v2, *starter* what new stores begin with; another name is an encoder "
        "folder: [the commands](../how-to/benchmarks.md)."
    )
    how = (
        f"Temperature 0, at most {settings['max_tokens']} tokens. The instruction begins every prompt; the memories, "
        "numbered, the question and *Short answer:* follow."
    )
    reading = (
        "Percent. Intervals: paired bootstrap over questions, 10,000 resamples. The share of the room is "
        "(row - base) / (evidence - base) in official F1."
    )
    return [
        textwrap.fill(about, _WIDTH),
        "",
        textwrap.fill(how, _WIDTH),
        "",
        *prompts,
        "",
        textwrap.fill(reading, _WIDTH),
    ]


def _pair(text: str, option: str) -> tuple[str, str]:
    name, _, value = text.partition("=")
    if not name or not value:
        raise ConfigError(f"{option} {text!r} is not NAME=VALUE.", "Name it, then = and its address or folder.")
    return name, value


def _limits(text: str) -> list[int]:
    try:
        limits = [int(part) for part in text.split(",")]
    except ValueError:
        limits = [0]
    if not all(1 <= limit <= 20 for limit in limits):
        raise ConfigError(f"--k {text!r} is not a list of numbers from 1 to 20.", "E.g. --k 5,10.")
    return limits


def _load(arguments: argparse.Namespace) -> list[Conversation]:
    """Return the conversations, or those that are drawn, in the order of the file."""
    import numpy as np

    path, count = arguments.data, arguments.conversations
    is_sample = path is not None and str(path) == "sample" and not path.exists()
    found = sample_conversations() if is_sample else load_locomo(resolve_data(path, LOCOMO))
    if count is None:
        return found
    if not 1 <= count <= len(found):
        raise ConfigError(f"--conversations {count}: there are {len(found)}.", f"Use 1 to {len(found)}.")
    return [found[place] for place in sorted(np.random.default_rng(arguments.seed).permutation(len(found))[:count])]


if __name__ == "__main__":
    sys.exit(main())
