"""PERSONAMEM (arXiv 2504.14225): does a memory agent find what personalises an answer?

    python benchmarks/personamem.py                                                    # twelve histories of our own
    python benchmarks/personamem.py --folder DIR --agent mem0
    python benchmarks/personamem.py --folder DIR --size 128k --reader openai:MODEL --base-url URL --encoder stock --encoder VERSION_DIR
    python benchmarks/personamem.py --folder DIR --agent memoryos --llm-url URL --llm-model NAME

DIR holds the official files, from https://huggingface.co/datasets/bowen-upenn/PersonaMem; without it the packaged
histories are asked about, which are not the paper's and give no figure to compare with it. Each question is asked after
the first ``end_index_in_shared_context`` messages of its context went into the agent, who the user is among them, and
none of the later ones. Of the memories that it retrieves for the question the reader chooses one of four options:

* ``openai:MODEL``: a language model replies with a letter; a reply that names none, or several, is wrong and counted;
* ``extractive``: the option that is nearest to the span which a question-answering model takes out of the memories;
* ``none``: no reader. The option that is nearest to the memories (mean cosine of the three nearest) is taken, which says
  whether the retrieval found what distinguishes the options. It is a figure of its own, ``nearest_option_accuracy``, and
  no published score; beside it stands what the question alone gives, without any memory.

The packaged questions name the messages that their right option rests on: ``evidence_recall`` says how many of them the
agent retrieved. With ``--controls`` the language model also chooses without any memory, and from that evidence alone.
"""  # noqa: E501  # one command is longer

from __future__ import annotations

import argparse
import os
import random
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hins_memory.common.files import file_digest
from hins_memory.config import Settings
from hins_memory.errors import ConfigError
from parts.agents.histories import History, Mem0History, MemoryosHistory
from parts.agents.memoryos import LLM
from parts.common.command import base_parser, exit_status
from parts.common.results import write_result
from parts.common.screen import stage
from parts.datasets.personamem import PACKAGED, QUESTION_TYPES, SIZES, Contexts, Question, find_files, load_questions
from parts.datasets.personamem_tiny import write_tiny
from parts.personamem.choice import CHOOSE_INSTRUCTION, Chooser, LetterReader, make_chooser
from parts.personamem.report import Answered, report
from parts.qa.models import Models
from parts.qa.readers import ChatReader

_QUICK_QUESTIONS = 20


def _parser() -> argparse.ArgumentParser:
    parser = base_parser("PERSONAMEM: letter accuracy of a memory agent, overall and by kind of question.")
    parser.add_argument("--agent", choices=["mem0", "memoryos"], default="mem0", help="the memory agent (default mem0)")
    parser.add_argument("--size", choices=list(SIZES), help="tokens of an official history (default 32k)")
    parser.add_argument("--folder", type=Path, metavar="DIR", help="where the official files are")
    parser.add_argument("--questions", type=Path, metavar="FILE", help="a questions file of another name")
    parser.add_argument("--contexts", type=Path, metavar="FILE", help="a contexts file of another name")
    parser.add_argument(
        "--encoder", action="append", metavar="DIR_OR_NAME", help="an encoder (default stock); may be repeated"
    )
    parser.add_argument("--top-k", type=int, default=10, metavar="N", help="memories a question gets (default 10)")
    parser.add_argument("--limit", type=int, default=0, metavar="N", help="only N questions, drawn by --seed; 0 is all")
    parser.add_argument(
        "--controls", action="store_true", help="also choose without any memory, and from the evidence alone"
    )
    Models.add_arguments(parser)
    LLM.add_arguments(parser)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmark and return the exit status."""
    parser = _parser()
    arguments = parser.parse_args(argv)
    arguments.llm_url = arguments.llm_url or arguments.base_url
    if arguments.agent == "memoryos" and not arguments.llm_url:
        parser.error("--agent memoryos needs --llm-url: MemoryOS asks a language model about every page")
    if arguments.top_k < 1 or arguments.limit < 0:
        parser.error("--top-k has to be at least 1 and --limit at least 0")
    if arguments.size and not _named(arguments):
        parser.error("--size is about the official files: name them with --folder DIR")
    if arguments.controls and not arguments.reader.startswith("openai:"):
        parser.error("--controls are choices of a language model: add --reader openai:MODEL")
    return exit_status(lambda: _run(arguments))


def _run(arguments: argparse.Namespace) -> None:
    with tempfile.TemporaryDirectory(prefix="hins-personamem-") as folder:
        # Mem0 writes to its own folder on import; a benchmark leaves no trace in the user's.
        os.environ.setdefault("MEM0_DIR", str(Path(folder) / "mem0"))
        os.environ.setdefault("MEM0_TELEMETRY", "False")
        files = _files(arguments, Path(folder))
        questions, contexts = load_questions(files[0]), Contexts(files[1])
        limit = arguments.limit or (_QUICK_QUESTIONS if arguments.quick else 0)
        questions = _usable(_drawn(questions, limit, arguments.seed), contexts)
        stage(f"{files[0].name}: {len(questions)} questions about {len({one.context for one in questions})} histories")
        models = Models(arguments)
        answers: list[Answered] = []
        try:
            reader = models.reader(CHOOSE_INSTRUCTION)
            llm = LLM.of(arguments) if arguments.agent == "memoryos" else None
            for number, name in enumerate(arguments.encoder or ["stock"]):
                settings = Settings(home=Path(folder), project=f"encoder{number}", log_url="", capture=False)
                with _agent(name, arguments, settings, llm) as agent:
                    chooser = make_chooser(reader, agent)
                    answers.append(_answer(agent, chooser, questions, contexts, arguments.top_k))
            if arguments.controls and isinstance(reader, ChatReader):
                answers += _controls(LetterReader(reader), questions, contexts)
        finally:
            models.close()
        figures, rows = report(answers, questions, arguments.seed)
        for model, usage in models.usage().items():
            figures |= {f"{model}_prompt_tokens": usage.prompt_tokens, f"{model}_cost": usage.cost}
        write_result(arguments.json, figures, rows, _settings(arguments, files, answers))


def _files(arguments: argparse.Namespace, folder: Path) -> tuple[Path, Path]:
    if named := _named(arguments):
        home = arguments.folder or named.parent
        return find_files(arguments.size or "32k", home, arguments.questions, arguments.contexts)
    if arguments.quick:
        stage("two histories of our own, in PERSONAMEM's format")
        return write_tiny(folder / "tiny")
    stage("twelve histories of our own, in PERSONAMEM's format: not the paper's, name those with --folder DIR")
    return PACKAGED


def _named(arguments: argparse.Namespace) -> Path | None:
    named: Path | None = arguments.folder or arguments.questions or arguments.contexts
    return named


def _drawn(questions: Sequence[Question], limit: int, seed: int) -> list[Question]:
    """Return as many questions, of all histories alike, in the file's order; more hold all of fewer; 0 returns all."""
    places = list(range(len(questions)))
    random.Random(seed).shuffle(places)
    return [questions[place] for place in sorted(places[: limit or None])]


def _usable(questions: Sequence[Question], contexts: Contexts) -> list[Question]:
    """Return the questions, after checking that their contexts are there."""
    if missing := sorted({one.context for one in questions if one.context not in contexts}):
        raise ConfigError(
            f"{contexts.path} lacks {len(missing)} contexts of the questions, e.g. {missing[0]}.",
            "Use files of the same size and date.",
        )
    if unknown := sorted({one.kind for one in questions} - set(QUESTION_TYPES)):
        stage(f"kinds of questions that PERSONAMEM's paper does not have: {', '.join(unknown)}")
    return list(questions)


def _agent(model: str, arguments: argparse.Namespace, settings: Settings, llm: LLM | None) -> History:
    if llm is None:
        return Mem0History(model, settings)
    return MemoryosHistory(model, settings, llm, arguments.top_k)


def _answer(
    agent: History, chooser: Chooser, questions: Sequence[Question], contexts: Contexts, top_k: int
) -> Answered:
    """Tell the agent each history once, and ask each question at the point of the history where it belongs."""
    by_context: dict[str, list[int]] = {}
    for number, question in enumerate(questions):
        by_context.setdefault(question.context, []).append(number)
    retrieved: list[list[str]] = [[] for _ in questions]
    for done, (name, numbers) in enumerate(by_context.items(), start=1):
        messages, told = contexts.messages(name), 0
        agent.begin(name)
        for number in sorted(numbers, key=lambda one: questions[one].end):
            question = questions[number]
            if question.end > told:
                agent.tell(messages[told : question.end])
                told = question.end
            retrieved[number] = agent.ask(question.text, top_k)
        stage(f"{agent.encoder.version}: history {done} of {len(by_context)}, {len(numbers)} questions")
    found = [_found(question, contexts, texts) for question, texts in zip(questions, retrieved, strict=True)]
    return Answered(agent.encoder.version, chooser.name, chooser.choose(questions, retrieved), found)


def _found(question: Question, contexts: Contexts, retrieved: Sequence[str]) -> float | None:
    """Return the share of a question's evidence that was retrieved; None where the file does not name it."""
    if not question.evidence:
        return None
    messages = contexts.messages(question.context)
    # A page of MemoryOS holds two messages.
    found = [any(messages[place].text in text for text in retrieved) for place in question.evidence]
    return sum(found) / len(found)


def _controls(chooser: Chooser, questions: Sequence[Question], contexts: Contexts) -> list[Answered]:
    """Return what is chosen from nothing, and from the evidence: what memories can add at most."""
    nothing: list[list[str]] = [[] for _ in questions]
    answers = [Answered("nothing", chooser.name, chooser.choose(questions, nothing))]
    if all(question.evidence for question in questions):
        evidence = []
        for question in questions:
            messages = contexts.messages(question.context)
            evidence.append([messages[place].text for place in question.evidence])
        answers.append(Answered("evidence", chooser.name, chooser.choose(questions, evidence)))
    return answers


def _settings(arguments: argparse.Namespace, files: tuple[Path, Path], answers: Sequence[Answered]) -> dict[str, Any]:
    settings = {name: value for name, value in vars(arguments).items() if name not in ("json", "llm_key")}
    settings["sha256"] = {path.name: file_digest(path) for path in files}
    settings["encoders"] = [one.encoder for one in answers]
    return settings


if __name__ == "__main__":
    sys.exit(main())
