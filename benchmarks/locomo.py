"""LoCoMo (arXiv 2402.17753): how well a memory agent finds the evidence and how well a reader answers from it.

    python benchmarks/locomo.py --agent mem0 --protocol stock
    python benchmarks/locomo.py --agent mem0 --protocol deployment --folds 5
    python benchmarks/locomo.py --agent mem0 --train-data ONE.json --eval-data ANOTHER.json
    python benchmarks/locomo.py --agent memoryos --llm-url http://localhost:8000/v1 --llm-model NAME
    python benchmarks/locomo.py --encoders stock,starter,hins --hybrid
    python benchmarks/locomo.py --agent none --encoders stock,bm25,starter,DIR
    python benchmarks/locomo.py --encoders stock,hins --reader openai:MODEL --base-url URL --report FILE.html

Protocols score the retrieval in two ways: the encoder alone (cosine over the question's own conversation) and the
agent's whole search: Mem0's fused one, or MemoryOS's retrieval of pages, for which a page counts as evidence when one
of its turns is. ``deployment`` trains on what was captured while other conversations were played (questions, answers
given, memories retrieved; evidence labels are for scoring only) and scores conversations that were never seen.

``--encoders`` and ``--reader`` put encoders side by side in the same agent: what each finds, what a reader answers from
it. There, ``hins`` is the encoder that the deployment protocol trains. docs/how-to/benchmarks.md says what each
figure means.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import get_args

from hins_memory.errors import AgentError, ConfigError
from hins_memory.llm import Usage
from hins_memory.training.settings import Mode
from parts.agents.alone import BM25
from parts.agents.hybrid import enable_hybrid
from parts.agents.llm_proxy import LlmProxy
from parts.agents.mem0 import fused_parts
from parts.agents.mem0_extraction import Extraction
from parts.agents.memoryos import LLM, paged
from parts.common.command import base_parser, exit_status
from parts.common.files import resolve_data
from parts.common.results import write_result
from parts.common.screen import show_table, stage
from parts.datasets.locomo import LOCOMO, Conversation, load_locomo, relevant, sample_conversations
from parts.datasets.locomo_audit import audited, is_known, known_errors
from parts.locomo.deployment import Fold, Plan, deployment, other_file, score, settings_of, split_folds
from parts.locomo.deployment_report import report_stock
from parts.locomo.side_by_side import EncoderRun, Retriever, answer, score_run
from parts.locomo.side_by_side_page import write_report
from parts.locomo.side_by_side_report import fused_example, report_runs
from parts.qa.judge import AnswerJudge
from parts.qa.models import Models
from parts.qa.scores import sentence_splitter

__all__ = ["Fold", "main", "split_folds"]

_QUICK_CONVERSATIONS = 2
_QUICK_QUESTIONS = 100
_SECRETS = ("json", "llm_key")


def _parser() -> argparse.ArgumentParser:
    parser = base_parser("LoCoMo: retrieval of a memory agent, and a reader's answers, with one encoder or another.")
    parser.add_argument(
        "--agent",
        choices=["mem0", "memoryos", "none"],
        default="mem0",
        help="the memory agent; none: encoders alone, side by side",
    )
    parser.add_argument("--data", type=Path, metavar="FILE", help="locomo10.json, a file of its format, or sample")
    parser.add_argument("--memories", choices=["turns", "facts"], default="turns", help="what is stored")
    parser.add_argument("--protocol", choices=["stock", "deployment"], help="without training (default), or with")
    parser.add_argument("--folds", type=int, default=5, help="folds by conversation, where an encoder is trained")
    parser.add_argument("--base", default="stock", metavar="DIR_OR_NAME", help="the encoder to start from")
    parser.add_argument(
        "--mode",
        choices=[one for one in get_args(Mode) if one != "auto"],
        default="lora",
        help="how an encoder is trained (default lora)",
    )
    parser.add_argument(
        "--save-encoder",
        type=Path,
        metavar="DIR",
        help="keep the trained encoder as a sentence-transformers folder; with folds that of fold 1, and those of "
        "the others beside it as DIR-fold2, DIR-fold3, ...",
    )
    parser.add_argument("--train-data", type=Path, metavar="FILE", help="train on this file's traffic ...")
    parser.add_argument("--eval-data", type=Path, metavar="FILE", help="... and score this one (same format)")
    parser.add_argument("--audited", action="store_true", help="leave out questions with known label errors")
    LLM.add_arguments(parser)
    group = parser.add_argument_group("side by side")
    group.add_argument(
        "--encoders", metavar="NAME,...", help="stock, hins (trained here), folders, names of the hub, bm25"
    )
    group.add_argument("--hybrid", action="store_true", help="Mem0 searches with BM25 and entities beside cosines")
    group.add_argument("--infer", action="store_true", help="Mem0 extracts memories with --llm-model at --base-url")
    group.add_argument("--infer-turns", type=int, default=2, metavar="N", help="turns a call of Mem0 sees (default 2)")
    group.add_argument("--judge", metavar="MODEL", help="a language model that judges the answers")
    group.add_argument("--report", type=Path, metavar="FILE", help="write a self-contained HTML page there")
    group.add_argument("--fresh", action="store_true", help="play and train again; replies of models are kept")
    Models.add_arguments(parser)
    return parser


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = _parser()
    arguments = parser.parse_args(argv)
    given = arguments
    given.llm_url = given.llm_url or given.base_url
    side_by_side = given.encoders is not None or given.reader != "none" or given.hybrid
    given.encoders = [name.strip() for name in (given.encoders or "stock").split(",")] if side_by_side else []
    wrong = {
        "--train-data and --eval-data go together": (given.train_data is None) != (given.eval_data is None),
        "--train-data and --eval-data replace --data and --protocol": given.train_data is not None
        and (given.data is not None or given.protocol == "stock"),
        "--encoders, --reader and --hybrid replace --protocol, --train-data and --save-encoder": side_by_side
        and (given.protocol or given.train_data or given.save_encoder) is not None,
        "--encoders names an encoder twice, or none": len(set(given.encoders)) < len(given.encoders)
        or "" in given.encoders,
        "--report, --infer, --judge and --fresh need --encoders or --reader": not side_by_side
        and bool(given.report or given.infer or given.judge or given.fresh),
        "--judge needs --reader": given.judge is not None and given.reader == "none",
        "--hybrid is for Mem0": given.hybrid and given.agent != "mem0",
        "--agent none needs --encoders or --reader": given.agent == "none" and not side_by_side,
        "bm25 is not an encoder that an agent embeds with: use --agent none": BM25 in given.encoders
        and given.agent != "none",
        "--infer is for Mem0 and replaces --memories": given.infer
        and (given.agent != "mem0" or given.memories != "turns"),
        "--infer-turns is at least 1": given.infer_turns < 1,
        "--agent memoryos needs --llm-url or --base-url: MemoryOS asks a language model about every page": given.agent
        == "memoryos"
        and not given.llm_url,
        "--memories is for Mem0: MemoryOS stores pages": given.agent == "memoryos" and given.memories != "turns",
        "--save-encoder needs --protocol deployment: the stock protocol trains nothing": given.save_encoder is not None
        and not side_by_side
        and given.train_data is None
        and given.protocol != "deployment",
        f"--save-encoder: {given.save_encoder} exists already": given.save_encoder is not None
        and given.save_encoder.exists(),
    }
    if found := next((sentence for sentence, is_so in wrong.items() if is_so), None):
        parser.error(found)
    given.protocol = "deployment" if given.train_data is not None else given.protocol or "stock"
    return arguments


def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmark and return the exit status."""
    arguments = _arguments(argv)
    return exit_status(lambda: _run(arguments))


def _run(arguments: argparse.Namespace) -> None:
    with tempfile.TemporaryDirectory(prefix="hins-locomo-") as folder:
        # Mem0 writes to its own folder on import; a benchmark leaves no trace in the user's.
        os.environ.setdefault("MEM0_DIR", str(Path(folder) / "mem0"))
        os.environ.setdefault("MEM0_TELEMETRY", "False")
        plan = Plan(
            memories=arguments.memories,
            base=arguments.base,
            seed=arguments.seed,
            quick=arguments.quick,
            work=Path(folder),
            save=arguments.save_encoder,
            llm=None,
            mode=arguments.mode,
            alone=arguments.agent == "none",
        )
        settings = {name: value for name, value in vars(arguments).items() if name not in _SECRETS}
        if arguments.hybrid:
            # Before anything is played, so that a missing package costs no time.
            plan = replace(plan, hybrid=enable_hybrid(Path(folder) / "bm25"))
            settings["hybrid"] = plan.hybrid
        if arguments.encoders:
            _side_by_side(arguments, plan, settings)
            return
        if arguments.agent == "memoryos":
            # To everything below, pages are stored texts with their evidence, as facts are.
            plan = replace(plan, llm=LLM.of(arguments), memories="facts")
            settings["memories"] = "pages"
        else:
            settings |= fused_parts()
        if arguments.protocol == "stock":
            data = _load(arguments.data, plan, arguments.audited)
            figures, rows = report_stock(score(data, plan.base, plan, settings_of(plan, "stock")), show_table)
        elif arguments.train_data is not None:
            train = _load(arguments.train_data, plan, arguments.audited)
            data = _load(arguments.eval_data, plan, arguments.audited)
            figures, rows = deployment(train, data, [other_file(train, data)], plan)
        else:
            data = _load(arguments.data, plan, arguments.audited)
            folds = split_folds(data, arguments.folds, plan.seed)
            settings["unseen"] = {fold.name: [one.id for one in fold.held_out] for fold in folds}
            figures, rows = deployment(data, data, folds, plan)
        write_result(arguments.json, figures, rows, settings)


def _side_by_side(arguments: argparse.Namespace, plan: Plan, settings: dict[str, object]) -> None:
    """Run encoders through the same agent, reader and judge, and report them side by side."""
    models = Models(arguments)
    with ExitStack() as stack:
        stack.callback(models.close)
        # Before anything is played, so that a wrong name or key costs no time.
        reader = models.reader()
        judge = AnswerJudge(models.client(arguments.judge), arguments.workers) if arguments.judge else None
        if arguments.agent == "memoryos" or arguments.infer:
            proxy = stack.enter_context(LlmProxy(models.client(arguments.llm_model)))
            if arguments.infer:
                plan = replace(plan, extraction=Extraction(proxy, arguments.infer_turns))
            else:
                plan = replace(plan, llm=LLM(proxy.base_url, arguments.llm_model, "none"), memories="facts")
                settings["memories"] = "pages"
        if plan.agent == "mem0":
            settings |= fused_parts()
        data = _load(arguments.data, plan)
        errors = known_errors() if arguments.audited else {}
        retriever = Retriever(plan, models.cache_folder, fresh=arguments.fresh)
        runs = []
        for name in arguments.encoders:
            asked = retriever.retrieve(name, data, retriever.models(name, data, arguments.folds))
            asked = [one for one in asked if not is_known(errors, one.conversation, one.number, one.question.text)]
            before = models.usage()
            readings = answer(reader, asked, name) if reader else ()
            scores, recalls = score_run(asked, readings, judge)
            usage = {model: used.since(before.get(model, Usage())) for model, used in models.usage().items()}
            lost = retriever.lost[name]
            runs.append(EncoderRun(name, tuple(asked), readings, scores, recalls, usage, lost))
        if reader is not None:
            settings["mem0_sentences"] = sentence_splitter()
        if plan.hybrid:
            settings["fused_search"] = _checked_example(runs)
        figures, rows = report_runs(runs, plan.seed, models.usage(), show_table)
        write_result(arguments.json, figures, rows, settings)
        if arguments.report is not None:
            write_report(arguments.report, runs, figures, rows, settings)
            stage(f"page written to {arguments.report}")


def _checked_example(runs: Sequence[EncoderRun]) -> list[dict[str, object]]:
    """Return of each encoder a search in which more than the cosine counted, after checking that there is one."""
    found = {run.name: fused_example(run) for run in runs}
    if missing := [name for name, example in found.items() if example is None]:
        raise AgentError(
            f"Mem0 searched by cosine alone with {', '.join(missing)}, although --hybrid was given.",
            "Look for a warning of mem0 about BM25 or spaCy.",
        )
    return [example for example in found.values() if example]


def _load(path: Path | None, plan: Plan, leave_out_errors: bool = False) -> list[Conversation]:
    is_sample = path is not None and str(path) == "sample" and not path.exists()
    conversations = sample_conversations() if is_sample else load_locomo(resolve_data(path, LOCOMO))
    name = path or LOCOMO.name
    if plan.llm is not None:
        conversations = [paged(one) for one in conversations]
    if plan.quick:
        conversations = [
            replace(one, questions=one.questions[:_QUICK_QUESTIONS]) for one in conversations[:_QUICK_CONVERSATIONS]
        ]
    if leave_out_errors:
        conversations = audited(conversations)
    if not any(relevant_documents for one in conversations for relevant_documents in relevant(one, plan.memories)):
        raise ConfigError(f"No question of {name} has evidence among its {plan.memories}.", "Check the file.")
    stage(f"{name}: {len(conversations)} conversations, {sum(len(one.questions) for one in conversations)} questions")
    return conversations


if __name__ == "__main__":
    sys.exit(main())
